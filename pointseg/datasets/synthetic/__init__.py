"""Generated rooms."""
