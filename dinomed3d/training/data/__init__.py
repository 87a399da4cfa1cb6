"""What a training reads: checked datasets, nnU-Net's loaders and augmentation, stage I's slices, the halo."""
