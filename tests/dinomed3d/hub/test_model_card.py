"""Model cards: whose words they are, and what the hub learns of licences."""

from __future__ import annotations

import pytest

from dinomed3d.hub.model_card import (
    DINOV3,
    LICENCE_FILE,
    is_written_by_somebody,
    licence_entries,
    marked,
)

HEAD = "---\nlicense: mit\n---\n"
MADE = marked("# Made\n")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", False),
        (HEAD, False),  # what the hub's own form for a new repository writes
        (f"{HEAD}Mine.\n", True),
        (MADE, False),
        (MADE.replace("Made", "Mine", 1), True),
    ],
)
def test_whose_words_a_card_has(card, expected):
    assert is_written_by_somebody(card) is expected


@pytest.mark.parametrize(
    ("text", "has_file", "expected"),
    [
        (None, True, {}),
        (" \n", True, {}),
        ("Apache License\nVersion 2.0", True, {"license": "apache-2.0"}),
        ("DINOv3 License", False, DINOV3),
        ("DINOv3 License", True, {**DINOV3, "license_link": LICENCE_FILE}),
        ("\nFor us, only!\nMore", False, {"license": "other", "license_name": "for-us-only"}),
    ],
)
def test_what_the_hub_learns_of_a_licence(text, has_file, expected):
    assert licence_entries(text, has_file=has_file) == expected
