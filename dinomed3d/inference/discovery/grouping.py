"""Which scans are one case: by nnU-Net's `_0000` names, by sub-folders, or each by itself."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dinomed3d.inference.case import Case, RejectedInput
from dinomed3d.inference.discovery.case_ids import case_id
from dinomed3d.inference.discovery.scans import FoundScan

_NUMBERED = re.compile(r"(?s)(.+)_(00\d\d)")
"""A year, or a number above a hundred, is not a channel."""


@dataclass(kw_only=True)
class Grouping:
    """Cases made of scans, and scans that cannot be one."""

    channels: Sequence[str]
    """Names of the model's channels, in its order."""
    cases: list[Case] = field(default_factory=list)
    """Complete cases."""
    rejected: list[RejectedInput] = field(default_factory=list)
    """Scans that make no case, with the reason."""

    def add(
        self, parts: Sequence[str], scans: Sequence[FoundScan], notes: Sequence[str] = ()
    ) -> None:
        """A case of these scans, in the order of the channels; rejected if one is unreadable."""
        problems = [
            f"{channel}: {scan.problem}" if len(scans) > 1 else scan.problem
            for channel, scan in zip(self.channels, scans, strict=False)
            if scan.problem
        ]
        if problems:
            self.reject(parts, "; ".join(problems), scans)
            return
        own = [note for scan in scans for note in scan.notes]
        self.cases.append(
            Case(
                id=case_id(parts),
                scans=tuple(scan.scan for scan in scans),
                size_bytes=sum(scan.size_bytes for scan in scans),
                notes=tuple(dict.fromkeys((*own, *notes))),
            )
        )

    def assign(
        self,
        parts: Sequence[str],
        members: Sequence[tuple[int, FoundScan]],
        *,
        suffixes: Sequence[str] | None = None,
        hint: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        """A case if there is exactly one scan for each channel; otherwise rejected.

        Args:
            parts: Of the case's id.
            members: Index of the channel, and the scan.
            suffixes: For messages: how each channel is recognised.
            hint: For messages: what to do.
            notes: For the report, if it is a case.
        """
        members = sorted(members, key=lambda member: member[0])
        indices, scans = [index for index, _ in members], [scan for _, scan in members]
        known = range(len(self.channels))
        if indices == list(known):
            self.add(parts, scans, notes)
            return
        names = [
            f"{name} ({suffixes[i]})" if suffixes else name for i, name in enumerate(self.channels)
        ]
        missing = [name for i, name in enumerate(names) if i not in indices]
        double = [name for i, name in enumerate(names) if indices.count(i) > 1]
        unknown = [number_suffix(i) for i in indices if i not in known]
        problems = []
        if missing:
            problems.append(f"channel {', '.join(missing)} is missing")
        if double:
            problems.append(f"channel {', '.join(double)} is there more than once")
        if unknown:
            problems.append(f"the model has no channel {', '.join(unknown)}")
        reason = f"{'; '.join(problems)}: found {listed(scans)}"
        self.reject(parts, f"{reason}; {hint}" if hint else reason, scans)

    def reject(self, parts: Sequence[str], reason: str, scans: Sequence[FoundScan]) -> None:
        """One entry for all these scans."""
        files = tuple(dict.fromkeys(file for scan in scans for file in scan.files))
        quoted = tuple(text for scan in scans for text in scan.scan.quoted)
        rejected = RejectedInput(id=case_id(parts), reason=reason, files=files, quoted=quoted)
        self.rejected.append(rejected)


def number_suffix(channel: int) -> str:
    """How nnU-Net marks a channel in a file name: `_0001`."""
    return f"_{channel:04d}"


def split_number(scan: FoundScan) -> tuple[str, int] | None:
    """`("case", 1)` for `case_0001.nii.gz`; None without such a suffix, and for DICOM."""
    match = None if scan.is_dicom else _NUMBERED.fullmatch(scan.stem)
    return None if match is None else (match[1], int(match[2]))


def listed(scans: Sequence[FoundScan]) -> str:
    """Up to six scans with their folders, for messages."""
    shown = [
        f"{'/'.join(scan.parts)} ({scan.scan.series})"
        if scan.is_dicom
        else "/".join((*scan.folder, scan.names[0]))
        for scan in scans[:6]
    ]
    more = f" and {len(scans) - 6} more" if len(scans) > 6 else ""
    return ", ".join(shown) + more


def naming_hint(channels: Sequence[str]) -> str:
    """What a user can do to say which scan is which channel."""
    numbers = ", ".join(f"{name} = {number_suffix(i)}" for i, name in enumerate(channels[:3]))
    patterns = " ".join(f'"{name}=*{name.lower()}*"' for name in channels[:3])
    more = " ..." if len(channels) > 3 else ""
    return (
        f"the model needs {len(channels)} channels: name the files by nnU-Net's rule "
        f"({numbers}{more}), put them in sub-folders called {', '.join(channels)}, "
        f"or pass --channels {patterns}{more}"
    )


def group_by_names(
    scans: Sequence[FoundScan], channels: Sequence[str], source_name: str
) -> Grouping:
    """Make cases without patterns.

    First nnU-Net's numbers, folder by folder. Then, for a model of several channels, sub-folders
    and files named after channels. Every other file is a case of its own: for a model of several
    channels it may hold all of them.

    Args:
        scans: All that were found.
        channels: Names, in the model's order.
        source_name: Of the input, for a case whose channels lie directly in it.
    """
    grouping = Grouping(channels=channels)
    rest = _group_by_number(grouping, scans)
    if len(channels) > 1:
        rest = _group_by_folder(grouping, rest, source_name)
    series: dict[tuple[str, ...], list[FoundScan]] = defaultdict(list)
    for scan in rest:
        if scan.is_dicom and len(channels) > 1:
            several = scan.stem.startswith("series-") and scan.folder
            series[scan.folder if several else scan.parts].append(scan)
        else:
            grouping.add(scan.parts, [scan])
    for parts, found in series.items():
        grouping.reject(
            parts,
            f"{len(found)} DICOM series ({listed(found)}) without a sign of which channel each is; "
            f"{naming_hint(channels)}",
            found,
        )
    return grouping


def _group_by_number(grouping: Grouping, scans: Sequence[FoundScan]) -> list[FoundScan]:
    """Group `case_0000`, `case_0001`, ...; returns the scans without such numbers."""
    channels = grouping.channels
    rest: list[FoundScan] = []
    groups: dict[tuple[tuple[str, ...], str], list[tuple[int, FoundScan]]] = defaultdict(list)
    for scan in scans:
        number = split_number(scan)
        if number is None:
            rest.append(scan)
        else:
            groups[scan.folder, number[0]].append((number[1], scan))
    hint = f'the model has one channel; if these are cases of their own, add --channels "{channels[0]}=*"'
    for (folder, base), members in groups.items():
        members.sort(key=lambda member: member[0])
        numbers = [number for number, _ in members]
        if members[0][1].scan.reader and numbers == list(range(len(numbers))):
            # a colour image holds several channels: their number is known once it is read
            grouping.add((*folder, base), [scan for _, scan in members])
            continue
        complete = numbers == list(range(len(channels)))
        in_channel = any(_channel_named(part, channels) is not None for part in folder)
        if len(channels) > 1 and in_channel and not complete:
            rest.extend(scan for _, scan in members)  # IN/T2/case_0001.nii.gz
            continue
        own_name = len(channels) == 1 and 0 not in numbers
        grouping.assign(
            (*folder, members[0][1].stem if own_name else base),
            members,
            suffixes=[number_suffix(i) for i in range(len(channels))],
            hint=hint if len(channels) == 1 else "",
        )
    return rest


def _channel_named(part: str, channels: Sequence[str]) -> int | None:
    """The channel that a folder or file is named after exactly, ignoring case."""
    return next((i for i, name in enumerate(channels) if name.casefold() == part.casefold()), None)


class _Placed(NamedTuple):
    """A scan that is named after a channel, or lies in a folder that is."""

    channel: int
    scan: FoundScan
    rest: tuple[str, ...]
    """Its path below the folder of the channels, without the channel."""


def _group_by_folder(
    grouping: Grouping, scans: Sequence[FoundScan], source_name: str
) -> list[FoundScan]:
    """Group IN/T1/case and IN/case/T1; returns the scans that are named after no channel."""
    channels = grouping.channels
    rest: list[FoundScan] = []
    places: dict[tuple[str, ...], list[_Placed]] = defaultdict(list)
    for scan in scans:
        named = {
            i: channel
            for i, part in enumerate(scan.parts)
            if (channel := _channel_named(part, channels)) is not None
        }
        if not named:
            rest.append(scan)
            continue
        base, *number = split_number(scan) or (scan.stem,)
        mentioned = {*named.values(), *number}
        if len(mentioned) > 1:
            words = [channels[i] if i < len(channels) else number_suffix(i) for i in mentioned]
            reason = f"{scan.label}: its path names several channels ({', '.join(sorted(words))})"
            grouping.reject(scan.parts, f"{reason}; keep one", [scan])
            continue
        first = min(named)
        path = (*scan.folder, base)
        below = tuple(part for i, part in enumerate(path) if i > first and i not in named)
        places[scan.parts[:first]].append(_Placed(named[first], scan, below))
    for prefix, placed in places.items():
        _group_place(grouping, prefix, placed, source_name)
    return rest


def _group_place(
    grouping: Grouping, prefix: tuple[str, ...], placed: Sequence[_Placed], source_name: str
) -> None:
    """Scans whose channels' folders lie in one folder: one case, or one for each name."""
    placed = sorted(placed, key=lambda one: one.channel)
    by_name: dict[tuple[str, ...], list[_Placed]] = defaultdict(list)
    for one in placed:
        by_name[tuple(part.casefold() for part in one.rest)].append(one)
    all_channels = list(range(len(grouping.channels)))

    def complete(group: Sequence[_Placed]) -> bool:
        return sorted(one.channel for one in group) == all_channels

    notes = [f"channels by sub-folders or files named {', '.join(grouping.channels)}"]
    one_case = complete(placed) and (prefix or len(by_name) == 1)
    if one_case or (prefix and not any(map(complete, by_name.values()))):
        if len(by_name) > 1:
            names = listed([one.scan for one in placed])
            notes.append(
                f"files of different names, alone in the folders of their channels: {names}"
            )
        grouping.assign(
            prefix or placed[0].rest or (source_name,),
            [(one.channel, one.scan) for one in placed],
            hint="where a folder holds several cases, give the scans of one case the same name",
            notes=notes,
        )
        return
    for group in by_name.values():
        grouping.assign(
            (*prefix, *group[0].rest) or (source_name,),
            [(one.channel, one.scan) for one in group],
            hint="the scans of one case need the same name in all sub-folders",
            notes=notes,
        )
