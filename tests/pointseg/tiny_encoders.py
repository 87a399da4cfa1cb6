"""Files as Sonata's and Utonia's are published: a configuration and the weights of a tiny encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pointseg.backbones import build_backbone

CONFIG: dict[str, Any] = {
    "in_channels": 9,
    "order": ("z", "z-trans", "hilbert", "hilbert-trans"),
    "stride": (2, 2),
    "enc_depths": (1, 1, 2),
    "enc_channels": (12, 12, 24),
    "enc_num_head": (1, 1, 2),
    "enc_patch_size": (32, 32, 32),
    "mlp_ratio": 2,
    "drop_path": 0.3,
    "shuffle_orders": True,
    "mask_token": True,
    "enc_mode": True,
    "freeze_encoder": False,
}
EXTRA = {"utonia": {"rope_base": 10.0}}


def write_encoder(path: Path, family: str = "sonata", **changes: Any) -> dict[str, torch.Tensor]:
    """Write the file; returns its weights."""
    config = CONFIG | EXTRA.get(family, {}) | changes
    torch.manual_seed(3)
    state = build_backbone(family, **config).state_dict()
    torch.save({"config": config, "state_dict": state}, path)
    return state
