"""Recipes as data, and the presets of the published trainings."""
