"""Scores of segmentations against reference masks, in millimetres."""
