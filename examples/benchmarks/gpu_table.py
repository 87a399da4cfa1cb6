"""The results of `gpu.py` as Markdown: a row for each figure, and a line for each aim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markdown import table

Results = Mapping[str, Mapping[str, Any]]
LONG = 160
"""Letters of a text at most."""
LISTED = 3
"""Kernels and places that are shown; results.json has more."""


def as_markdown(results: Results) -> str:
    """All parts with their status and seconds, all figures, then the aims."""
    ran = [[name, part["status"], part.get("seconds", "")] for name, part in results.items()]
    figures = [
        [name, title, _cell(value)]
        for name, part in results.items()
        for title, value in part.get("found", {}).items()
    ]
    lines = [f"- {aim.what}: **{state}**{detail}" for aim, state, detail in judged(results)]
    parts = [table("part|status|s", ran), table("part|figure|value", figures), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    """A finding in one line; an error without its trace."""
    if isinstance(value, Mapping) and "error" in value:
        return _cell(f"ERROR {value['error']}")
    if isinstance(value, Mapping):
        cells = (f"{name} {_cell(v)}" for name, v in value.items() if v is not None)
        return "; ".join(cells)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return ", ".join(" x ".join(map(str, item[:2])) for item in value[:LISTED])
    text = " ".join(str(value).replace("|", "/").split())
    return text if len(text) <= LONG else f"{text[:LONG]} ..."


@dataclass(frozen=True)
class Aim:
    """Something that is aimed at."""

    what: str
    reach: Callable[[Results], tuple[bool, str]]
    """From results to whether it is met, and the figures; raises where they are missing."""


def judged(results: Results) -> list[tuple[Aim, str, str]]:
    """Each aim with "met", "missed" or "not measured", and its figures."""
    found = []
    for aim in AIMS:
        try:
            met, figures = aim.reach(results)
            found.append((aim, "met" if met else "missed", f" ({figures})"))
        except (
            KeyError,
            TypeError,
        ):  # a part that did not run, or an error in the place of a figure
            found.append((aim, "not measured", ""))
    return found


def has_errors(results: Results) -> bool:
    """Whether a part did not come to its end, or something in it failed."""

    def failed(value: Any) -> bool:
        if isinstance(value, Mapping):
            return "error" in value or any(map(failed, value.values()))
        return False

    ended = ("done", "no time")
    return any(p["status"] not in ended or failed(p["found"]) for p in results.values())


def _found(results: Results, part: str) -> Mapping[str, Any]:
    if results[part].get("tiny"):
        raise KeyError(f"{part}: a trial")
    return results[part]["found"]  # type: ignore[no-any-return]


def _all_equal(part: str) -> Callable[[Results], tuple[bool, str]]:
    """Every entry of a finished part is equal, and none is an error."""

    def reach(results: Results) -> tuple[bool, str]:
        found = _found(results, part)
        wrong = [name for name, value in found.items() if not value.get("equal", False)]
        if results[part]["status"] != "done" or not found:
            raise KeyError(part)
        return not wrong, f"{len(found) - len(wrong)} of {len(found)}" + _list(wrong)

    return reach


def _list(names: list[str]) -> str:
    return f"; not: {', '.join(names)}" if names else ""


def _convolution(results: Results) -> tuple[bool, str]:
    found = {k: v for k, v in _found(results, "convolution").items() if isinstance(v, float)}
    ways = [name for name in found if name.startswith("ours") and name.endswith(", ms")]
    ours = min(found[name] for name in ways if "gradients" not in name)
    peer = "spconv" if "spconv, ms" in found else "spconv_triton"
    theirs = found[f"{peer}, ms"]
    return ours <= 1.2 * theirs, f"{ours} ms, {peer} {theirs} ms"


def _ptv3(results: Results) -> tuple[bool, str]:
    ms = _found(results, "points-forward")["ptv3"]["float16, ms"]
    return ms <= 20, f"{ms} ms"


def _launches(results: Results) -> tuple[bool, str]:
    ptv3 = _found(results, "points-forward")["ptv3"]
    count, waits = ptv3["launches"]["launches"], ptv3["waits"]["total"]
    return count <= 1700 and waits <= 54, f"{count} launches, {waits} waits"


def _ours(results: Results) -> Mapping[str, Any]:
    return _found(results, "prediction")["dinomed3d predict, auto"]  # type: ignore[no-any-return]


def _speed(results: Results) -> tuple[bool, str]:
    ratio = _ours(results)["times as fast"]
    return ratio >= 4, f"{ratio} times as fast"


def _dice(results: Results) -> tuple[bool, str]:
    dice = _ours(results)["least Dice"]
    return dice >= 0.999, f"{dice:.5f}"


def _one_graph(results: Results) -> tuple[bool, str]:
    steps = {k: v for k, v in _found(results, "volumes-compiled").items() if isinstance(v, Mapping)}
    counts = [(step["graphs"], step["breaks"]) for step in steps.values()]
    if not counts:
        raise KeyError("volumes-compiled")
    return all(
        breaks == 0 for _, breaks in counts
    ), f"{len(counts)} steps, graphs and breaks {counts}"


AIMS = (
    Aim("every operator gives what the CPU gives", _all_equal("operators")),
    Aim("every network of point clouds gives what the CPU gives", _all_equal("networks")),
    Aim("DINO-Med3D gives what the CPU gives", _all_equal("volume-networks")),
    Aim("a convolution 3^3 of 256 channels within 1.2 times of spconv's", _convolution),
    Aim("PTv3 at 100,000 points in at most 20 ms in float16", _ptv3),
    Aim("PTv3's forward with about 1,600 launches, and the host waits 54 times at most", _launches),
    Aim("steps of DINO-Med3D compile without a break", _one_graph),
    Aim("prediction at least 4 times as fast as nnUNetv2_predict", _speed),
    Aim("prediction with Dice of at least 0.999 to nnUNetv2_predict's", _dice),
)
"""What was set as aims before anything had run on a GPU."""
