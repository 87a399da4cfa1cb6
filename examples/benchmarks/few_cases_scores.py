"""How test cases of `few_cases.py` are scored, on the way and at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinomed3d.evaluation.metrics import score
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, predict_windows
from dinomed3d.training.step.precision import fast_precision

TOLERANCE_MM = 1.0
"""Distance that surface Dice accepts."""


def test_scores(trainer: Any, tests: list[Path], *, surfaces: bool, shuffle: bool = False) -> list:
    """Scores of every test case and label, or region where there are regions, on the preprocessed grid.

    Args:
        trainer: its network predicts, without mirroring.
        tests: files of preprocessed cases.
        surfaces: whether distances are measured too.
        shuffle: predict with the slices in another order, which is undone afterwards.

    Returns:
        For every case [[Dice, HD95 in mm, surface Dice] per label].
    """
    network, device = trainer.network, trainer.device
    trainer.set_deep_supervision_enabled(False)
    network.eval()
    predictor = Predictor(
        [network], mirroring=None, device=device, precision=fast_precision(device)
    )
    spacing = trainer.configuration_manager.spacing
    patch = trainer.configuration_manager.patch_size
    found = []
    for path in tests:
        content = np.load(path)
        data, truth = torch.from_numpy(content["data"]), content["truth"]
        order = torch.randperm(data.shape[1], generator=torch.Generator().manual_seed(0))
        data = data[:, order] if shuffle else data
        mask = predicted_labels(predictor, data.to(device), patch, trainer.label_manager)
        mask = mask[torch.argsort(order)] if shuffle else mask
        rows = []
        for a, b in masks(truth, mask.numpy(), trainer.label_manager):
            if surfaces:
                rows.append(list(score(a, b, spacing_mm=spacing, tolerance_mm=TOLERANCE_MM)))
            else:
                total = a.sum() + b.sum()
                rows.append([2 * (a & b).sum() / total if total else float("nan")])
        found.append(rows)
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    network.train()
    return found


def masks(truth: np.ndarray, found: np.ndarray, labels: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(true, predicted) of every label or region, without voxels that are to be ignored.

    Args:
        truth: (D, H, W) labels.
        found: likewise, predicted.
        labels: nnU-Net's LabelManager.
    """
    known = (
        np.ones(truth.shape, bool) if labels.ignore_label is None else truth != labels.ignore_label
    )
    wanted = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    sets = [list(one) if isinstance(one, tuple | list) else [one] for one in wanted]
    return [(np.isin(truth, one) & known, np.isin(found, one) & known) for one in sets]


def predicted_labels(predictor: Predictor, data: Tensor, patch: list[int], labels: Any) -> Tensor:
    """(C, D, H, W) -> (D, H, W) labels, padded to the patch inside."""
    size = data.shape[1:]
    pads = [max(0, p - n) for p, n in zip(patch[-3:], size, strict=True)]
    padded = torch.nn.functional.pad(data, (0, pads[2], 0, pads[1], 0, pads[0]))
    grid = WindowGrid.over(padded.shape[1:], patch, 0.5)
    predictor.clear_cache()
    heads = labels.num_segmentation_heads
    chunks = predict_windows(
        padded, grid, (0, grid.size[1]), predictor.predict, heads=heads, batch=1
    )
    found = torch.cat([labels_of(chunk.logits, labels) for chunk in chunks])
    return found[: size[0], : size[1], : size[2]].cpu()


def labels_of(logits: Tensor, labels: Any) -> Tensor:
    """(heads, D, H, W) of any type -> (D, H, W). Of regions nnU-Net makes labels, and scores regions again."""
    if not labels.has_regions:
        return logits.argmax(0)
    found: Tensor = labels.convert_logits_to_segmentation(logits)
    return found


def mean_dice(scores: list) -> float:
    """Mean over cases and labels."""
    return float(np.nanmean([row[0] for case in scores for row in case]))
