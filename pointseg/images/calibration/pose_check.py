"""What the figures of views say about their poses, depth maps and lenses, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dinomed3d.lifting import Camera
from pointseg.images.calibration.agreement import ENOUGH, Agreement, ProjectedPoints, depth_pairs
from pointseg.images.calibration.pose_conventions import WORDS

FITTING = 0.3
"""Share of points as far away as the depth maps say that speaks for a pose."""
IN_VIEW = 0.05
"""Share of points in the images that speaks for a pose if the stated one has a tenth of it or less."""


@dataclass(frozen=True)
class PoseCheckResult:
    """What is held of some poses."""

    other: str | None
    """The alternative that fits much better; None: the poses as they are stated."""
    reason: str
    """The figures that say so; "" where nothing does."""


def compare_pose_hypotheses(
    stated: Sequence[Agreement],
    others: Mapping[str, Sequence[Agreement]],
    *,
    by_share: bool = True,
) -> PoseCheckResult:
    """Whether poses fit, and if not, what would.

    Asked in this order, until one can tell: depth maps, colours, whether what lies lower in the images
    is nearer (as over ground, for upright cameras), how many points are in view.

    Args:
        stated: of the views with the poses as they are.
        others: the same views with each of the alternatives.
        by_share: whether more points in view speak for a reading. They do not if some image of the scene shows
            it as stated: the others may look out of the window, or at other tiles of a site.
    """
    for measure in MEASURES:
        value = measure.figure(stated)
        if value is None and not measure.decisive:
            continue
        # where nothing is in view it is as bad as can be
        own = measure.ideal + measure.near + measure.gain if value is None else value
        found = {name: measure.figure(views) for name, views in others.items()}
        able = {n: v for n, v in found.items() if v is not None and measure.is_plausible(v)}
        if measure.is_plausible(own) and not any(measure.as_good(v, own) for v in able.values()):
            return PoseCheckResult(None, measure.words(own))
        able = {name: value for name, value in able.items() if measure.better(value, own)}
        if able:
            best = min(able, key=lambda name: abs(able[name] - measure.ideal))
            as_stated = "none" if value is None else measure.short(value)
            return PoseCheckResult(best, f"{measure.words(able[best])}, as stated {as_stated}")
    if not by_share:
        return PoseCheckResult(None, "")
    own_share = _share(stated)
    shares = {name: _share(views) for name, views in others.items()}
    best = max(shares, key=lambda name: shares[name], default="")
    if best and shares[best] >= IN_VIEW and own_share <= shares[best] / 10:
        return PoseCheckResult(
            best,
            f"{shares[best]:.1%} of the points lie in the images, as stated {own_share:.2%}",
        )
    return PoseCheckResult(None, "")


def pose_words(verdict: PoseCheckResult) -> str:
    """A finding, for poses that another reading fits better."""
    assert verdict.other is not None
    return f"{WORDS[verdict.other]}; so read, {verdict.reason}"


def depth_unit(shown: ProjectedPoints, camera: Camera, depth: Tensor) -> float | None:
    """How many times too large the depths of a map are; None: not so many times.

    Points that lie on what the map shows all have the same ratio to it, whatever the unit is; those that
    are hidden have any.
    """
    said, true = depth_pairs(shown, camera, depth)
    if len(said) < ENOUGH:
        return None
    ratio = torch.log(said / true).numpy()
    counts, edges = np.histogram(ratio, bins=np.arange(-12, 12.04, 0.04))
    peak = int(counts.argmax())
    near = np.abs(ratio - (edges[peak] + 0.02)) < 0.06
    factor = float(np.exp(np.median(ratio[near])))
    if near.mean() < FITTING or 0.9 < factor < 1.1:
        return None
    return factor


def unit_words(
    factor: float, *, scale: float | None, unit_m: float | None, units: Mapping[str, float]
) -> str:
    """A finding, for a depth map whose depths are ``factor`` times the distances of the points.

    Args:
        factor: as of ``depth_unit``.
        scale: units of the depth map per metre, as stated; None: there is nothing to state.
        unit_m: metres per unit of points and poses, as stated; None: there is nothing to state.
        units: what they may be in, by name, metres.
    """
    times = f"{factor:.4g} times" if factor > 1 else f"1/{1 / factor:.4g} of"
    told = f"the depth map says {times} the distance of the points that lie on it: "
    points = depths = ""
    if unit_m is not None:
        names = {metres: name for name, metres in units.items()}
        meant = min(units, key=lambda name: abs(np.log(unit_m * factor / units[name])), default="")
        if meant and units[meant] != unit_m and 0.9 < unit_m * factor / units[meant] < 1.1:
            stated = names.get(unit_m, f"{unit_m:g} m")
            points = (
                f"the unit of points and poses is {meant}, not {stated} (--unit {meant}, or 'unit: {meant}' "
                "in dataset.yaml)"
            )
    if scale is not None:
        fitting = scale * factor
        power = 10.0 ** round(np.log10(fitting))
        if abs(fitting / power - 1) < 0.05:
            fitting = power
        if 1 <= fitting < 1e7:  # as manifests take it
            fit = f"{float(f'{fitting:.4g}'):.8g}"
            depths = f"the map is in another unit (depth_scale {fit} would fit, not {scale:g})"
    if points and depths:
        return f"{told}either {points}, or {depths}"
    return told + (
        points
        or depths
        or "the map is in another unit, or points and poses are; look at what is said of both"
    )


def looked_through(
    shown: ProjectedPoints, camera: Camera, depth: Tensor, depth_tolerance_m: float
) -> bool:
    """Whether a depth map has something behind many points: no wall hides these, the map does not fit.

    Args:
        shown: what the camera sees.
        camera: its size counts.
        depth: (h, w) metres, 0 where unknown.
        depth_tolerance_m: how far points may be off the depth map.
    """
    said, true = depth_pairs(shown, camera, depth)
    return bool(len(said)) and float((said > true + depth_tolerance_m).float().mean()) > FITTING


def lens_problem(camera: Camera) -> str:
    """What is odd about intrinsics for images of this size; "" if nothing is."""
    height, width = camera.size
    matrix = camera.intrinsics
    fx, fy, cx, cy = (abs(float(matrix[at])) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    told = f"K (fx {fx:.5g}, fy {fy:.5g}, cx {cx:.5g}, cy {cy:.5g}) for {width} x {height} pixels"
    scale = np.array([width / 2 / max(cx, 1e-9), height / 2 / max(cy, 1e-9)])
    if abs(np.log(scale[0] / scale[1])) < 0.1 and abs(np.log(scale).mean()) > 0.2:
        factor = float(np.exp(np.log(scale).mean()))
        return (
            f"{told}: the principal point would be the middle of an image of about "
            f"{width / factor:.0f} x {height / factor:.0f}: K is for another size, multiply fx, fy, cx, cy by "
            f"{factor:.3g}"
        )
    if not (0.2 < cx / width < 0.8 and 0.2 < cy / height < 0.8):
        return (
            f"{told}: the principal point is far from the middle; is K for another size, or a crop?"
        )
    if abs(np.log(fx / fy)) > 0.4:
        return f"{told}: the focal lengths differ much; is one of them for another size?"
    angle = 2 * float(np.degrees(np.arctan(width / 2 / fx)))
    if not 5 < angle < 150:
        return f"{told}: the field of view would be {angle:.3g} degrees wide; is f in pixels?"
    return ""


def half_pixel(shown: ProjectedPoints) -> bool:
    """Whether points lie on the corners of pixels: their centres were taken as whole numbers.

    Points that were made from the pixels of this very image all lie at one place within their pixels;
    others anywhere.
    """
    uv = shown.uv[shown.inside]
    if len(uv) < ENOUGH:
        return False
    turns = torch.exp(2j * np.pi * uv).mean(0)
    offset = torch.angle(turns) / (2 * np.pi)  # from whole numbers, -0.5 to 0.5
    return bool((turns.abs() > 0.15).all() and (offset.abs() < 0.1).all())


def _share(views: Sequence[Agreement]) -> float:
    return sum(v.inside for v in views) / max(1, sum(v.points for v in views))


def _depth_share(views: Sequence[Agreement]) -> float | None:
    known = sum(v.depth_known for v in views)
    return sum(v.depth_fits for v in views) / known if known >= ENOUGH else None


def _color_ratio(views: Sequence[Agreement]) -> float | None:
    found = [
        v.color_off / v.color_chance for v in views if v.color_off is not None and v.color_chance
    ]
    return float(np.median(found)) if found else None


def _ground(views: Sequence[Agreement]) -> float | None:
    found = [v.lower_is_nearer for v in views if v.lower_is_nearer is not None]
    return float(np.median(found)) if found else None


@dataclass(frozen=True)
class AgreementMetric:
    """One kind of evidence."""

    figure: Callable[[Sequence[Agreement]], float | None]
    """Of all views; None where there is nothing to tell it from."""
    ideal: float
    """Its value for poses that are right."""
    near: float
    """How far from that it may be to speak for poses."""
    gain: float
    """How much nearer that of another reading must be to speak for this."""
    told: str
    """In a sentence; {} is the value."""
    form: str
    """Of the value."""
    decisive: bool
    """Whether it speaks for a reading although as stated nothing is in view to compare with."""

    def is_plausible(self, value: float) -> bool:
        """Whether it says that poses are right."""
        return abs(value - self.ideal) <= self.near

    def better(self, value: float, own: float) -> bool:
        """Whether a reading is much better than the stated one."""
        return abs(own - self.ideal) - abs(value - self.ideal) >= self.gain

    def as_good(self, value: float, own: float) -> bool:
        """Whether a reading is not clearly worse than the stated one: then this tells nothing."""
        return abs(value - self.ideal) - abs(own - self.ideal) < self.gain / 2

    def short(self, value: float) -> str:
        """The value alone."""
        return format(value, self.form)

    def words(self, value: float) -> str:
        """The value in a sentence."""
        return self.told.format(self.short(value))


MEASURES = (
    AgreementMetric(
        _depth_share, 1.0, 1 - FITTING, 0.2,
        "of the points that the depth maps know {} are as far away as these say", ".0%", True,
    ),
    AgreementMetric(
        _color_ratio, 0.0, 0.75, 0.2,
        "colours of points and pixels differ {} times as much as by chance", ".2f", True,
    ),
    AgreementMetric(
        _ground, -1.0, 0.5, 0.4,
        "what is lower in the images is nearer, as over ground (rank correlation {})", ".2f", False,
    ),
)  # fmt: skip
"""The most telling first."""
