"""Cameras and images from manifests, COLMAP models and organised clouds."""
