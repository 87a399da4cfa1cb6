"""What is printed of foreign names: one line, nothing that controls a terminal, nothing lost of ordinary names."""

from __future__ import annotations

import pytest

from dinomed3d.runtime.messages.terminal_text import lines_of, one_line

ESCAPE = "x\x1b]0;evil\x07.nii"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ESCAPE, r"x\x1b]0;evil\x07.nii"),
        ("\x9b31mred", r"\x9b31mred"),  # an escape sequence in one character
        ("a \r\n  failed: b", "a failed: b"),
        ("a\u2028b\x85c", "a b c"),
        ("a\tb\x08", r"a\tb\x08"),
        ("fdp\u202etxt\u2066", r"fdp\u202etxt\u2066"),  # bidirectional controls
        ("\udcff\udfff", r"\udcff\udfff"),  # a byte that is not UTF-8
        ("Mu\u0308ller  山田\u3000太郎 a\u00a0b 👨\u200d👩 C:\\new", None),  # stays as it is
    ],
)
def test_one_line(text, shown):
    assert one_line(text) == (text if shown is None else shown)


def test_tables_keep_their_lines():
    assert lines_of(f"a  1\n{ESCAPE}\r  2\n") == "a  1\n" + r"x\x1b]0;evil\x07.nii\r  2" + "\n"
