"""Which scans are one case: by nnU-Net's `_0000` names, by sub-folders, or as they are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from dinomed3d.inference.case import Case, RejectedInput
from dinomed3d.inference.discovery.case_ids import case_id
from dinomed3d.inference.discovery.scans import Item

_NUMBERED = re.compile(r"(?s)(.+)_(00\d\d)")
"""A year, or a number above a hundred, is no channel."""


@dataclass(kw_only=True)
class Grouped:
    """Cases, and what cannot be one."""

    cases: list[Case] = field(default_factory=list)
    refusals: list[RejectedInput] = field(default_factory=list)

    def add(
        self,
        parts: Sequence[str],
        items: Sequence[Item],
        channels: Sequence[str],
        notes: Sequence[str] = (),
    ) -> None:
        """A case of these items, in the order of the channels; refused if one cannot be read."""
        told = len(items) > 1
        problems = [
            f"{channel}: {item.problem}" if told else item.problem
            for channel, item in zip(channels, items, strict=False)
            if item.problem
        ]
        if problems:
            self.refuse(parts, "; ".join(problems), items)
            return
        own = [note for item in items for note in item.notes]
        self.cases.append(
            Case(
                id=case_id(parts),
                scans=tuple(item.scan for item in items),
                size_bytes=sum(item.size_bytes for item in items),
                notes=tuple(dict.fromkeys((*own, *notes))),
            )
        )

    def refuse(self, parts: Sequence[str], reason: str, items: Sequence[Item]) -> None:
        """One refusal for all these items."""
        files = tuple(dict.fromkeys(file for item in items for file in item.files))
        self.refusals.append(RejectedInput(id=case_id(parts), reason=reason, files=files))


def number_of(item: Item) -> tuple[str, int] | None:
    """`("case", 1)` for `case_0001.nii.gz`; None without such an end. DICOM names have none."""
    match = None if item.is_dicom else _NUMBERED.fullmatch(item.stem)
    return None if match is None else (match[1], int(match[2]))


def group_single(items: Sequence[Item], channels: Sequence[str]) -> Grouped:
    """For a model of one channel: each scan is a case; `_0000` does not belong to its name."""
    grouped = Grouped()
    numbered: dict[tuple[tuple[str, ...], str], list[tuple[int, Item]]] = defaultdict(list)
    for item in items:
        number = number_of(item)
        if number is None:
            grouped.add(item.parts, [item], channels)
        else:
            numbered[item.folder, number[0]].append((number[1], item))
    for (folder, base), several in numbered.items():
        several.sort(key=lambda pair: pair[0])
        if all(number == 0 for number, _ in several):
            for _, item in several:
                grouped.add((*folder, base), [item], channels)
            continue
        found = [item for _, item in several]
        name = base if several[0][0] == 0 else found[0].stem
        grouped.refuse(
            (*folder, name),
            f"{_list(found)}: nnU-Net's names give channels by _0000, _0001, ..., and the model has one channel "
            f'({channels[0]}); if these are scans of their own, add --channels "{channels[0]}=*"',
            found,
        )
    return grouped


def group_several(items: Sequence[Item], channels: Sequence[str], source_name: str) -> Grouped:
    """For a model of several channels, without patterns.

    First nnU-Net's names, folder by folder; then sub-folders and files called after channels; what
    is neither is passed on as one file that may hold all channels.

    Args:
        items: All that was found.
        channels: Names, in the model's order.
        source_name: Of the input, for a case whose channels lie directly in it.
    """
    grouped = Grouped()
    rest = _by_number(grouped, items, channels)
    rest = _by_folder(grouped, rest, channels, source_name)
    series: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for item in rest:
        if item.is_dicom:
            several = item.stem.startswith("series-") and item.folder
            series[item.folder if several else item.parts].append(item)
        else:
            grouped.add(item.parts, [item], channels)
    for parts, found in series.items():
        grouped.refuse(
            parts,
            f"{len(found)} DICOM series ({_list(found)}), and nothing says which channel each is; {how(channels)}",
            found,
        )
    return grouped


def how(channels: Sequence[str]) -> str:
    """What a user can do to say which scan is which channel."""
    numbers = ", ".join(f"{name} = _{i:04d}" for i, name in enumerate(channels[:3]))
    patterns = " ".join(f'"{name}=*{name.lower()}*"' for name in channels[:3])
    more = " ..." if len(channels) > 3 else ""
    return (
        f"the model needs {len(channels)} channels: name the files by nnU-Net's rule ({numbers}{more}), put them in "
        f"sub-folders called {', '.join(channels)}, or say --channels {patterns}{more}"
    )


def _by_number(grouped: Grouped, items: Sequence[Item], channels: Sequence[str]) -> list[Item]:
    """Group `case_0000`, `case_0001`, ...; gives back what other ways are left for."""
    rest: list[Item] = []
    groups: dict[tuple[tuple[str, ...], str], list[tuple[int, Item]]] = defaultdict(list)
    for item in items:
        number = number_of(item)
        if number is None:
            rest.append(item)
        else:
            groups[item.folder, number[0]].append((number[1], item))
    for (folder, base), several in groups.items():
        several.sort(key=lambda pair: pair[0])
        numbers, found = [number for number, _ in several], [item for _, item in several]
        if numbers == list(range(len(channels))):
            grouped.add((*folder, base), found, channels)
        elif any(_called(part, channels) is not None for part in folder):
            rest.extend(found)  # IN/T2/case_0001.nii.gz
        else:
            reason = _why_not(numbers, found, channels)
            grouped.refuse((*folder, base), reason, found)
    return rest


def _why_not(numbers: Sequence[int], found: Sequence[Item], channels: Sequence[str]) -> str:
    known = range(len(channels))
    missing = [f"{channels[i]} (_{i:04d})" for i in known if i not in numbers]
    double = [f"{channels[i]} (_{i:04d})" for i in known if numbers.count(i) > 1]
    beyond = [f"_{i:04d}" for i in numbers if i not in known]
    parts = []
    if missing:
        parts.append(f"channel {', '.join(missing)} is missing")
    if double:
        parts.append(f"channel {', '.join(double)} is there more than once")
    if beyond:
        parts.append(f"the model has no channel {', '.join(beyond)}")
    needed = ", ".join(f"{name} = _{i:04d}" for i, name in enumerate(channels))
    return f"{'; '.join(parts)}: found {_list(found)}, needed {needed}"


def _called(part: str, channels: Sequence[str]) -> int | None:
    """Which channel a folder or file is called exactly after; capitals do not count."""
    return next((i for i, name in enumerate(channels) if name.casefold() == part.casefold()), None)


@dataclass(frozen=True)
class _Placed:
    """A scan below a folder called after a channel, or itself called so."""

    item: Item
    channel: int
    rest: tuple[str, ...]
    """Its path without the channel."""


def _by_folder(
    grouped: Grouped, items: Sequence[Item], channels: Sequence[str], source_name: str
) -> list[Item]:
    """Group IN/T1/case and IN/case/T1; gives back what is called after no channel."""
    rest: list[Item] = []
    places: dict[tuple[str, ...], list[_Placed]] = defaultdict(list)
    for item in items:
        called = [(i, _called(part, channels)) for i, part in enumerate(item.parts)]
        named = [(i, channel) for i, channel in called if channel is not None]
        if not named:
            rest.append(item)
            continue
        said = {channel for _, channel in named}
        where = {i for i, _ in named}
        last = item.parts[-1]
        number = number_of(item)
        if number is not None:
            said.add(number[1])
            last = number[0]
        if len(said) > 1:
            grouped.refuse(
                item.parts,
                f"{item.label}: its name and its folders name several channels "
                f"({', '.join(_name(channel, channels) for channel in sorted(said))}); leave one",
                [item],
            )
            continue
        path = (*item.parts[:-1], last)
        first = named[0][0]
        inner = tuple(path[i] for i in range(first, len(path)) if i not in where)
        places[item.parts[:first]].append(_Placed(item, named[0][1], inner))
    for prefix, placed in places.items():
        _settle_place(grouped, prefix, placed, channels, source_name)
    return rest


def _name(channel: int, channels: Sequence[str]) -> str:
    return channels[channel] if channel < len(channels) else f"_{channel:04d}"


def _settle_place(
    grouped: Grouped,
    prefix: tuple[str, ...],
    placed: Sequence[_Placed],
    channels: Sequence[str],
    source_name: str,
) -> None:
    """All scans whose channels' folders lie in one folder: one case, or one for each name."""
    note = f"channels by sub-folders or files called {', '.join(channels)}"
    by_channel: dict[int, list[_Placed]] = defaultdict(list)
    by_rest: dict[tuple[str, ...], list[_Placed]] = defaultdict(list)
    for one in placed:
        by_channel[one.channel].append(one)
        by_rest[tuple(part.casefold() for part in one.rest)].append(one)
    each_once = len(by_channel) == len(channels) and len(placed) == len(channels)
    if each_once and (prefix or len(by_rest) == 1):
        items = [by_channel[i][0].item for i in range(len(channels))]
        notes = [note]
        if len(by_rest) > 1:
            notes.append(
                f"files of different names, alone in the folders of their channels: {_list(items)}"
            )
        parts = prefix or by_channel[0][0].rest or (source_name,)
        grouped.add(parts, items, channels, notes)
        return
    whole = [_is_whole(group, channels) for group in by_rest.values()]
    if prefix and not any(whole):
        counts = ", ".join(f"{name}: {len(by_channel[i])}" for i, name in enumerate(channels))
        items = [one.item for one in placed]
        grouped.refuse(
            prefix,
            f"one scan for each channel is needed, found {counts} ({_list(items)}); where a folder holds "
            "several cases, give the scans of one case the same name",
            items,
        )
        return
    for group, complete in zip(by_rest.values(), whole, strict=True):
        parts = (*prefix, *group[0].rest) if group[0].rest else prefix or (source_name,)
        group.sort(key=lambda one: one.channel)
        items = [one.item for one in group]
        if complete:
            grouped.add(parts, items, channels, [note])
        else:
            grouped.refuse(parts, _why_not_place(group, channels), items)


def _is_whole(group: Sequence[_Placed], channels: Sequence[str]) -> bool:
    return sorted(one.channel for one in group) == list(range(len(channels)))


def _why_not_place(group: Sequence[_Placed], channels: Sequence[str]) -> str:
    there = [one.channel for one in group]
    missing = [name for i, name in enumerate(channels) if i not in there]
    double = [name for i, name in enumerate(channels) if there.count(i) > 1]
    parts = []
    if missing:
        parts.append(f"no scan of this name in the sub-folder {', '.join(missing)}")
    if double:
        parts.append(f"more than one for the channel {', '.join(double)}")
    return f"{'; '.join(parts)}: found {_list([one.item for one in group])}"


def _list(items: Sequence[Item]) -> str:
    """Up to six of them, where they lie."""
    shown = [
        f"{'/'.join(item.parts)} ({item.scan.series})"
        if item.is_dicom
        else "/".join((*item.folder, item.names[0]))
        for item in items[:6]
    ]
    more = f" and {len(items) - 6} more" if len(items) > 6 else ""
    return ", ".join(shown) + more
