"""GeoTIFF's keys, by which LAS files before version 1.4 say their coordinate system.

Source: OGC GeoTIFF 1.1 (19-008r4), sections 7.4 and 7.5; LAS 1.4, section 3.1.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

MODEL, CITATION, GEODETIC, PROJECTED, PROJECTED_CITATION = 1024, 1026, 2048, 3072, 3073
LINEAR_UNIT, LINEAR_SIZE = 3076, 3077
VERTICAL, VERTICAL_CITATION, VERTICAL_UNIT = 4096, 4097, 4099
DOUBLES, TEXTS = 34736, 34737
UNSET = (0, 32767)
"""Values that say that nothing is said, or that other keys define it."""
KEYS_MOST = 1000

Value = int | float | str


def read_keys(directory: bytes, doubles: bytes, texts: bytes) -> Mapping[int, Value]:
    """The keys of a file; what lies outside of the records is left out.

    Args:
        directory: content of record 34735.
        doubles: of record 34736.
        texts: of record 34737.
    """
    keys: dict[int, Value] = {}
    if len(directory) < 8:
        return keys
    count = min(struct.unpack_from("<4H", directory)[3], (len(directory) - 8) // 8, KEYS_MOST)
    for number in range(count):
        key, place, many, value = struct.unpack_from("<4H", directory, 8 + 8 * number)
        if place == 0:
            keys[key] = value
        elif place == DOUBLES and many == 1 and 8 * value + 8 <= len(doubles):
            keys[key] = struct.unpack_from("<d", doubles, 8 * value)[0]
        elif place == TEXTS and value < len(texts):
            keys[key] = texts[value : value + many].decode("latin-1").rstrip("|\0 ")
    return keys


def code_of(keys: Mapping[int, Value], key: int) -> int | None:
    """The whole number of a key; None: it is missing or says nothing."""
    value = keys.get(key)
    return value if isinstance(value, int) and value not in UNSET else None
