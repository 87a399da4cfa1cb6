"""Sizing of nnU-Net experiments for DINO-Med3D, and the adapter to nnU-Net's planning."""
