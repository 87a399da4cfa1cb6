"""Attention within windows of points that follow each other along space-filling curves."""
