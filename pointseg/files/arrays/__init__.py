"""Clouds as NumPy arrays: a folder of .npy files, one .npz, or a single .npy."""
