"""Reports without personal data: pseudonyms for cases, and texts without the names of their files.

Folders, files and DICOM series are often named after patients. Masks and records keep these names, so that they
are found again; what is passed on (report.html, report.csv, run.json, mails of a nightly run) must not have them.
Rather too much is left out than too little.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import Case, CaseList, RejectedInput
from dinomed3d.inference.report.csv_cell import cell
from dinomed3d.runtime.files.atomic_files import atomic_write, write_once

KEY_FILE = ".pseudonym-key"
"""Secret from which the pseudonyms of an output folder are made: the same case has the same one in each run."""
TABLE_FILE = "pseudonyms.csv"
"""Pseudonym and name of each case, for those who may know."""
HIDDEN = "[name]"
"""Stands in texts for what was left out."""

_SIGN = r"[^\s'\"()]"
"""A sign of a path; one with blanks in it is hidden word by word."""
_PATH = re.compile(
    rf"(?<!\w){_SIGN}*[\\/]{_SIGN}+|{_SIGN}+\.(dcm|dicom|ima|nii|gz|bz2|mh[ad]|nrrd|nhdr|zip|mgz|img|hdr|raw|json|png)\b",
    re.I,
)
_LONG_NUMBER = re.compile(r"(?<![\w.])\d[\d.]*\d(?![\w])")
_WORD = re.compile(r"[^\W_]+")
_PLAIN = frozenset(
    "an anterior are as at axial be by case channel contrast cor coronal ct dicom file files folder for gib image "
    "images in is it its label labels left mask masks math missing ml mm model mr name native network no not of on "
    "one or out output patient pet posterior right sag sagittal scan scans segmentation series session slice slices "
    "spacing step study sub the to tra training transverse two us volume voxel voxels was with without and bz2 dcm "
    "gipl gz hdr img json mgz mha mhd nhdr nii nrrd png raw seg seq tar zip".split()
)
"""Words of our own messages that also stand in names of files and say nothing of a patient."""


@dataclass(frozen=True)
class Anonymizer:
    """Replaces names in what a run reports."""

    key: bytes = field(repr=False)
    """Secret of the output folder."""
    places: Mapping[str, str]
    """Path of input, output or model -> what stands for it."""
    own: Mapping[str, tuple[str, ...]] = field(repr=False)
    """Case -> the texts that name it, the longest first."""
    pieces: frozenset[str] = field(repr=False)
    """Words in the names of all cases, without capitals."""

    @staticmethod
    def of(found: CaseList, out: Path, places: Mapping[str, str]) -> Anonymizer:
        """Know all names of a run, and make the key of its output folder where there is none.

        Args:
            found: everything below the input.
            out: the output folder.
            places: path of input, output and model -> word for it; `.` and words that name nobody are left in texts.

        Raises:
            OSError: the key cannot be written or read.
        """
        path = out / KEY_FILE
        write_once(path, secrets.token_hex(32).encode("ascii"))
        with suppress(OSError):
            path.chmod(0o600)
        root = next((Path(place) for place, word in places.items() if word == "IN"), Path())
        inputs: list[Case | RejectedInput] = [*found.cases, *found.rejected]
        own = {one.id: _names_of(one, root) for one in inputs}
        texts = [text for names in own.values() for text in names]
        texts += [str(text) for text in found.left_out]
        telling = {place.rstrip("/\\"): word for place, word in places.items() if _pieces([place])}
        return Anonymizer(path.read_bytes().strip(), telling, own, frozenset(_pieces(texts)))

    def name(self, case: str) -> str:
        """The pseudonym of a case: the same in every run with this key, and nobody else can compute it."""
        digest = hmac.new(
            self.key, case.encode("utf-8", "surrogateescape"), hashlib.sha256
        ).digest()
        return f"case-{base64.b32encode(digest)[:10].decode('ascii').lower()}"

    def text(self, text: str, case: str | None = None) -> str:
        """A sentence without what may name a patient.

        Args:
            text: may hold names of files, values of DICOM headers, messages of libraries.
            case: that it is about.
        """
        for place, word in self.places.items():
            text = re.sub(rf"(?<![\w./\\-]){re.escape(place)}(?![\w.-])", word, text)
        for name in self.own.get(case or "", ()):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", HIDDEN, text)
        text = _PATH.sub(_hidden_path, text)
        text = _LONG_NUMBER.sub(_hidden_number, text)
        return _WORD.sub(lambda m: HIDDEN if m[0].casefold() in self.pieces else m[0], text)

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What reports show of a case, and nothing else of its record."""
        case = str(record["case"])
        shown = {key: record[key] for key in _SHOWN_OF_CASE if key in record}
        for key in ("flags", "notes", "result_notes"):
            shown[key] = [self.text(text, case) for text in record.get(key) or []]
        reason = record.get("reason")
        shown["reason"] = None if reason is None else self.text(str(reason), case)
        return shown | {"case": self.name(case), "stored_as": case}

    def run(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of a report about the whole run; files that were left out are only counted."""
        return {
            **{key: run[key] for key in _SHOWN_OF_RUN if key in run},
            "anonymous": True,
            "model": {k: v for k, v in run["model"].items() if k not in _PLACES_OF_MODEL},
            "spec": {k: v for k, v in run["spec"].items() if k not in _PATHS_OF_SPEC},
            "left_out": self.left_out(run.get("left_out") or {}),
            "ignored": self.ignored(run.get("ignored") or {}),
            "missing": sorted(map(self.name, run.get("missing") or ())),
        }

    def left_out(self, left_out: Mapping[str, str]) -> dict[str, str]:
        """Images that are no scans, by number."""
        return {
            f"image {number + 1}": self.text(why) for number, why in enumerate(left_out.values())
        }

    def ignored(self, ignored: Mapping[str, int]) -> dict[str, int]:
        """Reasons for ignoring files, without endings that may be part of a name (`SCAN.MUELLER`)."""

        def ending(match: re.Match[str]) -> str:
            return match[0] if match[1].casefold() in _PLAIN else HIDDEN

        counts: dict[str, int] = {}
        for why, number in ignored.items():
            text = re.sub(r"\.(\w+)", ending, self.text(why))
            counts[text] = counts.get(text, 0) + number
        return counts

    def write_table(self, out: Path, cases: Iterable[str]) -> None:
        """Write which pseudonym is which case.

        Raises:
            OSError: the folder cannot be written to.
        """
        stream = io.StringIO()
        writer = csv.writer(stream)
        writer.writerow(("pseudonym", "case"))
        writer.writerows(sorted((self.name(case), cell(case)) for case in cases))
        atomic_write(out / TABLE_FILE, stream.getvalue().encode("utf-8", "backslashreplace"))
        with suppress(OSError):
            (out / TABLE_FILE).chmod(0o600)


_SHOWN_OF_CASE = (
    "status",
    "labels",
    "statistics",
    "certainty",
    "seconds",
    "peak_memory_gib",
    "orientation",
)
"""Entries of a record that reports use and that hold no text of others."""
_SHOWN_OF_RUN = ("started", "seconds", "devices", "not_compared")
"""Entries of a run, likewise."""
_PLACES_OF_MODEL = ("source", "hub")
"""Where a model is from: a path, or a name that may be a hospital's."""
_PATHS_OF_SPEC = ("source", "out", "model", "localizer", "postprocessing", "patterns", "exclude")
"""Options that hold paths, or patterns of names."""


def _names_of(one: Case | RejectedInput, root: Path) -> tuple[str, ...]:
    """Texts that name a case: its id, its files and folders, its DICOM series, files in its archive."""
    names = {one.id, *one.id.split("/")}
    files = [] if isinstance(one, Case) else list(one.files)
    for scan in one.scans if isinstance(one, Case) else ():
        files += [*scan.files, *([scan.archive] if scan.archive is not None else [])]
    for text in one.quoted:
        names |= {text, *text.split(", "), *text.split("/")}
    for file in files:
        names.add(file)
        path = Path(file)
        parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[1:]
        names |= {*parts, path.name.partition(".")[0]}
    return tuple(sorted((name for name in names if name.strip()), key=len, reverse=True))


def _pieces(texts: Iterable[str]) -> set[str]:
    """Words of names, and no single letters and short numbers, which are measures."""
    words = {word.casefold() for text in texts for word in _WORD.findall(text)}
    return {w for w in words if len(w) > (3 if w.isdecimal() else 1) and w not in _PLAIN}


def _hidden_path(match: re.Match[str]) -> str:
    """Leave out a path, but not units and fractions such as 1/4 or ml/s, and not an ending alone."""
    if match[0].startswith("."):
        return match[0]
    if re.fullmatch(r"[\w.]{1,3}/[\w.]{1,3}[,;.)]?", match[0]):
        return match[0]
    path = match[0].rstrip(":,;.")  # the sentence goes on behind it
    return f"{HIDDEN}{match[0][len(path) :]}"


def _hidden_number(match: re.Match[str]) -> str:
    """Leave out dates, times and UIDs, but not measures."""
    digits = match[0].partition(".")[0]
    return HIDDEN if len(digits) > 5 or match[0].count(".") > 1 else match[0]
