"""The command ``dinomed3d``: ``main``, one file per verb, and the modules that the demo needs."""
