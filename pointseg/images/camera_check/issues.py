"""What is wrong with the images of a scene; the same issue of several views is reported once."""

from __future__ import annotations

from dataclasses import dataclass

from pointseg.images.readers.frame import Frame


@dataclass(frozen=True)
class Issue:
    """Something that is wrong or worth checking."""

    text: str
    """What it is, and what to do."""
    views: tuple[str, ...] = ()
    """Names of the views that have it; empty: it concerns all together."""
    note: bool = False
    """Whether correct calibrations can have it, too."""

    def __str__(self) -> str:
        if not self.views:
            return self.text
        more = f" and {len(self.views) - 3} more" if len(self.views) > 3 else ""
        return f"{', '.join(self.views[:3])}{more}: {self.text}"


class IssueList:
    """Collects issues; those of one kind become one, with the text of the first."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, list[str], bool]] = {}

    def add(self, kind: str, frame: Frame, text: str, *, note: bool = False) -> None:
        """Add an issue of one view."""
        self._found.setdefault(kind, (text, [], note))[1].append(frame.name)

    def add_general(self, text: str) -> None:
        """Add an issue of all views together."""
        self._found[text] = (text, [], False)

    def drop(self, *kinds: str) -> None:
        """Remove the issues of some kinds."""
        for kind in kinds:
            self._found.pop(kind, None)

    def __contains__(self, kind: str) -> bool:
        return kind in self._found

    def items(self) -> tuple[Issue, ...]:
        """All issues."""
        return tuple(Issue(text, tuple(views), note) for text, views, note in self._found.values())
