"""The machine: its devices, what they compute natively, and how much memory a process may take."""
