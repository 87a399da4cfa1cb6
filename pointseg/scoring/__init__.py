"""Scoring clouds with classes against clouds with reference classes, file by file."""
