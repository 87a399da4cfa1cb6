"""How training scenes are varied, as numbers; section 3's of the method's description are the defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What :func:`pointseg.transforms.indoor` and :func:`pointseg.transforms.outdoor` draw from.

    Outdoors only rotation about z, scale, flips and jitter are done.
    """

    drop_probability: float = 0.2
    drop_fraction: float = 0.2
    """Share of the points left out."""
    rotate_z_probability: float = 0.5
    rotate_z_deg: float = 180.0
    """Angles are uniform in plus to minus this."""
    rotate_xy_probability: float = 0.5
    rotate_xy_deg: float = 180 / 64
    scale_low: float = 0.9
    scale_high: float = 1.1
    flip_probability: float = 0.5
    """Of x and of y, each."""
    jitter_m: float = 0.005
    """Standard deviation of the noise on positions."""
    jitter_clip_m: float = 0.02
    elastic_probability: float = 0.95
    elastic: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    """(edge of cells, magnitude) of each elastic distortion, metres."""
    contrast_probability: float = 0.2
    color_shift_probability: float = 0.95
    color_shift: float = 0.05
    """Largest shift of a channel, in units of 255."""
    color_jitter_probability: float = 0.95
    color_jitter: float = 0.05
    """Standard deviation of the noise on colours, in units of 255."""

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
        """Outdoor scans: what is not done outdoors is set to zero, so that a recipe says what happens."""
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
        """Scenes as they are."""
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
