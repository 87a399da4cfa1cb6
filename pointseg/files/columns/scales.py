"""Ranges of colours and intensities, and fields that were never filled: found from all points of a cloud together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.fields import FileFields
from pointseg.files.columns.tally import Tally, percent
from pointseg.files.columns.values import Range
from pointseg.scene import FIELDS

COLORS = (1.0, 255.0, 65535.0)
"""The largest colours that files have: floats, 8 and 16 bits."""
COLOR_SLACK = {1.0: 2.0, 255.0: 256.0, 65535.0: np.inf}
"""What colours of a range hardly exceed: images that were sharpened or adjusted overshoot 1 somewhat, and some
programs count 8 bits from 1 to 256."""
INTENSITIES = (1.0, 255.0, 4095.0, 65535.0)
"""The largest intensities that files have, where none are below 0: floats, 8, 12 and 16 bits."""
WHOLE_SIGNED = (128.0, 2048.0, 32768.0)
"""Whole intensities from -n to n - 1: Leica's and Semantic3D's are of 12 bits."""
SIGNED = (1.0, 128.0, 256.0, 2048.0, 32768.0)
"""Other intensities from -n on, to n, or to 0 where none are above: decibels reach some -100."""
NOISE = 16
"""Intensities that reach below 0 by this part of what they reach above are noise around 0,"""
SOME = 10
"""if one of so many does, at most."""
DARK_COLOR = 4095.0
"""Colours of 16 bits that nearly all stay below are nearly black, or of 10 or 12 bits."""
COLOR_LIMITS = (0.0, DARK_COLOR, *COLORS, *COLOR_SLACK.values())
HIGH_INTENSITIES = (0.0, *INTENSITIES, *SIGNED, *(n - 1 for n in WHOLE_SIGNED))
LOW_INTENSITIES = (0.0, *(-n / NOISE for n in INTENSITIES), *(-n for n in SIGNED))
FIELD_NAMES = {
    "color": "red, green and blue are",
    "normal": "normals are",
    "strength": "intensity is",
}


@dataclass(frozen=True, kw_only=True)
class ValueRanges:
    """What is stated of the values of files; None: it is found in each file."""

    color_max: float | None = None
    """The largest colour, which becomes 255; bytes always have 255."""
    intensity_min: float | None = None
    """The intensity that becomes 0."""
    intensity_max: float | None = None
    """The intensity that becomes 1."""


NOT_STATED = ValueRanges()


class Clipped(NamedTuple):
    """A field most of whose values lie outside their range."""

    found: str
    """How many do: a sentence."""
    option: str
    """The option of commands that states another range."""


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What all points of a cloud decide together."""

    origin: NDArray[np.float64]
    """(3,) as ``split_origin`` finds it."""
    color_max: float = 255.0
    """The colour that becomes 255."""
    intensity: Range = Range(0.0, 1.0)
    """The intensities that become 0 and 1."""
    unfilled: Mapping[str, str] = field(default_factory=dict)
    """Fields of a scene that the file has but nobody filled, and how that shows; scenes lack them."""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the user should know of the values of a field."""
    assumed: Mapping[str, str] = field(default_factory=dict)
    """The ranges that nothing states, in words: "reach 255"; notes say them, too."""
    clipped: Mapping[str, Clipped] = field(default_factory=dict)
    """Fields of a scene most of whose values lie outside their range."""


class Values:
    """The values of a cloud's fields, counted piece by piece."""

    def __init__(
        self, stated: ValueRanges = NOT_STATED, *, known_intensity_max: float | None = None
    ) -> None:
        """Count nothing so far.

        Args:
            stated: ranges that the user or the model states.
            known_intensity_max: the intensity that becomes 1 in files of this type, unless many exceed it.
        """
        self._stated, self._known = stated, known_intensity_max
        high = _known(stated.intensity_max, known_intensity_max)
        low = _known(stated.intensity_min)
        self._of = {
            "color": Tally([*COLOR_LIMITS, *_known(stated.color_max)], [0.0]),
            "strength": Tally([*HIGH_INTENSITIES, *high], [*LOW_INTENSITIES, *low]),
            "normal": Tally(),
            "returns": Tally(),
        }
        self._is_gaussian = False

    def add(self, found: FileFields, needs: Collection[str] = FIELDS) -> None:
        """Count the values of a piece, of the fields that are needed."""
        self._is_gaussian = found.is_gaussian
        for name, values in found.measured.items():
            if name in needs:
                self._of[name].add(values)

    def scales(self, origin: NDArray[np.float64]) -> Scales:
        """What all points that were counted decide together."""
        reasons = {name: _unfilled(name, self._of[name]) for name in FIELD_NAMES}
        unfilled = {name: why for name, why in reasons.items() if why is not None}
        color, strength = self._of["color"], self._of["strength"]
        largest, span = self._color_max(color), self._intensity(strength)
        notes: dict[str, tuple[str, ...]] = {}
        assumed: dict[str, str] = {}
        if color.points and "color" not in unfilled:
            if (
                self._stated.color_max is None
                and color.type_max != largest
                and not self._is_gaussian
            ):
                assumed["color"] = f"reach {largest:g}"
            said = self._color_notes(color, largest, assumed.get("color"))
            notes["color"] = (*said, *_lost(color, "colours"))
        if strength.points and "strength" not in unfilled:
            is_known = self._known is not None and span == (0, self._known)
            if self._stated.intensity_max is None and not is_known:
                assumed["strength"] = self._span_in_words(span)
            said = self._intensity_notes(strength, span, assumed.get("strength"))
            notes["strength"] = (*said, *_lost(strength, "intensities"))
        if self._of["returns"].only_value() == (0,):
            notes["returns"] = (
                "its return number is 0 at every point; all are taken for only echoes",
            )
        return Scales(
            origin=origin,
            color_max=largest,
            intensity=span,
            unfilled=unfilled,
            notes=notes,
            assumed=assumed,
            clipped={
                name: why for name, why in self._clipped(largest, span) if name not in unfilled
            },
        )

    def _clipped(self, largest: float, span: Range) -> Iterator[tuple[str, Clipped]]:
        """The fields that lose most of their values, which have no meaning then."""
        color, strength = self._of["color"], self._of["strength"]
        below, above = color.below(0), color.above(largest)
        if not self._is_gaussian and 2 * (below + above) > color.finite:
            option = "--color-max" if above > below else "--columns, if these are no colours"
            range_ = Range(0, largest)
            yield "color", _outside(below + above, color, "colours", range_, option)
        below, above = strength.below(span.low), strength.above(span.high)
        if 2 * (below + above) > strength.finite:
            option = "--intensity-max" if above > below else "--intensity-min"
            yield "strength", _outside(below + above, strength, "intensities", span, option)

    def _color_max(self, colors: Tally) -> float:
        stated = self._stated.color_max
        if self._is_gaussian:
            return 1.0
        if colors.type_max == 255:
            return 255.0 if stated is None else min(stated, 255.0)
        return _usual_color_max(colors) if stated is None else stated

    def _color_notes(self, colors: Tally, largest: float, assumed: str | None) -> list[str]:
        beyond = colors.below(0) + colors.above(largest)
        if self._is_gaussian:
            clipped = f"; {percent(beyond, colors.finite)} of their values were clipped to 0 to 1"
            return [f"its colours are those of its Gaussians (f_dc){clipped if beyond else ''}"]
        if not colors.rarely_below(0):
            return [
                f"{percent(colors.below(0), colors.finite)} of its colours are below 0 and became 0: are its columns "
                "named rightly?"
            ]
        stated, usual = self._stated.color_max, _usual_color_max(colors)
        if assumed is not None:
            clipped = f" ({percent(beyond, colors.finite)} of their values lie beyond)"
            said = f"{assumed}{clipped if beyond else ''}"
            return [f"its colours are assumed to {said}; state it with --color-max"]
        if stated is None or colors.type_max == 255:
            is_dark = colors.rarely_above(DARK_COLOR, of=colors.above(0))
            if largest == COLORS[-1] and colors.points and is_dark:  # otherwise their type says it
                return [
                    f"nearly all of its colours are below {DARK_COLOR + 1:g} of {largest:g}, nearly black; if they "
                    "are of 10 or 12 bits, state it with --color-max 1023 or 4095"
                ]
            return []
        if not colors.rarely_above(stated):
            return [f"more than 1 % of its colours exceed {stated:g} (--color-max)"]
        if usual * 100 < stated:
            return [f"its colours seem to reach {usual:g}, not {stated:g} (--color-max)"]
        return []

    def _intensity(self, values: Tally) -> Range:
        low, high = self._stated.intensity_min, self._stated.intensity_max
        if low is None and high is None:
            known = self._known
            if known is not None and values.rarely_above(known) and values.rarely_below(0):
                return Range(0.0, known)
            return _usual_range(values)
        if high is None:
            low = 0.0 if low is None else low
            high = next((n for n in _usual_maxima(values) if n > low), low + 1)
        return Range(0.0 if low is None else low, high)

    def _span_in_words(self, span: Range) -> str:
        if span.low < 0 and self._stated.intensity_min is None:
            return f"lie between {span.low:g} and {span.high:g}"
        return f"reach {span.high:g}"

    def _intensity_notes(self, values: Tally, span: Range, assumed: str | None) -> list[str]:
        notes = []
        if assumed is not None:
            options = "--intensity-min and --intensity-max" if span.low < 0 else "--intensity-max"
            notes.append(f"its intensities are assumed to {assumed}; state it with {options}")
        elif not values.rarely_above(span.high):
            notes.append(f"more than 1 % of its intensities exceed {span.high:g} (--intensity-max)")
        below = values.below(span.low)
        if below:
            notes.append(
                f"{percent(below, values.finite)} of its intensities are below {span.low:g} and became 0 "
                "(--intensity-min)"
            )
        return notes


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]


