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
_OF_THE_RUN = {"run", "report"}
"""run.json, report.html and report.csv lie beside the first level of cases."""
_LONGEST = 180
"""Bytes of one part: outputs add endings and the mark of unfinished files, and 255 are allowed."""
_OUTPUT_ENDINGS = (".nii", ".nii.gz", ".mha", ".nrrd", ".json", ".png", ".b2nd", ".seg.dcm")


def case_id(parts: Sequence[str]) -> str:
    r"""Join the parts of a path below the input into an id that every system can write.

    Examples:
        `("sub:1", "T1 .")` -> `"sub_1/T1"`; `("con",)` -> `"_con"`.

    Args:
        parts: Folders, then the name without ending; at least one.
    """
    safe = [_safe(part) for part in parts]
    if len(safe) == 1 and safe[0].casefold() in _OF_THE_RUN:
        safe[0] = f"_{safe[0]}"
    return "/".join(safe)


def _safe(part: str) -> str:
    """One part: forbidden characters as `_`, no dots or spaces at its ends, not too long."""
    name = (
        _FORBIDDEN.sub("_", unicodedata.normalize("NFC", part)).strip(" ").rstrip(". ").lstrip(".")
    )
    name = name or "_"
    if _RESERVED.match(name):
        name = f"_{name}"
    if len(name.encode()) > _LONGEST:
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = name.encode()[: _LONGEST - 9].decode(errors="ignore").rstrip(". ") + f"-{mark}"
    return name


def settle(
    cases: Iterable[Case], refusals: Iterable[RejectedInput]
) -> tuple[list[Case], list[RejectedInput]]:
    """Refuse all cases whose outputs would lie on each other's; both lists sorted by id.

    Cases differ only if their ids do where capitals are not told apart, and if no file of one has
    to be the folder of another (`a` with its `a.json`, and `a.json/b`).
    """
    groups: dict[str, list[Case | RejectedInput]] = defaultdict(list)
    ones: list[Case | RejectedInput] = [*cases, *refusals]
    for one in ones:
        groups[_key(one.id)].append(one)
    folders = {key[:i] for key in groups for i, sign in enumerate(key) if sign == "/"}
    kept: list[Case] = []
    refused: list[RejectedInput] = []
    for key, members in groups.items():
        blocked = next(
            (key + ending for ending in _OUTPUT_ENDINGS if key + ending in folders), None
        )
        if len(members) == 1 and blocked is None:
            only = members[0]
            kept.append(only) if isinstance(only, Case) else refused.append(only)
        else:
            refused.append(_clash(members, blocked))
    return sorted(kept, key=lambda case: case.id), sorted(refused, key=lambda one: one.id)


def _key(id_: str) -> str:
    return unicodedata.normalize("NFC", id_).casefold()


def _clash(members: Sequence[Case | RejectedInput], blocked: str | None) -> RejectedInput:
    """Why none of these can be done."""
    files: list[str] = []
    names = []
    for one in members:
        own = list(one.files) if isinstance(one, RejectedInput) else _files(one)
        files.extend(own)
        names.append(own[0] if own else one.id)
    names = sorted(names)
    if len(members) > 1:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        reason = (
            f"{len(members)} inputs would write the same output {members[0].id!r}: "
            f"{', '.join(names[:4])}{more}; rename all but one, or move them apart"
        )
        own_reasons = [one.reason for one in members if isinstance(one, RejectedInput)]
        if own_reasons:
            reason += f" (besides: {own_reasons[0]})"
    else:
        reason = (
            f"its output would be a file where another case needs the folder {blocked!r}; rename it"
        )
    id_ = min(one.id for one in members)
    # its own record must not lie where the folder must be
    in_the_way = blocked is not None and blocked.endswith(".json")
    return RejectedInput(id=f"{id_}_" if in_the_way else id_, reason=reason, files=tuple(files))


def _files(case: Case) -> list[str]:
    """On disk: the archive stands for its members, the first slice for a DICOM series."""
    return [scan.archive or scan.files[0] for scan in case.scans]
