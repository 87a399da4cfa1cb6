"""Names that options accept, repeated here because the modules that own them import torch.

``tests/pointseg/cli/test_help.py`` holds them equal to those of their owners.
"""

BACKBONES = ("ptv3", "minkunet", "pointnext")
TTA_SETS = ("single", "scannet", "s3dis", "nuscenes", "semantickitti")
NORMAL_ORIENTATIONS = ("middle", "origin", "up")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
