"""Trained models for others: one file, its card, and the Hugging Face hub."""
