"""Cross-entropy and Lovasz-softmax over the labelled points of a batch, and class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pointseg.scene import IGNORE

_SORTED_AT_ONCE = 2**22
"""Numbers that Lovasz-softmax sorts at once: 50 MB with their order."""


def segmentation_loss(
    logits: Tensor,
    segment: Tensor,
    *,
    weights: Tensor | None = None,
    lovasz: float = 1.0,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Cross-entropy plus ``lovasz`` times Lovasz-softmax.

    Args:
        logits: (N, K) scores of any floating type.
        segment: (N,) labels, -1 is ignored.
        weights: (K,) class weights in cross-entropy; None: all 1.
        lovasz: weight of Lovasz-softmax, >= 0; at 0 it is not computed.
        smoothing: of the labels in cross-entropy, see there.

    Returns:
        ``loss``, ``cross_entropy`` and, if computed, ``lovasz``: scalars. All are 0, with a gradient
        of 0, if no point is labelled.

    Raises:
        ValueError: shapes that do not fit, a label that is neither a class nor -1.
    """
    classes = _check(logits, segment, "segmentation_loss")
    points = _cross_entropy(logits, segment, weights, smoothing)
    if lovasz == 0:
        return {"loss": points, "cross_entropy": points}
    regions = _lovasz(torch.softmax(_exact(logits), dim=1), segment, classes)
    return {"loss": points + lovasz * regions, "cross_entropy": points, "lovasz": regions}


