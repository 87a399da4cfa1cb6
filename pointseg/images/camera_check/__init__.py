"""Checking cameras: whether poses, intrinsics and depth maps agree with the cloud."""
