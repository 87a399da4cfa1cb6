"""PLY files: points, triangles, lists of any length; copies keep all else."""
