"""Compares pose conventions by the agreement of cloud and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pointseg.images.camera_check.agreement import MIN_POINTS, Agreement
from pointseg.images.camera_check.pose_conventions import OPENGL, WORDS

FITTING_SHARE = 0.3
"""Share of points at the depth of the depth maps from which a pose is plausible."""
IN_VIEW_SHARE = 0.05
"""Share of points inside the images that makes a pose plausible if the stated one has a tenth of it."""
UPRIGHT, UPRIGHT_SHARE, UPRIGHT_VIEWS = 0.3, 0.9, 3
"""Cosine from which a camera is upright; the share of the cameras that must be; and the fewest cameras."""


@dataclass(frozen=True)
class PoseCheckResult:
    """Result of comparing pose conventions."""

    alternative: str | None
    """The convention that fits much better than the stated one; None: none does."""
    reason: str
    """The statistic that shows it; "" if no statistic can tell."""
    sure: bool = False
    """Whether depth maps, colours or the points in view show it, not only how cameras are usually held."""

    def __str__(self) -> str:
        """The issue, if an alternative fits better."""
        assert self.alternative is not None
        return f"{WORDS[self.alternative]}; read in this way, {self.reason}"


def compare_pose_hypotheses(
    stated: Sequence[Agreement],
    others: Mapping[str, Sequence[Agreement]],
    *,
    by_share: bool = True,
) -> PoseCheckResult:
    """Whether poses fit as stated, or which other convention fits.

    Compared in this order, until one statistic decides: depth maps, colours, ground (what is lower in the
    image is nearer for upright cameras), number of points in view, whether the cameras are upright.

    Args:
        stated: agreement of each view under its stated pose.
        others: agreement of the same views under each alternative.
        by_share: whether more points in view are evidence. They are not if some image shows the scene as
            stated: the other images may show other parts of a site.
    """
    for metric in METRICS:
        if (found := _by_metric(metric, stated, others)) is not None:
            return found
    if by_share and (found := _by_share(stated, others)) is not None:
        return found
    return _by_uprightness(stated, others) or PoseCheckResult(None, "")


def _by_metric(
    metric: AgreementMetric, stated: Sequence[Agreement], others: Mapping[str, Sequence[Agreement]]
) -> PoseCheckResult | None:
    """What one statistic says; None if it cannot tell."""
    value = metric.value(stated)
    if value is None and not metric.decisive:
        return None
    # without any point in view the stated pose is as bad as can be
    own = metric.ideal + metric.tolerance + metric.gain if value is None else value
    found = {name: metric.value(views) for name, views in others.items()}
    plausible = {name: v for name, v in found.items() if v is not None and metric.is_plausible(v)}
    if metric.is_plausible(own) and not any(metric.is_similar(v, own) for v in plausible.values()):
        return PoseCheckResult(None, metric.in_words(own), sure=metric.decisive)
    better = {name: v for name, v in plausible.items() if metric.is_better(v, own)}
    if not better:
        return None
    best = min(better, key=lambda name: abs(better[name] - metric.ideal))
    as_stated = "none" if value is None else format(value, metric.form)
    reason = f"{metric.in_words(better[best])}, {as_stated} as stated"
    return PoseCheckResult(best, reason, sure=metric.decisive)


def _by_share(
    stated: Sequence[Agreement], others: Mapping[str, Sequence[Agreement]]
) -> PoseCheckResult | None:
    """The alternative that has many more points in view."""
    own, shares = _share(stated), {name: _share(views) for name, views in others.items()}
    best = max(shares, key=lambda name: shares[name], default="")
    if not best or shares[best] < IN_VIEW_SHARE or own > shares[best] / 10:
        return None
    reason = f"{shares[best]:.1%} of the points lie inside the images, {own:.2%} as stated"
    return PoseCheckResult(best, reason, sure=True)


def _by_uprightness(
    stated: Sequence[Agreement], others: Mapping[str, Sequence[Agreement]]
) -> PoseCheckResult | None:
    """Whether cameras are upright, or would all be so with OpenGL's axes: few people hold them upside down.

    In a closed room without depth maps nothing else may tell, since a camera sees walls whatever its pose.
    """
    own = [view.upright for view in stated if view.upright is not None]
    if len(own) < UPRIGHT_VIEWS or OPENGL not in others:
        return None
    up, down = (sum(sign * each >= UPRIGHT for each in own) / len(own) for sign in (1, -1))
    if down >= UPRIGHT_SHARE:
        reason = f"{down:.0%} of the cameras are upright, upside down as stated"
        return PoseCheckResult(OPENGL, reason)
    return (
        PoseCheckResult(None, f"{up:.0%} of the cameras are upright")
        if up >= UPRIGHT_SHARE
        else None
    )


def _share(views: Sequence[Agreement]) -> float:
    return sum(v.inside for v in views) / max(1, sum(v.points for v in views))


def _depth_share(views: Sequence[Agreement]) -> float | None:
    known = sum(v.depth_known for v in views)
    return sum(v.depth_fits for v in views) / known if known >= MIN_POINTS else None


def _color_ratio(views: Sequence[Agreement]) -> float | None:
    found = [
        v.color_error / v.chance_color_error
        for v in views
        if v.color_error is not None and v.chance_color_error
    ]
    return float(np.median(found)) if found else None


def _ground(views: Sequence[Agreement]) -> float | None:
    found = [v.ground_correlation for v in views if v.ground_correlation is not None]
    return float(np.median(found)) if found else None


@dataclass(frozen=True)
class AgreementMetric:
    """One statistic by which poses are compared."""

    value: Callable[[Sequence[Agreement]], float | None]
    """Computes it over all views; None without enough points."""
    ideal: float
    """Its value under correct poses."""
    tolerance: float
    """How far from the ideal a plausible pose may be."""
    gain: float
    """How much nearer to the ideal an alternative must be than the stated pose."""
    sentence: str
    """Describes it; {} is replaced by the value."""
    form: str
    """Format of the value."""
    decisive: bool
    """Whether it may favour an alternative if the stated pose has no value."""

    def is_plausible(self, value: float) -> bool:
        """Whether poses with this value can be correct."""
        return abs(value - self.ideal) <= self.tolerance

    def is_better(self, value: float, own: float) -> bool:
        """Whether an alternative is much better than the stated pose."""
        return abs(own - self.ideal) - abs(value - self.ideal) >= self.gain

    def is_similar(self, value: float, own: float) -> bool:
        """Whether an alternative is not clearly worse than the stated pose: then the metric cannot tell."""
        return abs(value - self.ideal) - abs(own - self.ideal) < self.gain / 2

    def in_words(self, value: float) -> str:
        """The value in its sentence."""
        return self.sentence.format(format(value, self.form))


METRICS = (
    AgreementMetric(
        _depth_share, 1.0, 1 - FITTING_SHARE, 0.2,
        "{} of the points are at the distance that the depth maps show", ".0%", True,
    ),
    AgreementMetric(
        _color_ratio, 0.0, 0.75, 0.2,
        "colours of points and pixels differ {} times as much as by chance", ".2f", True,
    ),
    AgreementMetric(
        _ground, -1.0, 0.5, 0.4,
        "what is lower in the images is nearer, as on the ground (rank correlation {})", ".2f", False,
    ),
)  # fmt: skip
"""The most reliable first."""
