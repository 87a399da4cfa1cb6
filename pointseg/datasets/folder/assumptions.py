"""What was assumed of the values of a folder's files, and what is odd about them, in a few lines."""

from __future__ import annotations

from collections.abc import Collection

from pointseg.files import Scales

LISTED = 3
"""Files that a line names; of more it tells the number."""
WORDS = {"color": ("colours", "'color_max'"), "strength": ("intensities", "'intensity_max'")}
"""What the values of a field are called, and the key of the description that states their range."""
KEYS = {
    f"--{key.replace('_', '-')}": f"'{key}'"
    for key in ("color_max", "intensity_min", "intensity_max", "columns")
}
"""Options of prediction in notes, and the keys of the description for them."""


class Assumptions:
    """Collected file by file."""

    def __init__(self) -> None:
        """Nothing so far."""
        self._ranges: dict[str, dict[str, list[str]]] = {}
        self._odd: dict[str, list[str]] = {}

    def add(self, file: str, scales: Scales, features: Collection[str]) -> None:
        """Add a file, given by its path below the root, for the features that are read."""
        for name in sorted(set(features) & scales.notes.keys()):
            if name in scales.assumed:
                files = self._ranges.setdefault(name, {}).setdefault(scales.assumed[name], [])
                files.append(file)
            for note in scales.notes[name][int(name in scales.assumed) :]:
                self._odd.setdefault(file, []).append(note)

    def lines(self) -> list[str]:
        """A line for each field, and for what is odd about some files."""
        lines = []
        for name, ranges in self._ranges.items():
            what, key = WORDS[name]
            found = sorted(ranges.items(), key=lambda item: -len(item[1]))
            said = ", ".join(f"to {words} in {_named(files)}" for words, files in found)
            lines.append(
                f"{what} are assumed {said}; state {key} in dataset.yaml, so that all files, also those predicted "
                "later, are read alike"
            )
        for file, notes in list(self._odd.items())[:LISTED]:
            lines.append(f"{file}: {in_description('; '.join(notes))}")
        if len(self._odd) > LISTED:
            lines.append(f"and {len(self._odd) - LISTED} more files of this kind")
        return lines


def in_description(note: str) -> str:
    """A note with the keys of the description in place of the options of prediction."""
    for option, key in KEYS.items():
        note = note.replace(option, key)
    return note


def _named(files: list[str]) -> str:
    return f"{len(files)} files" if len(files) > LISTED else ", ".join(files)
