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
        ("CC-BY-NC 4.0 (no commercial use)", False, {"license": "cc-by-nc-4.0"}),
        ("Attribution-NonCommercial 4.0\nCC0, NonCommercial", True, {"license": "cc-by-nc-4.0"}),
        ("Creative Commons Attribution 4.0\nunder CC BY 4.0", True, {"license": "cc-by-4.0"}),
        ("MIT License\nPermission is hereby granted, free of charge", True, {"license": "mit"}),
        ("MIT License\nfor commercial and non-commercial use", True, {"license": "mit"}),
        (
            "GNU GENERAL PUBLIC LICENSE\nor the GNU Affero General Public License",
            False,
            {"license": "other", "license_name": "gnu-general-public-license"},
        ),
    ],
)
def test_what_the_hub_learns_of_a_licence(text, has_file, expected):
    assert licence_entries(text, has_file=has_file) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The weights are under CC-BY-NC 4.0.\nDINOv2 is under the Apache License 2.0.",
        "Attribution-NonCommercial 4.0\nNotice: parts are under Apache-2.0",
        "Attribution-NonCommercial 4.0\nNotice: parts are under Attribution 4.0",
        "GNU GENERAL PUBLIC LICENSE\nVersion 3\nparts under the MIT License",
        "MIT License\nlinked with a library under the LGPL",
        "MIT License\nlinked with a library under the GNU Lesser General\nPublic License",
        "MIT License\nThe weights are not for commercial use.",
        "Apache License\nRedistribution and use in source and binary forms",
        "Apache License\nPermission is hereby granted, free of charge",
        "Attribution 4.0\nand Attribution-ShareAlike 4.0",
        "DINOv3 License\nThe encoder of stage I: Apache License",
    ],
)
def test_of_several_licences_none_is_declared(text):
    several = {"license": "other", "license_name": "several-licences"}
    assert licence_entries(text, has_file=False) == several
    assert licence_entries(text, has_file=True) == {**several, "license_link": LICENCE_FILE}
