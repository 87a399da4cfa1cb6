"""The command ``dinomed3d``: ``main``, its verbs, and rooms of what some of them do."""
