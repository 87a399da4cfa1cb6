"""Zip archives from untrusted sources: checked as a whole before anything is read from them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.regular_file import special_kind

GIB = 1 << 30
SMALL = 1 << 20
"""Bytes; up to here no ratio of compression is suspicious."""
BLOCK = 1 << 20
"""Bytes that are unpacked at once."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods of compression that are read."""
ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flags of a member: encrypted, strongly encrypted, encrypted directory."""
END, END_BYTES = b"PK\x05\x06", 22
"""Signature of an archive's end, and its bytes without a comment."""
MANY = 0xFFFF
"""Most bytes of a comment; in place of the number of members: they are more."""
LOCAL_HEADER = 30
"""Bytes before a member's name and content, at least."""
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
    RuntimeError,
)
"""What Python's reader raises on damaged archives."""
LONGEST_NAME = 255
"""Bytes of the name of a file or folder that file systems allow."""
WINDOWS = os.name == "nt"
WINDOWS_NAMES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)|[<>:\"|?*]|[. ]$", re.IGNORECASE)


def check_archive(
    path: Path, *, max_bytes: int = 64 * GIB, max_ratio: int = 1000, max_files: int = 200_000
) -> list[zipfile.ZipInfo]:
    """Check an archive without unpacking it.

    Args:
        path: the zip.
        max_bytes: limit of all members together, unpacked.
        max_ratio: limit of unpacked bytes per packed byte.
        max_files: limit of the number of members, folders included.

    Returns:
        The members that are files, in the archive's order.

    Raises:
        UserError: not a zip, damaged or encrypted; names outside the archive or used twice; links;
            more or larger members than allowed.
    """
    path = Path(path)
    if kind := special_kind(path):
        raise UserError(f"archive {path}: not a whole zip archive: it is {kind}; save it as a file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_directory(archive, len(members))
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"archive {path}: no such file") from error
    except (*DAMAGED, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"archive {path}: not a whole zip archive ({reason}); copy or download it again"
        ) from error
    if len(members) > max_files:
        raise UserError(
            f"archive {path}: holds {len(members)} members, at most {max_files} are read; if you trust it, unpack "
            "it and give the folder"
        )
    seen: dict[str, str] = {}
    for member in members:
        _check_member(path, member, max_ratio)
        key = _key(member)
        if key in seen:
            raise UserError(
                f"archive {path}: {member.filename!r} and {seen[key]!r} are the same file on systems that ignore "
                "case; pack it again with different names"
            )
        seen[key] = member.filename
    files = [member for member in members if not member.is_dir()]
    if not files:
        raise UserError(f"archive {path}: holds no file; pack it again")
    _check_tree(path, files)
    _check_sizes(path, files, size, max_bytes, max_ratio)
    return files


def _check_directory(archive: zipfile.ZipFile, members: int) -> None:
    """Compare the number of members with that at the archive's end, which no checksum covers.

    Python's reader takes as many as the directory's size says; with a damaged size the first ones are missing.

    Raises:
        BadZipFile: they differ.
    """
    stream = archive.fp
    assert stream is not None
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - END_BYTES - MANY))
    end = stream.read()
    (declared,) = struct.unpack_from("<H", end, end.rindex(END) + 10)
    if declared not in (members, MANY):
        raise zipfile.BadZipFile(f"it lists {members} members and says that it has {declared}")


def _refuse(path: Path, member: zipfile.ZipInfo, reason: str) -> UserError:
    return UserError(f"archive {path}: {member.orig_filename!r:.300} {reason}")


def _check_member(path: Path, member: zipfile.ZipInfo, max_ratio: int) -> None:
    """Check name, type and compression of one member."""
    name = member.orig_filename  # as stored; on Windows `filename` has other slashes
    again = "; it is not unpacked. Pack it again with an ordinary tool"
    if "\0" in name or "\\" in name:
        raise _refuse(path, member, f"has a backslash or a zero byte in its name{again}")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise _refuse(path, member, f"leads out of the archive{again}")
    if not _parts(name) and not member.is_dir():
        raise _refuse(path, member, f"is no name of a file{again}")
    if any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in _parts(name)):
        raise _refuse(path, member, f"has a name of more than {LONGEST_NAME} bytes{again}")
    if WINDOWS and any(WINDOWS_NAMES.search(part) for part in _parts(name)):
        raise _refuse(path, member, f"is a name that Windows cannot have{again}")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refuse(path, member, f"is a link or a device, not a file{again}")
    if member.flag_bits & ENCRYPTED:
        raise _refuse(path, member, "is encrypted; unpack it yourself and give the folder")
    if member.compress_type not in METHODS:
        method = f"is compressed with method {member.compress_type}, only deflate is read"
        raise _refuse(path, member, method + again)
    if member.file_size > max(SMALL, max_ratio * member.compress_size):
        raise _refuse(
            path,
            member,
            f"would unpack from {member.compress_size} to {member.file_size} bytes, more than {max_ratio} times; "
            "it is not unpacked, since archives that fill a disk are made this way",
        )


