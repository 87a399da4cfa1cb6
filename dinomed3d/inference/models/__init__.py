"""Trained models as folders and zips: looked through, opened, packaged."""
