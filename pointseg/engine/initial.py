"""Where a new run's weights come from: a model of ours, or a published backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from pointseg.backbones import load_backbone
from pointseg.engine.checkpoint import FORMAT, read_checkpoint
from pointseg.errors import UserError
from pointseg.segmenter import Segmenter


def initial_weights(path: Path, classes: Sequence[str]) -> Callable[[nn.Module], str]:
    """What sets a segmenter's weights from a file.

    A model of ours gives its backbone, and its head if it names the same classes; weights in
    Pointcept's format give the backbone alone. All keys of the backbone must fit.

    Args:
        path: a file of ``pointseg-train``, or one that ``backbones.load_backbone`` reads.
        classes: that the new run's head is to name.

    Returns:
        A function that changes a segmenter in place and says what it did.

    Raises:
        UserError: no such file; raised by the function: weights that do not fit.
    """
    if not path.is_file():
        raise UserError(f"--init {path}: there is no such file")

    def load(segmenter: nn.Module) -> str:
        assert isinstance(segmenter, Segmenter)
        if not _is_ours(path):
            load_backbone(segmenter.backbone, path)
            return f"backbone from {path}; the head starts anew"
        content = read_checkpoint(path)
        state = content["model"]
        same = list(content["classes"]) == list(classes)
        head = {k: v for k, v in state.items() if k.startswith("seg_head.")}
        wanted = segmenter.state_dict()
        if not same:
            state = {**state, **{key: wanted[key] for key in head}}
        try:
            segmenter.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"--init {path}: its backbone is another than this run's ({str(error):.300}); give the "
                "same --backbone, --size and features"
            ) from error
        return f"backbone from {path}; " + ("its head, too" if same else "the head starts anew")

    return load


def _is_ours(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return False
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # load_backbone reads it once more and says what is wrong
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT
