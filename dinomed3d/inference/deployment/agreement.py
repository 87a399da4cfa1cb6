"""Whether an exported network gives the same logits as the one it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dinomed3d.inference.deployment.exported_program import Run
from dinomed3d.runtime.errors import UserError

LARGEST = 1e-4
"""Largest difference of two logits that is accepted, as a fraction of the logits' range."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the logits of two networks lie apart."""

    difference: float
    """Largest difference of two logits."""
    range: float
    """Largest minus smallest logit."""

    @property
    def relative(self) -> float:
        """The difference as a fraction of the range."""
        return self.difference / self.range if self.range else float(self.difference > 0)


def random_windows(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Normally distributed windows, as normalised intensities are, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def compare(
    run: Run, windows: Sequence[Tensor], expected: Sequence[Tensor], name: str
) -> Agreement:
    """Run an exported network, and compare its logits with the expected ones.

    Args:
        run: the network.
        windows: its inputs.
        expected: the logits of each.
        name: of the file in messages.

    Returns:
        The worst of all inputs.

    Raises:
        UserError: other shapes, or differences above LARGEST.
    """
    found = []
    for given, logits in zip(windows, expected, strict=True):
        result = run(given)
        if result.shape != logits.shape:
            raise UserError(
                f"{name}: gives logits of shape {list(result.shape)} for an input of {list(given.shape)}, torch "
                f"gives {list(logits.shape)}; nothing was written"
            )
        lowest, highest = logits.aminmax()
        found.append(
            Agreement(
                difference=float((result - logits).abs().max()), range=float(highest - lowest)
            )
        )
    wrong = [
        agreement for agreement in found if not agreement.relative <= LARGEST
    ]  # NaN is not below
    worst = max(wrong or found, key=lambda agreement: agreement.relative)
    if wrong:
        raise UserError(
            f"{name}: its logits differ from torch's by up to {worst.difference:.2g}, {worst.relative:.2g} of their "
            f"range, more than {LARGEST:g}; nothing was written. Try another version of torch or onnxruntime"
        )
    return worst
