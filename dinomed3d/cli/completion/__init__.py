"""Scripts with which shells complete the commands."""
