"""The page that people look at: one HTML file that needs nothing else, and no network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dinomed3d.inference.report.preview import colour_of
from dinomed3d.inference.report.style import SCRIPT, STYLE

MOST_EMBEDDED = 300
"""Previews inside the page, of the first cases; of the others the page shows the file beside it."""
MOST_LABELS_OPEN = 10
"""Volumes that are shown without a click."""
NOTICE = "Research software, not a medical device."


@dataclass(frozen=True, kw_only=True)
class CaseCounts:
    """The cases of a run by how they ended."""

    done: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, Any], ...]
    missing: tuple[str, ...]
    """Not yet done: interrupted, or another machine's."""

    @staticmethod
    def of(records: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> CaseCounts:
        """Sort records, and the run's missing cases; each by name."""
        ordered = sorted(records, key=lambda record: str(record["case"]))
        begun = {str(r["case"]) for r in ordered if r["status"] not in ("done", "failed")}
        return CaseCounts(
            done=tuple(r for r in ordered if r["status"] == "done"),
            failed=tuple(r for r in ordered if r["status"] == "failed"),
            missing=tuple(sorted({*map(str, run.get("missing") or ()), *begun})),
        )

    @property
    def flagged(self) -> tuple[Mapping[str, Any], ...]:
        """Done, but someone should look."""
        return tuple(record for record in self.done if record.get("flags"))

    @property
    def counts(self) -> dict[str, int]:
        """How many are done, failed, missing, flagged."""
        return {
            "done": len(self.done),
            "failed": len(self.failed),
            "missing": len(self.missing),
            "flagged": len(self.flagged),
        }


def seconds_of(record: Mapping[str, Any]) -> float | None:
    """Seconds of all steps of a case together, None if none was timed."""
    steps = record.get("seconds") or {}
    return round(sum(steps.values()), 3) if steps else None


def total_ml(labels: Mapping[str, Mapping[str, Any]]) -> float:
    """Of everything labelled; regions overlap, so where there are some the largest label stands for it."""
    volumes = [float(entry.get("volume_ml") or 0) for entry in labels.values()]
    regions = any(isinstance(entry.get("value"), list) for entry in labels.values())
    return max(volumes, default=0.0) if regions else sum(volumes)


def render_page(out: Path, tally: CaseCounts, run: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        out: where the previews lie.
        tally: the cases.
        run: model, started, seconds, ignored; what it lacks is left out.

    Returns:
        HTML; everything that is not ours in it is escaped.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Segmentation report</title><style>{STYLE}</style></head><body>",
        f'<header><h1>Segmentation report</h1><p class="notice">{NOTICE}</p></header><main>',
        _overview(tally, run),
        _failures(tally.failed),
        _names("Not yet done", tally.missing),
        _results(out, tally.done),
        f"</main><script>{SCRIPT}</script></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _overview(tally: CaseCounts, run: Mapping[str, Any]) -> str:
    """Counts, and what made them with which model."""
    words = {"done": "done", "failed": "failed", "missing": "not yet done", "flagged": "flagged"}
    counts = "".join(
        f'<li class="{key}{" none" if not number else ""}"><b>{number}</b> {words[key]}</li>'
        for key, number in tally.counts.items()
    )
    model = run.get("model") or {}
    facts = {
        "Model": model.get("trainer"),
        "Configuration": model.get("configuration"),
        "Folds": ", ".join(map(str, model.get("folds") or [])),
        "Model hash": str(model.get("hash") or "")[:12],
        "Started": run.get("started"),
        "Took": _duration(run.get("seconds")),
        "Device": ", ".join(run.get("devices") or []),
        "Files left alone": "; ".join(
            f"{number} × {reason}" for reason, number in (run.get("ignored") or {}).items()
        ),
    }
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(fact))}</dd></div>"
        for name, fact in facts.items()
        if fact
    )
    notes = "".join(
        f'<p class="hint">{escape(str(sentence))}.</p>' for sentence in run.get("not_judged") or []
    )
    return f'<ul class="counts">{counts}</ul><dl>{rows}</dl>{notes}'


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _failures(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><bdi>{escape(str(record["case"]))}</bdi></th>'
        f"<td>{escape(str(record.get('reason') or 'no reason recorded'))}</td></tr>"
        for record in records
    )
    return (
        f'<details class="failures" open><summary><h2>Failed ({len(records)})</h2></summary>'
        '<table><thead><tr><th scope="col">Case</th><th scope="col">Reason</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></details>"
    )


