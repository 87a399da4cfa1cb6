"""What the columns of a file mean: recognised by name, brought into the ranges that scenes have, and back."""
