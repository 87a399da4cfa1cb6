"""What belongs to a run: its options, folder, lock, scenes, log, and how it is stopped and resumed."""
