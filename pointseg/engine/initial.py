"""Where a new run's weights come from: a trained model of ours, or a published backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pointseg.backbones import build_backbone
from pointseg.engine.checkpoint import FORMAT, read_checkpoint
from pointseg.engine.recipe import read_recipe
from pointseg.errors import UserError
from pointseg.segmenter import Segmenter
