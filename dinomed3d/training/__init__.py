"""Training: the recipe, the two stages, and the adapter to nnU-Net."""
