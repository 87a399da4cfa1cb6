"""Look at the masks of a run over their scans, in a browser."""
