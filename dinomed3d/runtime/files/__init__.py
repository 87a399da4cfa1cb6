"""Files read safely and written whole: tensors, archives, locks, temporary folders."""
