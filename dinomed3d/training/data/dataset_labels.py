"""The labels of dataset.json: whether they are written as nnU-Net v2 reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dinomed3d.runtime.errors import UserError


def check_labels(description: Mapping[str, Any]) -> None:
    """Refuse labels that nnU-Net would read as something else, or refuse with a riddle.

    Args:
        description: content of dataset.json.

    Raises:
        UserError: names and numbers are exchanged, as in files for nnU-Net's first version, there is no
            background, or a label is no whole number.
    """
    labels = description.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        raise UserError(
            'dataset.json: "labels" must map names to numbers, such as {"background": 0, "tumour": 1}, got '
            f"{json.dumps(labels)}"
        )
    turned = turned_round(labels)
    if turned is not None:
        raise UserError(
            f'dataset.json: "labels" are written the wrong way round, number to name ({_first(labels)}); nnU-Net v2 '
            f'wants name to number: write "labels": {json.dumps(turned, ensure_ascii=False)}'
        )
    if "background" not in labels:
        like = [n for n, v in labels.items() if str(n).lower().strip() == "background" or v == 0]
        meant = f" (is it {like[0]!r}?)" if like else ""
        raise UserError(f'dataset.json: "labels" must hold "background": 0{meant}')
    if labels["background"] not in (0, "0"):
        raise UserError(
            f'dataset.json: "labels" must hold "background": 0, got {json.dumps(labels["background"])}'
        )
    for name, value in labels.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(_is_number(one) for one in values):
            raise UserError(
                f'dataset.json: label "{name}" must be a whole number, or a list of such for a region, got '
                f"{json.dumps(value)}"
            )


def turned_round(labels: Mapping[str, Any]) -> dict[str, int] | None:
    """Name -> number of labels that are written number to name; None where they are not."""
    exchanged = all(_is_number(name) for name in labels) and any(
        isinstance(value, str) and not _is_number(value) for value in labels.values()
    )
    return {str(value): int(name) for name, value in labels.items()} if exchanged else None


def _is_number(value: object) -> bool:
    """Whether it is a whole number from 0, also as text, which nnU-Net reads."""
    if isinstance(value, str):
        return value.isdecimal()
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _first(labels: Mapping[str, Any]) -> str:
    name, value = next(iter(labels.items()))
    return json.dumps({name: value}, ensure_ascii=False)
