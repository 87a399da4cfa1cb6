"""Names of cases: from where a scan lies, fit to be file names on Linux, macOS and Windows."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dinomed3d.inference.case import Case, RejectedInput

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.I)
_NAMES_OF_THE_RUN = {"run", "report", "statistics", "dataset", "plans"}
"""Names of files that a run writes in the folder of the first level of cases, for nnU-Net the last two."""
_MAX_BYTES = 180
"""Longest name of one part, bytes: outputs add endings and the suffix of temporary files, and 255 are allowed."""
_SECOND_FILES = (".slices", ".preview")
"""NAME.slices.nii.gz is a second mask of NAME, NAME.preview.png may be its preview."""
_OUTPUT_ENDINGS = (
    *(".nii", ".nii.gz", ".mha", ".nrrd", ".json", ".png", ".b2nd", ".seg.dcm", ".slices.nii.gz"),
    *(".bmp", ".tif", ".tiff", ".preview.png", ".rtstruct.dcm", ".npz", ".pkl"),
)


def case_id(parts: Sequence[str]) -> str:
    r"""Join the parts of a path below the input into an id that every system can write.

    Examples:
        `("sub:1", "T1 .")` -> `"sub_1/T1"`; `("con",)` -> `"_con"`.

    Args:
        parts: Folders, then the name without ending; at least one.
    """
    safe = [safe_name(part) for part in parts]
    if safe[-1].casefold().endswith(_SECOND_FILES):
        safe[-1] += "_"
    if len(safe) == 1 and safe[0].casefold() in _NAMES_OF_THE_RUN:
        safe[0] = f"_{safe[0]}"
    return "/".join(safe)


def safe_name(part: str) -> str:
    """One part of a path: forbidden characters as `_`, no dots or spaces at its ends, not too long."""
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", part))
    name = name.strip(" ").rstrip(". ").lstrip(".") or "_"
    if _RESERVED.match(name):
        name = f"_{name}"
    if len(name.encode()) > _MAX_BYTES:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = name.encode()[: _MAX_BYTES - 9].decode(errors="ignore").rstrip(". ") + f"-{digest}"
    return name


def reject_clashes(
    cases: Iterable[Case], rejected: Iterable[RejectedInput]
) -> tuple[list[Case], list[RejectedInput]]:
    """Reject all cases whose outputs would overwrite each other; both lists sorted by id.

    Ids clash if they differ only in case, or if a file of one has to be the folder of another (`a`
    with its `a.json`, and `a.json/b`).
    """
    groups: dict[str, list[Case | RejectedInput]] = defaultdict(list)
    everything: list[Case | RejectedInput] = [*cases, *rejected]
    for one in everything:
        groups[unicodedata.normalize("NFC", one.id).casefold()].append(one)
    folders = {key[:i] for key in groups for i, sign in enumerate(key) if sign == "/"}
    kept: list[Case] = []
    refused: list[RejectedInput] = []
    for key, members in groups.items():
        needed = (key + ending for ending in _OUTPUT_ENDINGS if key + ending in folders)
        blocked = next(needed, None)
        only = members[0]
        if len(members) > 1 or blocked is not None:
            refused.append(_clash(members, blocked))
        elif isinstance(only, Case):
            kept.append(only)
        else:
            refused.append(only)
    return sorted(kept, key=lambda case: case.id), sorted(refused, key=lambda one: one.id)


def _clash(members: Sequence[Case | RejectedInput], blocked: str | None) -> RejectedInput:
    """Why none of these can be done."""
    id_ = min(one.id for one in members)
    files = [_files(one) for one in members]
    if len(members) > 1:
        names = sorted(own[0] if own else one.id for one, own in zip(members, files, strict=True))
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        reason = (
            f"{len(members)} inputs would write the same output {members[0].id!r}: "
            f"{', '.join(names[:4])}{more}; rename all but one, or move them apart"
        )
        own_reasons = [one.reason for one in members if isinstance(one, RejectedInput)]
        if own_reasons:
            reason += f" (also: {own_reasons[0]})"
    else:
        reason = (
            f"its output would be a file where another case needs the folder {blocked!r}; rename it"
        )
    # its own record must not lie where the folder must be
    suffix = "_" if blocked is not None and blocked.endswith(".json") else ""
    return RejectedInput(
        id=id_ + suffix,
        reason=reason,
        files=tuple(file for own in files for file in own),
        quoted=tuple(text for one in members for text in one.quoted),
    )


def _files(one: Case | RejectedInput) -> tuple[str, ...]:
    """On disk; for messages the archive represents its members, the first slice its series."""
    if isinstance(one, RejectedInput):
        return one.files
    return tuple(scan.archive or scan.files[0] for scan in one.scans)
