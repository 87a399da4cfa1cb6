"""The demo of the toolkit on data that it makes: phantom, commands, progress, picture, result."""
