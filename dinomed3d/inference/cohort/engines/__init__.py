"""Who predicts the cases of a run: a child process, threads of this one, or workers of a Ray cluster."""
