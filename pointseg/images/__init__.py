"""Posed images of scenes: where they come from, and which points they show."""
