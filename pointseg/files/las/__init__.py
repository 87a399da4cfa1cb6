"""LAS and LAZ files: read and written through laspy, from headers that were checked; copies keep all else."""
