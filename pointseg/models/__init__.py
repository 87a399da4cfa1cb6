"""Models: the network of a recipe, in a file, read from one, and what a new one starts from."""
