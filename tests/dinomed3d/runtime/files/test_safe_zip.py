"""Archives that are whole, and ones that were made to harm."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files import safe_zip
from dinomed3d.runtime.files.safe_zip import check_archive, extract, read_member


@pytest.fixture
def pack(tmp_path):
    """Write a zip of (name or ZipInfo, content) and give its path."""

    def write(*members, method=zipfile.ZIP_DEFLATED) -> Path:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", method) as stream:
            for name, content in members:
                stream.writestr(name, content)
        return path

    return write


def renamed(path: Path, old: str, new: str) -> Path:
    """The same archive with a name that the writer would not have let through."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert content.count(old.encode()) == 2
    path.write_bytes(content.replace(old.encode(), new.encode()))
    return path


def test_whole(pack, tmp_path):
    path = pack(("a/", b""), ("a/b.txt", b"hello"), ("c.txt", b"x" * 5000))
    assert [member.filename for member in check_archive(path)] == ["a/b.txt", "c.txt"]
    out = tmp_path / "out"
    assert extract(path, ["c.txt", "a/b.txt"], out) == [out / "c.txt", out / "a" / "b.txt"]
    assert (out / "a" / "b.txt").read_bytes() == b"hello"
    assert read_member(path, check_archive(path)[1]) == b"x" * 5000
    with pytest.raises(UserError, match="would replace"):
        extract(path, ["c.txt"], out)
    with pytest.raises(UserError, match="holds no file 'd.txt'"):
        extract(path, ["d.txt"], out)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.txt", "leads out"),
        ("a/../../evil", "leads out"),
        ("/etc/passwd", "leads out"),
        ("C:/evil.txt", "leads out"),
        ("c:evil.txt", "leads out"),
        ("./.", "no name"),
        ("a/" + 256 * "b", "more than 255 bytes"),
        (128 * "ä" + "/b", "more than 255 bytes"),
    ],
)
def test_names_that_lead_out(pack, tmp_path, name, reason):
    path = pack(("good.txt", b"good"), (name, b"evil"))
    with pytest.raises(UserError, match=reason):
        check_archive(path)
    with pytest.raises(UserError, match=reason):  # whatever is asked for
        extract(path, ["good.txt"], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("new", ["..\\evil.txt", "a\\evi.text", "evil\0.text!"])
def test_backslash_and_zero_byte(pack, new):
    old = "x" * len(new)
    with pytest.raises(UserError, match="backslash or a zero byte"):
        check_archive(renamed(pack((old, b"evil")), old, new))


@pytest.mark.parametrize("kind", [0o120777, 0o010644, 0o020644])
def test_links_and_devices(pack, kind):
    member = zipfile.ZipInfo("link")
    member.external_attr = kind << 16
    with pytest.raises(UserError, match="link or a device"):
        check_archive(pack((member, b"/etc/passwd")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["a/B.txt", "a/b.txt", "./a//b.TXT"])
def test_names_that_are_the_same(pack, again):
    with pytest.raises(UserError, match="same file"):
        check_archive(pack(("a/b.txt", b"1"), (again, b"2")))


def test_composed_and_decomposed_letters_are_the_same(pack):
    with pytest.raises(UserError, match="same file"):
        check_archive(pack(("\u00e9", b"1"), ("e\u0301", b"2")))


def test_a_file_that_is_a_folder(pack):
    with pytest.raises(UserError, match="folder that is a file"):
        check_archive(pack(("a", b"1"), ("A/b", b"2")))


def test_names_of_windows(pack, monkeypatch):
    path = pack(("a/con.txt", b"1"))
    check_archive(path)
    monkeypatch.setattr(safe_zip, "WINDOWS", True)
    with pytest.raises(UserError, match="Windows"):
        check_archive(path)


def test_too_many_too_large_and_bombs(pack):
    path = pack(*[(f"{i}.txt", b"1234") for i in range(5)])
    assert len(check_archive(path, max_files=5, max_bytes=20)) == 5
    with pytest.raises(UserError, match="5 members, at most 4"):
        check_archive(path, max_files=4)
    with pytest.raises(UserError, match="would unpack to"):
        check_archive(path, max_bytes=19)
    bomb = pack(("zeros", bytes(4 << 20)))
    with pytest.raises(UserError, match="more than 1000 times"):
        check_archive(bomb)
    assert check_archive(bomb, max_ratio=2000)
    many = pack(*[(f"{i}", bytes(1 << 19)) for i in range(5)])
    with pytest.raises(UserError, match="more than 500 times"):  # small ones, but many
        check_archive(many, max_ratio=500)


def test_members_that_share_bytes(pack, tmp_path):
    path = pack(("a.bin", b"1" * 100), ("b.bin", b"1" * 100), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    second = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, second + 42, 0)  # both at the start
    path.write_bytes(content)
    with pytest.raises(UserError, match="shares its bytes"):
        check_archive(path)


def test_encrypted_and_unknown_methods(pack):
    for offset, value, reason in ((8, 1, "encrypted"), (10, 99, "method 99")):
        path = pack(("a.bin", b"1" * 100), method=zipfile.ZIP_STORED)
        content = bytearray(path.read_bytes())
        struct.pack_into("<H", content, content.rindex(b"PK\x01\x02") + offset, value)
        path.write_bytes(content)
        with pytest.raises(UserError, match=reason):
            check_archive(path)


def test_more_than_was_said_is_not_unpacked(pack, tmp_path):
    path = pack(("zeros", bytes(1 << 20)))
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 24, 1000)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        extract(path, ["zeros"], tmp_path / "out")
    assert not (tmp_path / "out" / "zeros").exists()
    with pytest.raises(UserError, match="damaged"):
        read_member(path, check_archive(path)[0])
    with pytest.raises(UserError, match="at most 10"):
        read_member(path, check_archive(path)[0], max_bytes=10)


def test_no_archive(pack, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        check_archive(tmp_path / "none.zip")
    with pytest.raises(UserError, match="not a whole zip"):
        check_archive(tmp_path)
    path = pack(("a", b"1" * 100), ("b", b"2" * 100))
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="not a whole zip"):
            check_archive(path)


def test_a_directory_that_lost_members(pack):
    path = pack(("a", b"1"), ("b", b"2"), ("c", b"3"))
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<I", data, len(data) - 10)
    struct.pack_into("<I", data, len(data) - 10, size * 2 // 3)  # the last two are read
    path.write_bytes(data)
    assert len(zipfile.ZipFile(path).namelist()) == 2
    with pytest.raises(UserError, match="lists 2 members and says that it has 3"):
        check_archive(path)


def test_a_damaged_member(pack, tmp_path):
    path = pack(("a", b"1" * 100), method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"111", b"121", 1))
    with pytest.raises(UserError, match="damaged"):
        extract(path, ["a"], tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()
