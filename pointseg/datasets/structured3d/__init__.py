"""Structured3D."""
