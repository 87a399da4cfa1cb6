"""report.html: one self-contained file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from dinomed3d.inference.io.pictures import PREVIEW_OF_PNG
from dinomed3d.inference.palette import COLOURS
from dinomed3d.inference.report.case_counts import CaseCounts, total_ml, total_seconds
from dinomed3d.inference.report.legend import COLUMNS, FLAGS
from dinomed3d.runtime.messages.terminal_text import lines_of

MOST_EMBEDDED = 300
"""Previews of this many cases are inside the page; of the others the page shows the file."""
MOST_LISTED = 20
"""The page names this many files that were left out; run.json names all."""
FILES = {
    ".slices.nii.gz": "mask of the original slices",
    ".seg.dcm": "DICOM segmentation",
    ".rtstruct.dcm": "RT structure set",
    ".b2nd": "probabilities",
    ".npz": "probabilities",
}
"""Endings of results that are linked as well -> what they are called."""
MAX_LABELS_OPEN = 10
"""Largest number of labels for which the volumes of a case are shown; of more they are collapsed."""


_OTHER_VERSION = (
    '<p class="hint">This report was written by another version of dinomed3d: a click does not sort its table here. '
    "The same <code>dinomed3d predict</code> again writes it anew, and predicts nothing that is finished.</p>"
)
"""What a page that is served says where its script is not ours."""


def render_page(out: Path, cases: CaseCounts, run: Mapping[str, Any]) -> str:
    """Render the page of a run.

    Args:
        out: the folder that holds the previews.
        cases: the cases of the run.
        run: model, started, seconds, devices, left_out, ignored, not_compared; what is missing is
            not shown.

    Returns:
        HTML; everything that comes from records or file names is escaped.
    """
    script = _script()
    return (
        _environment()
        .get_template("report.html")
        .render(
            policy=policy(images="data: file: 'self'"),
            script=Markup(script),  # our own; the policy allows exactly this text
            palette=COLOURS,
            counts=cases.counts,
            facts=_facts(run),
            not_compared=run.get("not_compared") or [],
            failed=cases.failed,
            missing=cases.missing,
            rows=[_row(record, _preview(out, record, n)) for n, record in enumerate(cases.done)],
            most_embedded=MOST_EMBEDDED,
            columns=COLUMNS,
            flag_meanings=FLAGS,
            anonymous=bool(run.get("anonymous")),
        )
    )


def policy(*, images: str) -> str:
    """What a browser may load for the page, as a content security policy: its own script and nothing from elsewhere.

    Args:
        images: sources of pictures.
    """
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    return f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def with_viewer(page: bytes) -> bytes:
    """A page as it is shown where `dinomed3d view` runs: with links to the viewer.

    The browser runs our present script alone there, so that a page of another version cannot be sorted: it says so.
    """
    served = page.replace(b'<html lang="en">', b'<html lang="en" class="served">', 1)
    if _script().encode() in page:
        return served
    return served.replace(b"<main>", b"<main>\n" + _OTHER_VERSION.encode(), 1)


def _script() -> str:
    pages = _environment()
    assert pages.loader is not None
    return pages.loader.get_source(pages, "report.js")[0]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dinomed3d.inference.report"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (colours, fixed, key, millilitres, remarks)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def _shown(value: Any) -> Any:
    """Names with bidirectional controls must not turn the text around them; our own markup stays as it is."""
    return lines_of(value) if type(value) is str else value


def _facts(run: Mapping[str, Any]) -> dict[str, Any]:
    model = run.get("model") or {}
    ignored = (run.get("ignored") or {}).items()
    left_out = (run.get("left_out") or {}).items()
    return {
        "Model": model.get("name"),
        "On the hub": model.get("hub"),
        "Trainer": model.get("trainer"),
        "Configuration": model.get("configuration"),
        "Folds": ", ".join(map(str, model.get("folds") or [])),
        "Model hash": str(model.get("hash") or "")[:12],
        "Started": run.get("started"),
        "Duration": duration(run.get("seconds")),
        "Device": ", ".join(run.get("devices") or []),
        "Left out": _listed([f"{path}: {why}" for path, why in left_out]),
        "Ignored files": "; ".join(f"{number} × {reason}" for reason, number in ignored),
    }


def _listed(texts: Sequence[str]) -> str:
    """The first texts, and how many more there are in run.json."""
    more = (
        f"; and {len(texts) - MOST_LISTED} more, see run.json" if len(texts) > MOST_LISTED else ""
    )
    return "; ".join(texts[:MOST_LISTED]) + more


def _row(record: Mapping[str, Any], preview: str | None) -> dict[str, Any]:
    """What the table shows of a finished case."""
    labels = record.get("labels") or {}
    steps = record.get("seconds") or {}
    return {
        "case": record["case"],
        "preview": preview,
        "files": _files(record),
        "view": f"../view?case={quote(str(record['case']), safe='', errors='surrogateescape')}",
        "notes": [*(record.get("notes") or []), *(record.get("result_notes") or [])],
        "flags": record.get("flags") or [],
        "found": {name: entry for name, entry in labels.items() if entry.get("voxels")},
        "absent": [name for name, entry in labels.items() if not entry.get("voxels")],
        "collapsed": len(labels) > MAX_LABELS_OPEN,
        "volume_ml": total_ml(labels),
        "certainty": record.get("certainty"),
        "seconds": total_seconds(record),
        "steps": ", ".join(f"{step} {took:.1f}" for step, took in steps.items()),
    }


def _files(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Names and relative addresses of a case's results; of an anonymous report none, for they have its name."""
    mask = (record.get("mask") or {}).get("file")
    if mask is None or "stored_as" in record:
        return []
    others = [name for name in record.get("files") or [] if name != mask]
    others += filter(None, [(record.get("rtstruct") or {}).get("file")])
    shown = {"mask": mask}
    for name in others:
        for ending, what in FILES.items():
            if name.endswith(ending):
                shown[what] = name
    shown["record"] = f"{record['case']}.json"
    return [{"name": what, "address": _address(file)} for what, file in shown.items()]


def _address(file: str) -> str:
    """A file in the folder of the page, whatever signs its name has."""
    return f"./{quote(file, errors='surrogateescape')}"


def _preview(out: Path, record: Mapping[str, Any], number: int) -> str | None:
    """The address of a case's picture: its content for the first cases, then its file."""
    stem = record.get("stored_as", record["case"])
    name = f"{stem}{PREVIEW_OF_PNG}"
    if not os.path.isfile(out / name):
        name = f"{stem}.png"
    if number >= MOST_EMBEDDED:
        if "stored_as" in record:  # an anonymous report: the file's name is the case's
            return None
        return _address(name)
    try:
        content = (out / name).read_bytes()
    except (OSError, ValueError):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def duration(seconds: float | None) -> str:
    """Seconds as text, such as 1 h 2 min."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def key(value: float | None) -> str:
    """A number to sort by; nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def millilitres(value: float | None) -> str:
    """A volume with three significant digits, or as a whole number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def colours(value: object) -> list[int]:
    """Numbers in the palette of a label, or of the labels of a region."""
    values = value if isinstance(value, list) else [value]
    return [(v - 1) % len(COLOURS) for v in values if isinstance(v, int) and v > 0]


def remarks(entry: Mapping[str, Any]) -> str:
    """What is unusual about the shape of a label."""
    components = entry.get("components") or 0
    found = [f"{components} components"] if components > 1 else []
    return ", ".join([*found, "at the border"] if entry.get("touches_border") else found)
