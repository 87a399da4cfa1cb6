"""Trained models as folders and zips: checked, opened, packaged."""
