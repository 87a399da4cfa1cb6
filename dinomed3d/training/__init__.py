"""nnU-Net's trainer with both stages: the trainer here; what it reads, starts from and does in rooms below it."""
