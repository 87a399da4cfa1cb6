"""Artefacts of scanners, put into test images by TorchIO: how much worse does a model become?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.io.image import ENDINGS
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file

if TYPE_CHECKING:
    from torch import Tensor
    from torchio import Transform

STRENGTHS = ("mild", "moderate", "severe")
"""Names of the strengths 1, 2 and 3; 0 is the untouched image."""
GHOSTS = 4
"""Ghosts along the phase encoding direction: every fourth line of k-space is damped."""
MOVEMENTS = 2
"""Movements during an acquisition; the pose in between fills the centre of k-space."""
ROBUST_RANGE = (1.0, 99.0)
"""Percentiles between which the range of intensities is measured."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A kind of artefact at three strengths."""

    parameter: str
    """Name of the number that grows, with its unit."""
    values: tuple[float, float, float]
    """Values of the parameter, mild to severe."""
    reason: str
    """What the artefact comes from, and why these values."""
    transform: Callable[[float, _Scan], Transform]
    """Makes TorchIO's transform from a value and what is known of the scan."""


@dataclass(frozen=True)
class _Scan:
    """What transforms depend on: array axes are TorchIO's axes, (z, y, x)."""

    spacing_mm: tuple[float, ...]
    """Voxel size (z, y, x)."""
    intensity_range: float
    """Difference of the two percentiles of ROBUST_RANGE."""

    @property
    def across(self) -> int:
        """The axis of the largest voxel side, on which slices lie; of equal ones the first, z."""
        return int(np.argmax(self.spacing_mm))


def _motion(value: float, scan: _Scan) -> Transform:
    import torchio

    return torchio.RandomMotion(degrees=value, translation=value, num_transforms=MOVEMENTS)


def _ghosting(value: float, scan: _Scan) -> Transform:
    import torchio

    # in-plane, where MR has its phase encoding
    return torchio.RandomGhosting((GHOSTS, GHOSTS), axes=(1, 2), intensity=(value, value))


def _bias_field(value: float, scan: _Scan) -> Transform:
    import torchio

    return torchio.RandomBiasField(coefficients=value)


def _noise(value: float, scan: _Scan) -> Transform:
    import torchio

    std = value * scan.intensity_range
    return torchio.RandomNoise(mean=(0, 0), std=(std, std))


def _anisotropy(value: float, scan: _Scan) -> Transform:
    import torchio

    return torchio.RandomAnisotropy(axes=scan.across, downsampling=(value, value))


def _spike(value: float, scan: _Scan) -> Transform:
    import torchio

    return torchio.RandomSpike(intensity=(value, value))


def _blur(value: float, scan: _Scan) -> Transform:
    import torchio

    return torchio.RandomBlur((value, value))


ARTIFACTS = {
    "motion": Artifact(
        parameter="largest rotation and shift, degrees and mm",
        values=(0.5, 2.0, 5.0),
        reason="the patient moves twice (MR). Half a millimetre is hardly seen, 2 mm blur and ring, for 5 mm "
        "a scan is repeated; TorchIO's default for augmentation is 10.",
        transform=_motion,
    ),
    "ghosting": Artifact(
        parameter="damping of every fourth line of k-space, share",
        values=(0.25, 0.5, 1.0),
        reason="pulsation and breathing (MR). Four ghosts, each a quarter of the share as bright as the "
        "image: 6, 12 and 25 %; more than 1 cannot be. TorchIO's default is 0.5 to 1.",
        transform=_ghosting,
    ),
    "bias_field": Artifact(
        parameter="largest coefficient of a cubic polynomial, log of the gain",
        values=(0.25, 0.5, 1.0),
        reason="inhomogeneous coils (MR). Half, once and twice TorchIO's default: the gain differs "
        "across the image by factors of about 2, 4 and more than 10.",
        transform=_bias_field,
    ),
    "noise": Artifact(
        parameter="standard deviation, share of the range from percentile 1 to 99",
        values=(0.025, 0.05, 0.1),
        reason="short acquisitions, low dose (MR, CT): the range is 40, 20 and 10 standard deviations, and "
        "grey and white matter differ by a fifth of it.",
        transform=_noise,
    ),
    "anisotropy": Artifact(
        parameter="one of so many slices is kept",
        values=(3.0, 5.0, 7.0),
        reason="distant slices, interpolated to the grid (MR, CT), along the axis of the largest voxel "
        "side. From 1 mm: what clinical scans have, after Billot et al. 2020. Odd numbers, since a "
        "kept slice then lies in the middle of those it stands for, and anatomy is not shifted.",
        transform=_anisotropy,
    ),
    "spike": Artifact(
        parameter="brightness of one point of k-space, share of the brightest one",
        values=(0.1, 0.25, 0.5),
        reason="sparks in the scanner room (MR): stripes whose amplitude is this share of the image's "
        "mean. TorchIO's default for augmentation is 1 to 3, where anatomy is hardly seen.",
        transform=_spike,
    ),
    "blur": Artifact(
        parameter="standard deviation of a Gaussian, mm",
        values=(0.5, 1.0, 2.0),
        reason="smooth reconstruction kernels, coarse acquisitions (MR, CT): half maxima of 1.2, 2.4 "
        "and 4.7 mm.",
        transform=_blur,
    ),
}
"""All artefacts. In every comparison of a seed and a case the pattern is the same at all strengths."""


