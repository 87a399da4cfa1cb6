"""What a new network starts from: a pretrained encoder, or a whole trained model."""