def _check_tree(path: Path, files: list[zipfile.ZipInfo]) -> None:
    """Check that no file is also the folder of another."""
    keys = {_key(file) for file in files}
    for file in files:
        parts = _key(file).split("/")
        if any("/".join(parts[:depth]) in keys for depth in range(1, len(parts))):
            raise _refuse(path, file, "is in a folder that is a file as well; pack it again")


def _check_sizes(
    path: Path, files: list[zipfile.ZipInfo], size: int, max_bytes: int, max_ratio: int
) -> None:
    """Check the total size, and that no member shares its bytes with another."""
    total = sum(file.file_size for file in files)
    if total > max_bytes:
        raise UserError(
            f"archive {path}: would unpack to {total / GIB:.1f} GiB, at most {max_bytes / GIB:.1f} GiB are read; "
            "if you trust it, unpack it and give the folder"
        )
    if total > max(SMALL, max_ratio * size):
        raise UserError(
            f"archive {path}: would unpack from {size} to {total} bytes, more than {max_ratio} times; it is "
            "not unpacked, since archives that fill a disk are made this way"
        )
    ordered = sorted(files, key=lambda file: file.header_offset)
    ends = [file.header_offset for file in ordered[1:]] + [size]
    for file, end in zip(ordered, ends, strict=True):
        if file.header_offset + LOCAL_HEADER + file.compress_size > end:
            raise _refuse(path, file, "shares its bytes with another member or is cut off")


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _key(member: zipfile.ZipInfo) -> str:
    """A key that is equal for names that are the same file on some system."""
    return unicodedata.normalize("NFC", "/".join(_parts(member.orig_filename))).casefold()


def read_member(path: Path, member: zipfile.ZipInfo, *, max_bytes: int | None = None) -> bytes:
    """The content of a member that `check_archive` returned.

    Args:
        path: the zip.
        member: the member.
        max_bytes: limit of its size; None for any size.

    Raises:
        UserError: damaged, or too large.
    """
    if max_bytes is not None and member.file_size > max_bytes:
        raise _refuse(
            path, member, f"has {member.file_size} bytes, at most {max_bytes} are expected"
        )
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            content = stream.read(member.file_size + 1)  # never more than declared
    except (*DAMAGED, OSError) as error:
        raise _refuse(
            path, member, f"is damaged ({error!s:.200}); copy or download it again"
        ) from error
    if len(content) != member.file_size:
        raise _refuse(path, member, "is cut off; copy or download it again")
    return content


def extract(path: Path, names: Iterable[str], folder: Path) -> list[Path]:
    """Unpack members of an archive, after checking the whole of it.

    Args:
        path: the zip.
        names: members, by the `filename` that `check_archive` returned.
        folder: where to; existing files are not replaced.

    Returns:
        One path per name, in their order.

    Raises:
        UserError: as `check_archive`; an unknown name, a damaged member, or an existing file.
    """
    path = Path(path)
    members = {member.filename: member for member in check_archive(path)}
    written = []
    with zipfile.ZipFile(path) as archive:
        for name in names:
            if name not in members:
                raise UserError(f"archive {path}: holds no file {name!r}")
            target = folder.joinpath(*_parts(members[name].orig_filename))
            target.parent.mkdir(parents=True, exist_ok=True)
            _unpack(path, archive, members[name], target)
            written.append(target)
    return written


def _unpack(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member; a damaged one leaves no file."""
    if target.exists():
        raise _refuse(path, member, f"would replace {target}; unpack into an empty folder")
    try:
        # reading stops at the declared size and compares the checksum there
        with archive.open(member) as source, open(target, "xb") as stream:
            shutil.copyfileobj(source, stream, BLOCK)
            whole = stream.tell() == member.file_size
        if not whole:
            raise EOFError("cut off")
    except OSError as error:
        target.unlink(missing_ok=True)
        raise _refuse(path, member, f"cannot be unpacked to {target}: {error}") from error
    except DAMAGED as error:
        target.unlink(missing_ok=True)
        raise _refuse(
            path, member, f"is damaged ({error!s:.200}); copy or download it again"
        ) from error