def degrade(
    image: NDArray[Any],
    *,
    spacing_mm: Sequence[float],
    artifact: str,
    strength: int,
    seed: int = 0,
    case: str = "",
) -> NDArray[Any]:
    """Put an artefact into an image; labels, which it does not move, stay as they are.

    Intensities are counted from the darkest voxel, so that gain and spikes mean the same in CT and in
    normalised images as where air is 0. Whole numbers stay whole and within their type.

    Args:
        image: (Z, Y, X), one channel, at least 2 voxels along each axis.
        spacing_mm: voxel size (z, y, x).
        artifact: a name of ``ARTIFACTS``.
        strength: 0 (a copy of the image) to 3.
        seed: of the random pattern, together with `artifact` and `case`.
        case: name of case and channel, so that each has a pattern of its own.

    Returns:
        (Z, Y, X), type and grid of `image`.

    Raises:
        UserError: an unknown artefact or strength, an image of another shape, or values that are not
            finite.

    Source: Pérez-García et al. 2021, arXiv:2003.04696 (TorchIO); motion after Shaw et al. 2019.
    """
    _check(image, spacing_mm, artifact, strength)
    if strength == 0:
        return image.copy()
    import torch

    value = ARTIFACTS[artifact].values[strength - 1]
    lowest, highest = np.percentile(image, ROBUST_RANGE)
    scan = _Scan(tuple(map(float, spacing_mm)), float(highest - lowest))
    darkest = float(image.min())
    voxels = torch.from_numpy(image.astype(np.float64) - darkest).float()
    padding = [(0, 0)] * 3
    if artifact == "anisotropy":
        padding[scan.across] = _ends(image.shape[scan.across], int(value))
    digest = hashlib.sha256(f"{seed}/{artifact}/{case}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
        found = _apply(ARTIFACTS[artifact].transform(value, scan), voxels, scan, padding)
    return _as_type(found.numpy().astype(np.float64) + darkest, image.dtype)


def degrade_file(
    source: Path, target: Path, *, artifact: str, strength: int, seed: int = 0, case: str = ""
) -> None:
    """Write a copy of an image file with an artefact, on the same grid, in the same type.

    Args:
        source: a file of one channel; its ending is one of ``ENDINGS``.
        target: the file to write, whose ending is that of `source`.
        artifact: as :func:`degrade`, like the further arguments.
        strength: 0 to 3.
        seed: of the random pattern.
        case: name of case and channel.

    Raises:
        UserError: as :func:`degrade`; or the file cannot be read, or is no volume of one channel.
    """
    import SimpleITK as sitk

    if not source.name.endswith(ENDINGS):
        raise UserError(f"{source}: must end in one of {', '.join(ENDINGS)}")
    try:
        image = sitk.ReadImage(str(source))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise UserError(f"{source}: cannot be read as an image ({reason})") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(f"{source}: must be a volume of one channel, one file for each channel")
    try:
        found = degrade(
            sitk.GetArrayFromImage(image),
            spacing_mm=image.GetSpacing()[::-1],  # SimpleITK counts x, y, z
            artifact=artifact,
            strength=strength,
            seed=seed,
            case=case,
        )
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    degraded = sitk.GetImageFromArray(found)
    degraded.CopyInformation(image)
    with new_file(target) as part:
        sitk.WriteImage(degraded, str(part))


def _check(image: NDArray[Any], spacing_mm: Sequence[float], artifact: str, strength: int) -> None:
    if artifact not in ARTIFACTS:
        raise UserError(
            f"degrade: 'artifact' must be one of {', '.join(ARTIFACTS)}, got {artifact!r}"
        )
    if strength not in range(len(STRENGTHS) + 1):
        raise UserError(f"degrade: 'strength' must be 0 to {len(STRENGTHS)}, got {strength}")
    if image.ndim != 3 or min(image.shape) < 2:
        raise UserError(
            f"degrade: 'image' must be (Z, Y, X) with at least 2 voxels along each, got {image.shape}"
        )
    if len(spacing_mm) != 3 or not all(side > 0 for side in spacing_mm):
        raise UserError(f"degrade: 'spacing_mm' must be three sides above 0, got {spacing_mm}")
    if not np.isfinite(image).all():
        raise UserError("degrade: 'image' must be finite, it holds NaN or infinity")


def _ends(slices: int, every: int) -> tuple[int, int]:
    """How often both end slices are repeated while others are left out.

    Resampling takes 0 beyond the outermost samples, and is exact where groups of slices fill the volume.
    """
    return every, every + -slices % every


def _apply(
    transform: Transform, voxels: Tensor, scan: _Scan, padding: Sequence[tuple[int, int]]
) -> Tensor:
    """(Z, Y, X) voxels through a transform of TorchIO, which sees them with repeated ends."""
    import torch
    import torchio

    widths = [n for ends in reversed(padding) for n in ends]
    padded = torch.nn.functional.pad(voxels[None, None], widths, mode="replicate")[0]
    affine = np.diag([*scan.spacing_mm, 1.0])
    # TorchIO's motion turns about the origin: it must be the middle of the volume, not its corner
    affine[:3, 3] = [
        -side * (n - 1) / 2 for side, n in zip(scan.spacing_mm, padded.shape[1:], strict=True)
    ]
    found: Tensor = transform(torchio.ScalarImage(tensor=padded, affine=affine)).data[0]
    inner = [slice(first, first + n) for (first, _), n in zip(padding, voxels.shape, strict=True)]
    return found[tuple(inner)]


def _as_type(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)
