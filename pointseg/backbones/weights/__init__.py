"""Published weights: their files read, their configuration found, every key accounted for in a network."""
