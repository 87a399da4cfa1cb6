"""Posed images of scenes: where they come from, which points they show, what is known of them."""
