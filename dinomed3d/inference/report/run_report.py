"""The report of a run: a page for people, a table for spreadsheets, a summary for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinomed3d.inference.report.html_report import CaseCounts, render_page, seconds_of
from dinomed3d.runtime.atomic_files import atomic_write

_COLUMNS = (
    "case",
    "status",
    "reason",
    "flags",
    "certainty",
    "seconds_total",
    "peak_memory_gib",
)


def write_report(out: Path, records: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> None:
    """Write report.html, report.csv and run.json, each complete or not at all.

    Args:
        out: the output folder; previews are read from it.
        records: of the cases, as `record` writes them; what is neither done nor failed counts as not
            yet done.
        run: model, spec, started, seconds, ignored, missing.

    Raises:
        OSError: the folder cannot be written to.
    """
    tally = CaseCounts.of(records, run)
    atomic_write(out / "run.json", _encode(_summary(tally, run)))
    atomic_write(out / "report.csv", _encode(_table(tally)))
    atomic_write(out / "report.html", _encode(render_page(out, tally, run)))


def _encode(text: str) -> bytes:
    """UTF-8; what a file name holds that is no text is shown as an escape."""
    return text.encode("utf-8", "backslashreplace")


def _summary(tally: CaseCounts, run: Mapping[str, Any]) -> str:
    """The run as JSON, with counts, and the cases to look at."""
    content = {
        **run,
        "counts": tally.counts,
        "failed": [
            {"case": record["case"], "reason": record.get("reason")} for record in tally.failed
        ],
        "flagged": [record["case"] for record in tally.flagged],
        "missing": list(tally.missing),
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _table(tally: CaseCounts) -> str:
    """A row per case as CSV; millilitres of each label that any case has."""
    records = sorted([*tally.failed, *tally.done], key=lambda record: str(record["case"]))
    labels = list(dict.fromkeys(name for r in records for name in r.get("labels") or {}))
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow([*_COLUMNS, *(_cell(f"{name}_ml") for name in labels)])
    for record in records:
        measured = record.get("labels") or {}
        writer.writerow(
            [
                _cell(record["case"]),
                _cell(record["status"]),
                _cell(record.get("reason")),
                _cell("; ".join(record.get("flags") or [])),
                _cell(record.get("certainty")),
                _cell(seconds_of(record)),
                _cell(record.get("peak_memory_gib")),
                *(_cell(measured.get(name, {}).get("volume_ml")) for name in labels),
            ]
        )
    return stream.getvalue()


def _cell(value: object) -> str:
    """As a spreadsheet shall show it: text that it would take for a formula gets an apostrophe.

    Source: OWASP, CSV injection.
    """
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.1f}"
    text = str(value)
    if isinstance(value, str) and (
        text[:1] in ("\t", "\r", "\n") or text.lstrip().startswith(("=", "+", "-", "@", "＝"))
    ):
        return f"'{text}"
    return text
