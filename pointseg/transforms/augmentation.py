"""The strengths of training augmentation; the defaults are those of DITR's indoor configurations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities and ranges of the augmentations of ``indoor`` and ``outdoor`` pipelines.

    Outdoor pipelines only rotate about z, scale, flip and jitter.

    Source: the published configurations of DITR (Knaebel 2025, arXiv:2503.18944) and Point
    Transformer V3 (Wu 2024, arXiv:2312.10035).
    """

    drop_probability: float = 0.2
    """The probability that points are dropped."""
    drop_fraction: float = 0.2
    """The share of the points that is then dropped."""
    rotate_z_probability: float = 0.5
    """The probability of a rotation about z."""
    rotate_z_deg: float = 180.0
    """The angle about z is uniform in plus to minus this."""
    rotate_xy_probability: float = 0.5
    """The probability of a rotation about x, and of one about y."""
    rotate_xy_deg: float = 180 / 64
    """The angle about x and y is uniform in plus to minus this."""
    scale_low: float = 0.9
    """The smallest scale factor."""
    scale_high: float = 1.1
    """The largest scale factor."""
    flip_probability: float = 0.5
    """The probability of a flip along x, and of one along y."""
    jitter_m: float = 0.005
    """The standard deviation of the noise on positions, metres."""
    jitter_clip_m: float = 0.02
    """The noise on positions is clipped to plus and minus this, metres."""
    elastic_probability: float = 0.95
    """The probability of elastic distortion."""
    elastic: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    """(edge of cells, magnitude) of each elastic distortion, metres."""
    contrast_probability: float = 0.2
    """The probability of automatic contrast."""
    color_shift_probability: float = 0.95
    """The probability of a shift of colours."""
    color_shift: float = 0.05
    """The largest shift of a channel, in units of 255."""
    color_jitter_probability: float = 0.95
    """The probability of noise on colours."""
    color_jitter: float = 0.05
    """The standard deviation of the noise on colours, in units of 255."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("probability"):
                _require(name, value, 0 <= value <= 1, "in 0 to 1")
        _require("drop_fraction", self.drop_fraction, 0 <= self.drop_fraction < 1, "in [0, 1)")
        for name in ("rotate_z_deg", "rotate_xy_deg"):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 180, "0 to 180 degrees")
        low, high = self.scale_low, self.scale_high
        _require("scale_low", low, 0 < low <= high, f"above 0, at most 'scale_high' ({high})")
        _require("scale_high", high, high < float("inf"), "finite")
        for name in ("jitter_m", "jitter_clip_m"):
            value = getattr(self, name)
            _require(name, value, 0 <= value < float("inf"), ">= 0 metres")
        fits = all(
            len(pair) == 2 and all(0 < metres < float("inf") for metres in pair)
            for pair in self.elastic
        )
        _require("elastic", self.elastic, fits, "pairs of metres, all above 0")
        for name in ("color_shift", "color_jitter"):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 1, "in 0 to 1")

    @classmethod
    def lidar(cls) -> Augmentation:
        """For LiDAR scans: augmentations that outdoor pipelines leave out have probability 0."""
        return cls(
            drop_probability=0.0,
            rotate_xy_probability=0.0,
            elastic_probability=0.0,
            contrast_probability=0.0,
            color_shift_probability=0.0,
            color_jitter_probability=0.0,
        )

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation at all."""
        return cls(
            drop_probability=0.0,
            rotate_z_probability=0.0,
            rotate_xy_probability=0.0,
            scale_low=1.0,
            scale_high=1.0,
            flip_probability=0.0,
            jitter_m=0.0,
            elastic_probability=0.0,
            contrast_probability=0.0,
            color_shift_probability=0.0,
            color_jitter_probability=0.0,
        )


def _require(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"Augmentation: '{name}' must be {what}, got {value!r}")
