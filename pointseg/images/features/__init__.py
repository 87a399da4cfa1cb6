"""The image encoder and the cache of its features."""
