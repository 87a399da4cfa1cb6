"""Clouds as lines of text, whatever separates their numbers and whether or not columns have names."""
