"""Waymo Open Dataset, version 2."""
