"""Predicting files of clouds."""
