"""The verbs: each with its options, what it prints in the end, and its exit code."""
