"""S3DIS."""
