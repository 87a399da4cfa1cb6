"""Recipes, losses and metrics; training, testing and prediction."""
