"""Which scans are one case by `--channels "T1=*t1*.nii.gz"`: patterns on names, one per channel."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dinomed3d.inference.discovery.channels import Grouped
from dinomed3d.inference.discovery.scans import Item, image_ending
from dinomed3d.runtime.errors import UserError


def parse_patterns(words: Sequence[str], channels: Sequence[str]) -> dict[str, str]:
    """Read the words behind `--channels`.

    Args:
        words: Each `NAME=PATTERN`; capitals in NAME do not count.
        channels: Names of the model, in its order.

    Returns:
        Channel -> pattern, in the model's order.

    Raises:
        UserError: Bad syntax, an unknown channel, one named twice or not at all.
    """
    known = {name.casefold(): name for name in channels}
    example = " ".join(f'"{name}=*{name.lower()}*.nii.gz"' for name in channels)
    found: dict[str, str] = {}
    for word in words:
        name, equals, pattern = (part.strip() for part in word.partition("="))
        if not equals or not pattern:
            raise UserError(f"--channels: {word!r} is not NAME=PATTERN, as in --channels {example}")
        if name.casefold() not in known:
            raise UserError(
                f"--channels: the model has no channel {name!r}; it has {', '.join(channels)}"
            )
        if known[name.casefold()] in found:
            raise UserError(f"--channels: channel {known[name.casefold()]!r} is named twice")
        if "/" in pattern or "\\" in pattern:
            raise UserError(
                f"--channels: {pattern!r} is compared with names of files, not with paths; leave the folders out"
            )
        found[known[name.casefold()]] = pattern
    missing = [name for name in channels if name not in found]
    if missing:
        raise UserError(
            f"--channels: no pattern for {', '.join(missing)}; every channel needs one, as in --channels {example}"
        )
    return {name: found[name] for name in channels}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """As `fnmatch`, capitals aside, with a group for what each wildcard stands for."""
    parts, at = [], 0
    while at < len(pattern):
        sign = pattern[at]
        close = pattern.find("]", at + 2) if sign == "[" else -1
        if sign == "*":
            parts.append("(.*)")
        elif sign == "?":
            parts.append("(.)")
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
        raise UserError(f"--channels: {pattern!r} is no pattern: {err}") from err


@dataclass(frozen=True)
class _Match:
    item: Item
    channels: tuple[int, ...]
    """Whose patterns it matches; one, unless the patterns are not clear."""
    text: tuple[str, ...]
    """What the wildcards of the first of them stand for, without the file's ending."""

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(part.casefold() for part in self.text)


def group_by_patterns(
    items: Sequence[Item],
    channels: Sequence[str],
    patterns: Mapping[str, str],
    *,
    source_name: str,
    ignored: Counter[str],
) -> Grouped:
    """Make cases of scans whose names match.

    In each folder: if every channel matches at most one scan, the folder is the case; otherwise
    scans are together whose wildcards stand for the same text.

    Args:
        items: All that was found.
        channels: Names, in the model's order.
        patterns: Of `parse_patterns`.
        source_name: Of the input, for a case that lies directly in it.
        ignored: Counted up for scans that no pattern matches.
    """
    compiled = [compile_pattern(patterns[name]) for name in channels]
    grouped = Grouped()
    folders: dict[tuple[str, ...], list[_Match]] = defaultdict(list)
    for item in items:
        match = _match(item, compiled)
        if match is None:
            ignored["name that no pattern of --channels matches"] += 1
        elif len(channels) == 1:
            grouped.add(item.parts, [item], channels)
        else:
            folders[item.folder].append(match)
    for folder, matches in folders.items():
        _settle_folder(grouped, folder, matches, channels, patterns, source_name)
    return grouped


def _match(item: Item, compiled: Sequence[re.Pattern[str]]) -> _Match | None:
    hits: list[int] = []
    text: tuple[str, ...] = ()
    for channel, pattern in enumerate(compiled):
        found = next((m for m in map(pattern.fullmatch, item.names) if m is not None), None)
        if found is None:
            continue
        if not hits:
            text = tuple(_without_ending(part) for part in found.groups())
        hits.append(channel)
    return _Match(item, tuple(hits), text) if hits else None


def _without_ending(text: str) -> str:
    """`_mprage` of `_mprage.nii.gz`, nothing of `.nii.gz`: whatever format it is in."""
    ending = image_ending(f"x{text}")
    return text[: -len(ending)] if ending else text


def _settle_folder(
    grouped: Grouped,
    folder: tuple[str, ...],
    matches: Sequence[_Match],
    channels: Sequence[str],
    patterns: Mapping[str, str],
    source_name: str,
) -> None:
    counts = Counter(channel for match in matches for channel in match.channels)
    one_case = max(counts.values()) == 1
    same_text = len({match.key for match in matches}) == 1
    if one_case and (folder or same_text):
        notes = []
        if not same_text:
            notes.append(f"the only ones of their channels in the folder: {_names(matches)}")
        parts = folder or _text_parts(matches[0].text) or (source_name,)
        _settle(grouped, parts, matches, channels, patterns, notes)
        return
    groups: dict[tuple[str, ...], list[_Match]] = defaultdict(list)
    for match in matches:
        groups[match.key].append(match)
    for group in groups.values():
        parts = (*folder, *_text_parts(group[0].text)) or (source_name,)
        if not all(len(match.channels) == 1 for match in group) and len(group) == 1:
            parts = group[0].item.parts
        _settle(grouped, parts, group, channels, patterns, [])


def _text_parts(text: Sequence[str]) -> tuple[str, ...]:
    """A name from what the wildcards stand for: `("anna_", "")` -> `("anna",)`."""
    name = "_".join(part.strip("_-. ") for part in text if part.strip("_-. "))
    return (name,) if name else ()


def _settle(
    grouped: Grouped,
    parts: Sequence[str],
    matches: Sequence[_Match],
    channels: Sequence[str],
    patterns: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """One case, or why it is none."""
    items = [match.item for match in matches]
    unclear = next((match for match in matches if len(match.channels) > 1), None)
    if unclear is not None:
        both = " and ".join(f"{channels[i]} ({patterns[channels[i]]})" for i in unclear.channels)
        grouped.refuse(parts, f"{unclear.item.label} matches the patterns of {both}", items)
        return
    there = {channel: match.item for match in matches for channel in match.channels}
    if len(there) < len(matches):
        grouped.refuse(
            parts, f"more than one scan for a channel: {_told(matches, channels)}", items
        )
        return
    missing = [f"{name} ({patterns[name]})" for i, name in enumerate(channels) if i not in there]
    if missing:
        grouped.refuse(
            parts,
            f"no scan for channel {', '.join(missing)} that belongs to {_told(matches, channels)}; scans belong "
            "together if they lie alone in a folder of their own, or if * stands for the same text in all patterns",
            items,
        )
        return
    ordered = [there[i] for i in range(len(channels))]
    told = f"channels by patterns: {', '.join(f'{n} = {i.label}' for n, i in zip(channels, ordered, strict=True))}"
    grouped.add(parts, ordered, channels, [told, *notes])


def _told(matches: Sequence[_Match], channels: Sequence[str]) -> str:
    return ", ".join(f"{channels[m.channels[0]]} = {m.item.label}" for m in matches[:6])


def _names(matches: Sequence[_Match]) -> str:
    return ", ".join(match.item.label for match in matches)
