"""From scenes on disk to batches: augmentation, sampling, images and their features."""
