"""What is learned: the classes of labels, or the features that an image encoder has of visible points."""
