"""What is wrong with the images of a scene, the same of several views told once."""

from __future__ import annotations

from dataclasses import dataclass

from pointseg.images.readers.frame import Frame


@dataclass(frozen=True)
class Issue:
    """Something that is wrong, or worth a look."""

    text: str
    views: tuple[str, ...] = ()
    """Of which it is told; none: of all together."""
    note: bool = False
    """Right calibrations have that, too."""

    def __str__(self) -> str:
        if not self.views:
            return self.text
        more = f" and {len(self.views) - 3} more" if len(self.views) > 3 else ""
        return f"{', '.join(self.views[:3])}{more}: {self.text}"


class IssueList:
    """Collects what is wrong; the same of several views becomes one."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, list[str], bool]] = {}

    def add(self, kind: str, frame: Frame, text: str, *, note: bool = False) -> None:
        """Of one view; of several with the same kind the first one's text stands for all."""
        self._held.setdefault(kind, (text, [], note))[1].append(frame.name)

    def drop(self, *kinds: str) -> None:
        """Forget what was added of some kinds."""
        for kind in kinds:
            self._held.pop(kind, None)

    def __contains__(self, kind: str) -> bool:
        return kind in self._held

    def add_general(self, text: str) -> None:
        """Of all views together."""
        self._held[text] = (text, [], False)

    def items(self) -> tuple[Issue, ...]:
        """All of them."""
        return tuple(Issue(text, tuple(views), note) for text, views, note in self._held.values())
