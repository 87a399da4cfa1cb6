"""Sizing of nnU-Net experiments for DINO-Med3D: cost model, search, and nnU-Net's planner class."""
