"""Your own clouds, described by a dataset.yaml."""
