"""A raw nnU-Net dataset is looked over before hours are spent on it: what would stop or spoil training."""