def _usual_color_max(colors: Tally) -> float:
    """The range that nearly all colours above 0 stay in: many clouds have points without a colour, which are 0."""
    positive = colors.above(0)
    for largest in COLORS if colors.is_float else COLORS[1:]:
        overshoot = largest if largest == 1 and colors.whole else COLOR_SLACK[largest]
        if colors.rarely_above(overshoot, of=positive):
            return largest
    return COLORS[-1]


def _usual_range(values: Tally) -> Range:
    """The range that nearly all intensities stay in: a dark scan may be taken for one of a smaller range."""
    high = _usual_maxima(values)[0]
    is_noise = values.below(0) * SOME <= values.finite and values.rarely_below(-high / NOISE)
    if values.rarely_below(0) or is_noise:
        return Range(0.0, high)
    if values.whole:
        fits = (n for n in WHOLE_SIGNED if values.rarely_below(-n) and values.rarely_above(n - 1))
        size = next(fits, WHOLE_SIGNED[-1])
        return Range(-size, size - 1)
    fits = (n for n in SIGNED if values.rarely_below(-n) and values.rarely_above(n))
    size = next(fits, SIGNED[-1])
    return Range(-size, 0.0 if values.rarely_above(0) else size)


def _usual_maxima(values: Tally) -> list[float]:
    """The largest intensities of files that nearly all stay below, the smallest first; at least one."""
    sizes = INTENSITIES if values.is_float else INTENSITIES[1:]
    return [n for n in sizes if values.rarely_above(n)] or [INTENSITIES[-1]]


def _unfilled(name: str, tally: Tally) -> str | None:
    """How it shows that nobody filled a field; None: somebody did."""
    only = tally.only_value()
    is_number = only is not None and only[0] == only[0]
    if only is None or (name == "normal" and any(only) and is_number):  # a plane has one normal
        return None
    if not is_number:
        value = "not a number"
    else:
        value = ", ".join(f"{v:g}" for v in (only if len(set(only)) > 1 else only[:1]))
    return f"its {FIELD_NAMES[name]} {value} at every point"


def _outside(values: int, tally: Tally, what: str, span: Range, option: str) -> Clipped:
    share = percent(values, tally.finite)
    return Clipped(f"{share} of its {what} lie outside {span.low:g} to {span.high:g}", option)


def _lost(tally: Tally, what: str) -> list[str]:
    if not tally.lost:
        return []
    return [f"{percent(tally.lost, tally.values)} of its {what} are not numbers (NaN) and became 0"]
