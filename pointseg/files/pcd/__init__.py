"""PCD files of the Point Cloud Library: text, binary and compressed; copies keep all else."""
