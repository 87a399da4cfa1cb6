"""Numbers in lines of text as programs of all kinds write them: which there are, and what separates them."""

from __future__ import annotations

import re

_NO_NUMBER = re.compile(r"-?nan\([^)\s]*\)|[-+]?1\.#[A-Z]+\d*|\b(?:NULL|NA|N/A)\b", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[-+]?\d*(,\d+)?([eE][-+]?\d+)?")
_FORTRAN = re.compile(r"(\d\.?)[dD]([-+]?\d)")


def cleaned(line: str) -> str:
    """Numbers as other programs write them: quoted, Fortran's 1.5D+03, and Windows' words for NaN."""
    line = line.replace('"', "")
    return _FORTRAN.sub(r"\1e\2", _NO_NUMBER.sub("nan", line))


def begins_with_number(text: str) -> bool:
    """Whether the first word of a line is a number."""
    try:
        float(re.split(r"[\s,;]+", cleaned(text))[0])
    except ValueError:
        return False
    return True


def has_decimal_commas_in(point: str) -> bool:
    """Whether the numbers of a line have commas: semicolons, tabs or blanks separate them then."""
    words = point.rstrip(";").split(";") if ";" in point else point.split()
    is_number = all(word.strip() and _DECIMAL_COMMA.fullmatch(word.strip()) for word in words)
    return "," in point and len(words) >= 3 and is_number


def split_line(text: str, delimiter: str | None) -> list[str]:
    """The words of a line, without the blanks around them; delimiters at its end do not count."""
    words = text.split(delimiter) if delimiter is None else text.rstrip(delimiter).split(delimiter)
    return [word.strip() for word in words]
