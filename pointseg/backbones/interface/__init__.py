"""What every backbone takes and gives: clouds, features by level, features of images, classes of users."""
