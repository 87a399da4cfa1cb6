"""Features of a 2D encoder on the voxels of a volume: the lifting core in twenty lines.

Run it as it is (random weights), or with real ones: `python examples/lift_slices.py WEIGHTS_FILE`.
"""

import sys

import torch

from dinomed3d.lifting import Nearest, SliceStack, build_encoder, lift, stack_slices, unstack_slices

weights = sys.argv[1] if len(sys.argv) > 1 else "none"
small = {} if weights != "none" else {"embed_dim": 96, "depth": 4, "num_heads": 3}
encoder = build_encoder("vit_small_patch16_dinov3", weights=weights, **small)

volume = torch.randn(1, 1, 5, 64, 48)  # (B, C, D, H, W)
images = stack_slices(volume, slices=3)  # (D, 3, H, W): previous, current, next slice
last = encoder(images)[-1]  # the last tap

# the fast path: one feature per token, a reshape
tokens = unstack_slices(last.values, depth=5)
print("token volume", tuple(tokens.shape))

# the general path: one feature at any position, here at three voxels (z, y, x)
stack = SliceStack(depth=5, height=64, width=48, image_height=64, image_width=48)
points = torch.tensor([[0.0, 7.5, 7.5], [2.0, 30.0, 20.0], [9.0, 0.0, 0.0]])
features, seen = lift(last, stack, points, fuse=Nearest())
print("features at voxels", tuple(features.shape), "seen", seen.tolist())
assert torch.allclose(features[0], tokens[0, :, 0, 0, 0], atol=1e-5)  # a token's own centre