def cross_entropy(
    logits: Tensor, segment: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """The mean of -log softmax at the label, over labelled points, weighted by their class.

    With ``smoothing`` e in 0 to 1 the target of a point is 1 - e at its label plus e / K at each of the K
    classes, each term weighted by its class (Szegedy 2016, arXiv:1512.00567, section 7).

    Arguments, errors and the case without labels as :func:`segmentation_loss`; computed in float32
    at least.
    """
    _check(logits, segment, "cross_entropy")
    return _cross_entropy(logits, segment, weights, smoothing)


def _cross_entropy(
    logits: Tensor, segment: Tensor, weights: Tensor | None, smoothing: float
) -> Tensor:
    logits, segment = _exact(logits), segment.long()
    if weights is not None:
        weights = weights.to(logits)
    total = F.cross_entropy(
        logits, segment, weights, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing
    )
    labelled = segment != IGNORE
    if weights is None:
        share = labelled.sum().to(total)
    else:
        share = torch.where(labelled, weights[segment.clamp(min=0)], 0).sum()
    # Nothing labelled, or only classes of weight 0: total is 0, and so is 0 / 1.
    return total / torch.where(share > 0, share, 1)


def lovasz_softmax(logits: Tensor, segment: Tensor) -> Tensor:
    """The Lovasz extension of 1 - IoU at the softmax, mean over the classes that the labels have.

    Arguments, errors and the case without labels as :func:`segmentation_loss`; computed in float32
    at least.
    """
    classes = _check(logits, segment, "lovasz_softmax")
    return _lovasz(torch.softmax(_exact(logits), dim=1), segment, classes)


def lovasz_loss(probability: Tensor, segment: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss, mean over the classes that the labels have.

    With all probabilities 0 or 1 it is the mean over these classes of 1 - IoU.

    Args:
        probability: (N, K) in 0 to 1.
        segment: (N,) labels, -1 is ignored.

    Source: Berman 2018, arXiv:1705.08790, algorithm 1, over the whole batch, classes present.
    Differs: sorted-error weights are computed in closed form, avoiding cancellation.
    """
    return _lovasz(probability, segment, _check(probability, segment, "lovasz_loss"))


def _lovasz(probability: Tensor, segment: Tensor, classes: Sequence[int]) -> Tensor:
    if not classes:
        return (probability * 0).sum()
    present = torch.tensor(classes).to(segment.device, non_blocking=True)
    value, gradient = _lovasz_and_gradient(probability.detach(), segment, present)
    # The loss is piecewise linear: this product has its value and its gradient.
    change = (probability * gradient).sum()
    return value + (change - change.detach())


def class_weights(
    counts: NDArray[np.integer[Any]], kind: str, *, total: int | None = None
) -> Tensor | None:
    """Weights that give rare classes more influence.

    Args:
        counts: (K,) labelled points of each class.
        kind: none; auto or log: -ln f; sqrt: 1 / sqrt(f), where f is the class's share of all points.
        total: number of all points, if frequencies include unlabelled ones (as for SemanticKITTI);
            None: the sum of the counts.

    Returns:
        (K,) float32, None for none. A class without points is weighted like one with a single point.

    Raises:
        ValueError: an unknown kind, counts below 0 or of fewer than two classes, too small a total.
    """
    if kind == "none":
        return None
    if kind not in ("auto", "log", "sqrt"):
        raise ValueError(f"class_weights: 'kind' must be none, auto, log or sqrt, got {kind!r}")
    if counts.ndim != 1 or (counts < 0).any() or (counts > 0).sum() < 2:
        raise ValueError(
            f"class_weights: 'counts' must be >= 0 and two classes or more must have points, got "
            f"{counts.tolist()}; use class_weights none"
        )
    every = int(counts.sum())
    if total is not None and total < every:
        raise ValueError(f"class_weights: 'total' must be >= {every} labelled points, got {total}")
    share = np.maximum(counts, 1) / (every if total is None else total)
    weights = 1 / np.sqrt(share) if kind == "sqrt" else -np.log(share)
    return torch.from_numpy(weights.astype(np.float32))


@torch.no_grad()
def _lovasz_and_gradient(
    probability: Tensor, segment: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, and (N, K) its gradient with respect to the probabilities."""
    value, gradient = probability.new_zeros(()), torch.zeros_like(probability)
    ignored = segment == IGNORE
    for part in classes.split(max(1, _SORTED_AT_ONCE // len(segment))):
        inside = segment == part[:, None]  # (C, N)
        scores = probability[:, part].T
        # Below all others, ignored points join last, when there is nothing left to lose.
        errors = torch.where(inside, 1 - scores, scores).masked_fill_(ignored, -1)
        weights = _jaccard_weights(errors, inside)
        value += (weights * errors).sum()
        gradient[:, part] = torch.where(inside, -weights, weights).T
    return value / len(classes), gradient / len(classes)


def _jaccard_weights(errors: Tensor, inside: Tensor) -> Tensor:
    """(C, N) weight of each error in the Lovasz extension of 1 - IoU, which is a subgradient.

    Points are added to the set of mistakes by decreasing error; the weight of a point is how much it raises
    1 - IoU. With intersection I and union U after it was added, a point of the class reduced I by one: its
    weight is 1 / U. Any other point increased U by one: its weight is I / (U - 1) - I / U.
    """
    order = _from_the_largest(errors)
    member = inside.gather(1, order)
    size = inside.sum(1, keepdim=True)
    joined = member.cumsum(1)  # in integers, which are exact
    rank = torch.arange(1, errors.shape[1] + 1, device=errors.device)
    union = (size + rank - joined).to(errors.dtype)
    weights = torch.where(member, 1 / union, (size - joined) / (union * (union - 1)).clamp(min=1))
    return torch.empty_like(errors).scatter_(1, order, weights)


def _from_the_largest(errors: Tensor) -> Tensor:
    """(C, N) order of each row, equal ones as they come; errors are -1, or 0 and more."""
    if errors.device.type != "cpu" or errors.dtype != torch.float32:
        return torch.argsort(errors, dim=1, descending=True, stable=True)
    # Ten times faster on CPU: the bits of such floats are integers in the same order, inverted here
    # by ~; with the place below them, sorting numbers gives the order.
    packed = (~errors.view(torch.int32)).numpy().astype(np.int64, order="C")
    packed <<= 31
    packed |= np.arange(packed.shape[1])
    packed.sort(axis=1)
    packed &= (1 << 31) - 1
    return torch.from_numpy(packed)


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check(logits: Tensor, segment: Tensor, who: str) -> list[int]:
    """The classes that the labels have, in their order; waits for the device once."""
    if logits.dim() != 2 or segment.shape != logits.shape[:1]:
        raise ValueError(
            f"{who}: 'logits' must be (N, K) and 'segment' (N,), got {tuple(logits.shape)} and "
            f"{tuple(segment.shape)}"
        )
    # Checked here because a CUDA device would abort the process with an assertion.
    count = logits.shape[1]
    found = torch.zeros(count + 3, dtype=torch.bool, device=segment.device)
    found.index_fill_(0, segment.long().clamp(-2, count) + 2, True)
    below, _, *present, above = found.tolist()
    if below or above:
        wrong = (segment < IGNORE) | (segment >= count)
        raise ValueError(
            f"{who}: 'segment' must be in 0 to {count - 1}, or {IGNORE} where ignored, got "
            f"{segment[wrong][0].item()} in {int(wrong.sum())} points"
        )
    return [number for number, there in enumerate(present) if there]
