"""Clouds that do not fit into memory: sorted on disk, predicted tile by tile, resumed after a stop."""
