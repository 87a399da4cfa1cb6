"""Planning nnU-Net experiments for DINO-Med3D: what a network costs, its sizing, nnU-Net's planner, and reports."""
