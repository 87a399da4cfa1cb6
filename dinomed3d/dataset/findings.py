"""What a check found: for the whole dataset, or for single cases, which are gathered by the kind of fault."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dinomed3d.runtime.messages.counted import counted
from dinomed3d.runtime.messages.terminal_text import one_line

State = Literal["ok", "note", "error"]
"""Whether it is fine, worth knowing, or will keep training from working or spoil it."""
MOST_NAMED = 4
"""Cases of a fault that are named; of the others their number is said."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    topic: str
    """What was checked."""
    says: str
    """What was found."""
    state: State = "ok"
    """Whether it is fine, worth knowing, or will keep training from working or spoil it."""
    fix: str = ""
    """What to do about it; every error has one."""
    cases: int = 0
    """How many cases it concerns, where it concerns cases."""

    def text(self) -> str:
        """Return one line, and a second one with the fix if there is any."""
        line = f"[{self.state}]".ljust(8) + one_line(f"{self.topic}: {self.says}")
        return f"{line}\n        fix: {one_line(self.fix)}" if self.fix else line


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A kind of fault that single cases have."""

    topic: str
    """What is checked."""
    says: str
    """What is wrong with such cases."""
    fix: str
    """What to do about them."""
    state: State = "error"
    """Whether it is worth knowing, or will keep training from working or spoil it."""


@dataclass(frozen=True)
class CaseFault:
    """A fault of one case."""

    kind: str
    """Key of the fault in the table of faults."""
    case: str
    """The case, or the file."""
    detail: str = ""
    """What it is in this case; empty where the kind says all."""


def gathered(faults: Iterable[CaseFault], kinds: Mapping[str, Fault]) -> list[Finding]:
    """One finding for each kind of fault, in the order of the table, which names the first cases."""
    cases: dict[str, list[CaseFault]] = {}
    for fault in faults:
        cases.setdefault(fault.kind, []).append(fault)
    findings = []
    for name, kind in kinds.items():
        found = sorted(cases.get(name, ()), key=lambda fault: fault.case)
        if found:
            number = len({fault.case for fault in found})
            says = f"{number} cases {kind.says}: {_named(found)}"
            if number == 1:
                says = f"1 case {_singular(kind.says)}: {_named(found)}"
            findings.append(
                Finding(topic=kind.topic, says=says, state=kind.state, fix=kind.fix, cases=number)
            )
    return findings


def _singular(text: str) -> str:
    """The sentence for one case."""
    words = {"have": "has", "are": "is", "do": "does"}
    return re.sub(r"\b(have|are|do)\b", lambda match: words[match[0]], text, count=1)


def _named(faults: Sequence[CaseFault]) -> str:
    shown = [f"{f.case} ({f.detail})" if f.detail else f.case for f in faults[:MOST_NAMED]]
    more = len(faults) - MOST_NAMED
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


def table(findings: Sequence[Finding]) -> str:
    """A row for each topic: its worst state, and what was found in short."""
    rows: dict[str, list[Finding]] = {}
    for finding in findings:
        rows.setdefault(finding.topic, []).append(finding)
    width = max(map(len, rows), default=0)
    lines = []
    for topic, found in rows.items():
        counts = {s: sum(one.state == s for one in found) for s in ("error", "note")}
        parts = [counted(number, state) for state, number in counts.items() if number]
        cases = max((one.cases for one in found), default=0)
        extent = f" (up to {cases} cases)" if cases > 1 else ""
        lines.append(f"{topic.ljust(width)}  {', '.join(parts) + extent if parts else 'ok'}")
    return "\n".join(lines)
