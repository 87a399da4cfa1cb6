"""Training a segmenter or a student of distillation."""
