"""The coordinate systems that files state, and so the metres per unit of their coordinates."""
