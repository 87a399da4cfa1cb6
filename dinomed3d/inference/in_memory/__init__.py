"""Prediction from Python: a model that stays loaded, images in, masks out, no files."""
