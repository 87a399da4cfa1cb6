"""The report of a run: a page for people, a table for spreadsheets, a summary for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinomed3d.inference.report.case_counts import CaseCounts, total_seconds
from dinomed3d.inference.report.csv_cell import cell
from dinomed3d.inference.report.html_report import render_page
from dinomed3d.inference.report.statistics import statistics_columns
from dinomed3d.runtime.files.atomic_files import atomic_write


def write_report(out: Path, records: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> None:
    """Write report.html, report.csv and run.json, each complete or not at all; statistics.json where a case has them.

    Args:
        out: the output folder; previews are read from it.
        records: of the cases, as `record` writes them; what is neither done nor failed counts as not
            yet done.
        run: model, spec, started, seconds, left_out, ignored, missing.

    Raises:
        OSError: the folder cannot be written to.
    """
    cases = CaseCounts.of(records, run)
    texts = {
        "run.json": _summary(cases, run),
        "report.csv": _table(cases),
        "report.html": render_page(out, cases, run),
    }
    if statistics := _statistics(cases):
        texts["statistics.json"] = json.dumps(statistics, indent=1, ensure_ascii=False)
    for name, text in texts.items():
        # bytes of a file name that are no UTF-8 are shown as escapes
        atomic_write(out / name, text.encode("utf-8", "backslashreplace"))


def _summary(cases: CaseCounts, run: Mapping[str, Any]) -> str:
    """The run as JSON, with counts and the cases that failed, are flagged, or missing."""
    content = {
        **run,
        "counts": cases.counts,
        "failed": [{"case": r["case"], "reason": r.get("reason")} for r in cases.failed],
        "flagged": [record["case"] for record in cases.flagged],
        "missing": list(cases.missing),
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _statistics(cases: CaseCounts) -> dict[str, Any]:
    """Case -> label -> statistics, of the cases that have them."""
    made = {str(r["case"]): (r.get("statistics") or {}).get("labels") for r in cases.done}
    return {case: labels for case, labels in made.items() if labels is not None}


def _table(cases: CaseCounts) -> str:
    """A row per case as CSV; millilitres of each label that any case has."""
    columns = ["case", "status", "reason", "flags", "certainty", "seconds_total", "peak_memory_gib"]
    rows = []
    for record in sorted([*cases.failed, *cases.done], key=lambda record: str(record["case"])):
        labels = record.get("labels") or {}
        volumes = {cell(f"{name}_ml"): entry.get("volume_ml") for name, entry in labels.items()}
        volumes |= {cell(name): value for name, value in statistics_columns(record).items()}
        columns += [name for name in volumes if name not in columns]
        flags, seconds = "; ".join(record.get("flags") or []), total_seconds(record)
        row = {**record, "flags": flags, "seconds_total": seconds, **volumes}
        rows.append({name: cell(row.get(name)) for name in columns})
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
