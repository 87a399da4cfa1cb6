"""Which scans are one case by `--channels "T1=*t1*.nii.gz"`: a pattern on names for each channel."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dinomed3d.inference.discovery.grouping import Grouping
from dinomed3d.inference.discovery.scans import FoundScan, image_ending
from dinomed3d.runtime.errors import UserError


def parse_patterns(arguments: Sequence[str], channels: Sequence[str]) -> dict[str, str]:
    """Read the arguments of `--channels`.

    Args:
        arguments: Each `NAME=PATTERN`; the case of NAME does not count.
        channels: Names of the model, in its order.

    Returns:
        Channel -> pattern, in the model's order.

    Raises:
        UserError: Bad syntax, an unknown channel, one given twice or not at all.
    """
    known = {name.casefold(): name for name in channels}
    example = " ".join(f'"{name}=*{name.lower()}*.nii.gz"' for name in channels)
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, pattern = (part.strip() for part in argument.partition("="))
        channel = known.get(name.casefold())
        problem = ""
        if not equals or not pattern:
            problem = f"{argument!r} is not NAME=PATTERN, as in --channels {example}"
        elif channel is None:
            problem = f"the model has no channel {name!r}; it has {', '.join(channels)}"
        elif channel in found:
            problem = f"channel {channel!r} is given twice"
        elif "/" in pattern or "\\" in pattern:
            problem = f"{pattern!r} must match file names, not paths; leave the folders out"
        if problem or channel is None:
            raise UserError(f"--channels: {problem}")
        found[channel] = pattern
    missing = [name for name in channels if name not in found]
    if missing:
        raise UserError(
            f"--channels: no pattern for {', '.join(missing)}; every channel needs one, "
            f"as in --channels {example}"
        )
    return {name: found[name] for name in channels}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """As `fnmatch`, ignoring case, with a group for the text that each wildcard matches."""
    parts, at = [], 0
    while at < len(pattern):
        sign = pattern[at]
        close = pattern.find("]", at + 2) if sign == "[" else -1
        if sign in "*?":
            parts.append("(.*)" if sign == "*" else "(.)")
        elif close > 0:
            inside = pattern[at + 1 : close].replace("\\", r"\\")
            inside = "^" + inside[1:] if inside[0] == "!" else inside
            parts.append(f"([{inside}])")
            at = close
        else:
            parts.append(re.escape(sign))
        at += 1
    try:
        return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)
    except re.error as err:
        raise UserError(f"--channels: {pattern!r} is not a valid pattern: {err}") from err


@dataclass(frozen=True)
class _Match:
    scan: FoundScan
    channels: tuple[int, ...]
    """The channels whose patterns it matches; more than one is ambiguous."""
    text: tuple[str, ...]
    """What the wildcards of the first of them match, without the file's ending."""

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(part.casefold() for part in self.text)


def group_by_patterns(
    scans: Sequence[FoundScan],
    patterns: Mapping[str, str],
    *,
    source_name: str,
    ignored: Counter[str],
) -> Grouping:
    """Make cases of scans whose names match.

    In each folder: if every channel matches at most one scan, the folder is the case; otherwise
    scans belong together whose wildcards match the same text.

    Args:
        scans: All that were found.
        patterns: Channel -> pattern, in the model's order.
        source_name: Of the input, for a case that lies directly in it.
        ignored: Counted up for scans that no pattern matches.
    """
    compiled = [compile_pattern(pattern) for pattern in patterns.values()]
    grouping = Grouping(channels=list(patterns))
    folders: dict[tuple[str, ...], list[_Match]] = defaultdict(list)
    for scan in scans:
        match = _match(scan, compiled)
        if match is None:
            ignored["name that no pattern of --channels matches"] += 1
        elif len(patterns) == 1:
            grouping.add(scan.parts, [scan])
        else:
            folders[scan.folder].append(match)
    for folder, matches in folders.items():
        _group_folder(grouping, folder, matches, patterns, source_name)
    return grouping


def _match(scan: FoundScan, compiled: Sequence[re.Pattern[str]]) -> _Match | None:
    hits = {
        channel: found
        for channel, pattern in enumerate(compiled)
        if (found := next(filter(None, map(pattern.fullmatch, scan.names)), None)) is not None
    }
    if not hits:
        return None
    first = next(iter(hits.values()))
    return _Match(scan, tuple(hits), tuple(map(_without_ending, first.groups())))


def _without_ending(text: str) -> str:
    """`_mprage` of `_mprage.nii.gz`, nothing of `.nii.gz`: whatever the format is."""
    ending = image_ending(f"x{text}")
    return text[: -len(ending)] if ending else text


def _group_folder(
    grouping: Grouping,
    folder: tuple[str, ...],
    matches: Sequence[_Match],
    patterns: Mapping[str, str],
    source_name: str,
) -> None:
    counts = Counter(channel for match in matches for channel in match.channels)
    groups: dict[tuple[str, ...], list[_Match]] = defaultdict(list)
    for match in matches:
        groups[match.key].append(match)
    if max(counts.values()) == 1 and (folder or len(groups) == 1):
        notes = []
        if len(groups) > 1:
            names = ", ".join(match.scan.label for match in matches)
            notes.append(f"the only ones of their channels in the folder: {names}")
        parts = folder or _id_parts(matches[0].text) or (source_name,)
        _group_matches(grouping, parts, matches, patterns, notes)
        return
    for group in groups.values():
        parts = (*folder, *_id_parts(group[0].text)) or (source_name,)
        if len(group) == 1 and len(group[0].channels) > 1:
            parts = group[0].scan.parts
        _group_matches(grouping, parts, group, patterns, [])


def _id_parts(text: Sequence[str]) -> tuple[str, ...]:
    """A name from what the wildcards match: `("anna_", "")` -> `("anna",)`."""
    name = "_".join(part.strip("_-. ") for part in text if part.strip("_-. "))
    return (name,) if name else ()


def _group_matches(
    grouping: Grouping,
    parts: Sequence[str],
    matches: Sequence[_Match],
    patterns: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """One case, or why it is not one."""
    names = grouping.channels
    ambiguous = next((match for match in matches if len(match.channels) > 1), None)
    if ambiguous is not None:
        both = " and ".join(f"{names[i]} ({patterns[names[i]]})" for i in ambiguous.channels)
        reason = f"{ambiguous.scan.label} matches the patterns of {both}"
        grouping.reject(parts, reason, [match.scan for match in matches])
        return
    members = sorted(((m.channels[0], m.scan) for m in matches), key=lambda member: member[0])
    found = ", ".join(f"{names[i]} = {scan.label}" for i, scan in members)
    grouping.assign(
        parts,
        members,
        suffixes=list(patterns.values()),
        hint="scans belong together if they are alone in a folder, "
        "or if * matches the same text in all patterns",
        notes=[f"channels by patterns: {found}", *notes],
    )