def _names(title: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    items = "".join(f"<li><bdi>{escape(name)}</bdi></li>" for name in names)
    return f"<details><summary><h2>{title} ({len(names)})</h2></summary><ul>{items}</ul></details>"


def _results(out: Path, records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return ""
    columns = (
        ("Preview", ""),
        ("Case", " data-kind=text data-first=ascending aria-sort=ascending"),
        ("Volume, ml", " data-kind=number data-first=descending"),
        ("Flags", " data-kind=number data-first=descending"),
        ("Certainty", " data-kind=number data-first=ascending"),
        ("Time, s", " data-kind=number data-first=descending"),
    )
    heads = "".join(f'<th scope="col"{sorting}>{name}</th>' for name, sorting in columns)
    more = (
        f" Previews of the first {MOST_EMBEDDED} cases are part of this page; the others are shown "
        "from the files beside it."
        if len(records) > MOST_EMBEDDED
        else ""
    )
    rows = [_row(record, _preview(out, record, n)) for n, record in enumerate(records)]
    return (
        f"<h2>Results ({len(records)})</h2>"
        '<p class="hint">R, L, A, P, S, I: the patient\'s right, left, anterior, posterior, superior, '
        f"inferior. A label has the colour that stands before its name.{more}</p>"
        f'<table class="results"><thead><tr>{heads}</tr></thead><tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table>"
    )


def _preview(out: Path, record: Mapping[str, Any], number: int) -> str:
    """The picture of a case: inside the page, or as a link to the file."""
    name = f"{record['case']}.png"
    if number < MOST_EMBEDDED:
        try:
            content = (out / name).read_bytes()
        except (OSError, ValueError):
            return '<span class="hint">no preview</span>'
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    else:
        source = f"./{quote(name, errors='surrogateescape')}"
    return f'<img loading="lazy" alt="Three slices with the labels drawn over them" src="{source}">'


def _row(record: Mapping[str, Any], preview: str) -> str:
    """A finished case."""
    labels = record.get("labels") or {}
    flags = list(record.get("flags") or [])
    notes = [*(record.get("notes") or []), *(record.get("result_notes") or [])]
    certainty, seconds = record.get("certainty"), seconds_of(record)
    steps = ", ".join(f"{step} {took:.1f}" for step, took in (record.get("seconds") or {}).items())
    return (
        f"<tr{' class=flagged' if flags else ''}><td>{preview}</td>"
        f'<th scope="row"><bdi>{escape(str(record["case"]))}</bdi>{_list("notes", notes)}</th>'
        f'<td data-key="{total_ml(labels):.6g}">{_volumes(labels)}</td>'
        f'<td data-key="{len(flags)}">{_list("flags", flags)}</td>'
        f'<td class="number" data-key="{_key(certainty)}">{_number(certainty, 2)}</td>'
        f'<td class="number" data-key="{_key(seconds)}" title="{escape(steps)}">{_number(seconds, 1)}'
        "</td></tr>"
    )


def _key(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _list(kind: str, sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(str(sentence))}</li>" for sentence in sentences)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def _volumes(labels: Mapping[str, Mapping[str, Any]]) -> str:
    """Millilitres of what was found, then what was not; collapsed if there is much."""
    found = {name: entry for name, entry in labels.items() if entry.get("voxels")}
    absent = [escape(str(name)) for name in labels if name not in found]
    rows = "".join(
        f"<tr><td>{_swatches(entry.get('value'))}{escape(str(name))}</td>"
        f"<td>{_millilitres(entry.get('volume_ml'))}</td><td>{_remarks(entry)}</td></tr>"
        for name, entry in found.items()
    )
    body = f'<table class="volumes">{rows}</table>' if rows else ""
    if absent:
        body += f'<p class="hint">Not found: {", ".join(absent)}</p>'
    if len(labels) <= MOST_LABELS_OPEN:
        return body
    total = _millilitres(total_ml(labels))
    return (
        f"<details><summary>{len(found)} of {len(labels)} labels, {total} ml</summary>{body}"
        "</details>"
    )


def _millilitres(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _swatches(value: object) -> str:
    """The colours of a label, of a region those of its labels."""
    values = value if isinstance(value, list) else [value]
    squares = "".join(
        f'<i class="c{colour_of(v)[1:]}"></i>' for v in values if isinstance(v, int) and v > 0
    )
    return f"<span>{squares}</span>"


def _remarks(entry: Mapping[str, Any]) -> str:
    components = entry.get("components")
    remarks = [f"{components} parts"] if components is not None and components > 1 else []
    if entry.get("touches_border"):
        remarks.append("at the border")
    return ", ".join(remarks)
