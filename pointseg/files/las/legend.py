"""Records of LAS files that name classes: the standard's own for codes, and one of ours for rows of a model's classes.

Source: ASPRS, LAS Specification 1.4 - R15, section 2.7, classification lookup: 256 numbers with 15 bytes of text each.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import laspy

from pointseg.files.labelling.labels import UNCLASSIFIED
from pointseg.files.las.header import LasHeader, Record

LOOKUP = (b"LASF_Spec", 0)
LEGEND = (b"pointseg", 1)
"""Lines of text in UTF-8: number and name of each class in the field of the classes."""
ENTRY = struct.Struct("<B15s")
CODES = 256
DESCRIPTION_BYTES = 32
MORE = ", ..."
"""Ends a description that holds the first names alone."""
MOST_BYTES = 65_535


def name_records(
    header: LasHeader, field: str, names: Sequence[str], codes: Sequence[int] | None
) -> list[laspy.VLR]:
    """The records that name the classes of a labelled copy; those of the file with the same purpose are replaced.

    Args:
        header: of the file that is copied, whose names of other codes stay.
        field: that holds rows of the model's classes.
        names: of the classes; without, there are no records.
        codes: of the classes in ``classification``; None: it stays as it is.
    """
    if not names:
        return []
    lines = "".join(f"{number} {' '.join(name.split())}\n" for number, name in enumerate(names))
    content = lines.encode()[:MOST_BYTES]
    made = [_record(LEGEND, f"classes of {field}", content)]
    if codes is not None:
        made.append(_record(LOOKUP, "classification lookup", _lookup(header, names, codes)))
    return made


def legend_of(names: Sequence[str]) -> str:
    """Numbers and names of the first classes, as many as a description holds; all of them are in the record."""
    text = ""
    for number, name in enumerate(names):
        longer = f"{text}, {number} {name}" if text else f"{number} {name}"
        is_last = number + 1 == len(names)
        if len(longer.encode()) + (0 if is_last else len(MORE)) > DESCRIPTION_BYTES:
            return text + MORE if text else ""
        text = longer
    return text


def is_replaced(record: Record | None, made: Sequence[laspy.VLR]) -> bool:
    """Whether a record of the file has the purpose of one of these."""
    keys = {(one.user_id.encode(), one.record_id) for one in made}
    return record is not None and (record.user, record.number) in keys


def _record(key: tuple[bytes, int], description: str, content: bytes) -> laspy.VLR:
    return laspy.VLR(key[0].decode(), key[1], description[:DESCRIPTION_BYTES], content)


def _lookup(header: LasHeader, names: Sequence[str], codes: Sequence[int]) -> bytes:
    """Text of each code: that of the file, but for those of the classes."""
    texts = dict.fromkeys(range(CODES), b"")
    for record in (*header.records, *header.extended):
        if (record.user, record.number) == LOOKUP:
            content = header.content(record, CODES * ENTRY.size)
            whole = len(content) - len(content) % ENTRY.size
            texts.update(dict(ENTRY.iter_unpack(content[:whole])))
    texts[UNCLASSIFIED] = texts[UNCLASSIFIED] or b"unclassified"
    for code in sorted(set(codes)):
        shared = [name for name, own in zip(names, codes, strict=True) if own == code]
        texts[code] = _short("/".join(shared))
    return b"".join(ENTRY.pack(code, text) for code, text in texts.items())


def _short(name: str) -> bytes:
    """As many letters as the record holds; blanks for underscores, which readers leave out."""
    text = name.replace("_", " ").encode()[: ENTRY.size - 1]
    return text.decode("utf-8", "ignore").encode()
