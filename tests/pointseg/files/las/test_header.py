"""Headers of LAS: text of any encoding, versions, numbers of points, and points that nobody wrote."""

from __future__ import annotations

import struct

import laspy
import numpy as np
import pytest

from pointseg.files import CloudFileError, check_labelled, read_cloud, write_labelled
from pointseg.files.las.header import header_notes, read_header
from tests.pointseg.files.las.test_las import las

MUELLER = "Müller".encode("latin-1")


def patched(path, *changes):
    """The file with other bytes at some places."""
    data = bytearray(path.read_bytes())
    for at, new in changes:
        data[at : at + len(new)] = new
    path.write_bytes(data)


def label(source, target, **options):
    check_labelled(source, target, colored="colors" in options, codes=options.get("codes"))
    count = read_header(source).count
    write_labelled(source, target, np.zeros(count, int), **options)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_text_of_any_encoding_is_kept_as_bytes(tmp_path, suffix):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    las(source, evlr=True)
    before = read_header(source)
    (crs,) = [record for record in before.records if record.number == 2112]
    (extra,) = [record for record in before.records if record.user == b"LASF_Spec"]
    (late,) = before.extended
    changes = [
        (26, MUELLER + b"\0behind the end"),
        (58, b"\xff" * 32),
        (90, b"\0\0\0\0"),  # no day
        (crs.at + 22, MUELLER),
        (crs.content_at, MUELLER),
        (extra.content_at + 4, b"H\xf6he\0\0"),
        (extra.content_at + 160, MUELLER),
        (late.at, b"\xaa\xbb" + MUELLER),
        (late.at + 28, MUELLER),
    ]
    patched(source, *changes)
    before = read_header(source)
    assert "H_he_0" in read_cloud(source)
    label(source, target, colors=np.zeros((1, 3), np.uint8))
    after = read_header(target)
    assert after.head[4:94] == before.head[4:94]
    kept = {(record.user, record.number): record for record in after.records + after.extended}
    for record in (crs, *before.extended):
        (found,) = (kept[key] for key in kept if key[1] == record.number)
        old, new = (h.content(r, 2**16) for h, r in ((before, record), (after, found)))
        assert old == new
    assert kept[crs.user, 2112].head[:18] == crs.head[:18]
    assert kept[MUELLER, 7].head == before.extended[0].head
    names = after.content(kept[b"LASF_Spec", 4], 2**16)
    assert names[4:10] == b"H\xf6he\0\0" and names[160:166] == MUELLER
    assert names[2 * 192 + 4 :].startswith(b"pointseg_class\0")


def test_who_defines_a_record_may_be_of_any_encoding(shared, tmp_path):
    for name in ("v1.las", "software.las"):
        source = shared / "cases/files/las_text" / name
        label(source, tmp_path / name)
        before, after = read_header(source), read_header(tmp_path / name)
        assert after.head[26:94] == before.head[26:94]
        assert [r.head for r in before.records] == [r.head for r in after.records][
            : len(before.records)
        ]


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_files_without_points_are_copied(tmp_path, suffix):
    las(tmp_path / f"a{suffix}", count=0)
    label(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", colors=np.zeros((1, 3), np.uint8))
    assert len(read_cloud(tmp_path / f"b{suffix}")) == 0


def test_version_1_0_is_kept(tmp_path):
    las(tmp_path / "a.las", point_format=1, version="1.1")
    patched(tmp_path / "a.las", (25, b"\0"))
    label(tmp_path / "a.las", tmp_path / "b.las", codes=(2,))
    assert read_header(tmp_path / "b.las").version == (1, 0)
    assert np.array(read_cloud(tmp_path / "b.las")["classification"]).tolist() == [2] * 4


@pytest.mark.parametrize(
    ("version", "changes", "problem"),
    [
        ("1.2", [(24, b"\0\0")], "version 0.0"),
        ("1.2", [(25, b"\6")], "version 1.6"),
        ("1.2", [(107, struct.pack("<I", 3))], "announces 3 points"),
        ("1.2", [(107, struct.pack("<I", 0))], "announces 0 points"),
        ("1.4", [(247, struct.pack("<Q", 2))], "announces 2 points"),
        ("1.2", [(94, struct.pack("<H", 200))], "header takes 200 bytes"),
        ("1.4", [(375 + 20, struct.pack("<H", 60_000))], "record 1 of 2 takes"),
    ],
)
def test_headers_that_contradict_their_file_are_refused(tmp_path, version, changes, problem):
    las(tmp_path / "a.las", point_format=3 if version == "1.2" else 6, version=version)
    patched(tmp_path / "a.las", *changes)
    with pytest.raises(CloudFileError, match=rf"a\.las: .*{problem}"):
        read_cloud(tmp_path / "a.las")


def test_a_second_number_of_points_that_differs_is_said_or_refused(tmp_path):
    las(tmp_path / "a.las")
    patched(tmp_path / "a.las", (107, struct.pack("<I", 5)))
    (note,) = header_notes(read_header(tmp_path / "a.las"))
    assert "4 points in one place, 5 in another" in note
    las(tmp_path / "a.laz")
    patched(tmp_path / "a.laz", (107, struct.pack("<I", 5)), (255, bytes(8)))
    with pytest.raises(CloudFileError, match="4 points in one place, 5 in another"):
        read_header(tmp_path / "a.laz")


@pytest.mark.parametrize(
    ("point_format", "version", "count"),
    [(6, "1.4", 3), (6, "1.4", 5), (3, "1.2", 50_001), (3, "1.2", 10**9)],
)
def test_numbers_of_compressed_points_are_those_of_their_chunks(
    tmp_path, point_format, version, count
):
    las(tmp_path / "a.laz", point_format=point_format, version=version)
    at, kind = (247, "<Q") if version == "1.4" else (107, "<I")
    patched(tmp_path / "a.laz", (at, struct.pack(kind, count)))
    with pytest.raises(
        CloudFileError, match=rf"a\.laz: .*announces {count} points, its chunks hold"
    ):
        read_cloud(tmp_path / "a.laz")


@pytest.mark.parametrize("pieces", [1_000_000, 2])
def test_points_that_nobody_wrote_are_found(tmp_path, monkeypatch, pieces):
    monkeypatch.setattr("pointseg.files.las.read.CHUNK", pieces)
    las(tmp_path / "a.las", point_format=3, version="1.2")
    with laspy.open(tmp_path / "a.las") as reader:
        at, row = reader.header.offset_to_point_data, reader.header.point_format.size
    patched(tmp_path / "a.las", (at + 3 * row, struct.pack("<i", 10**6)))
    with pytest.raises(CloudFileError, match="the last 1 lie outside"):
        read_cloud(tmp_path / "a.las")
    patched(tmp_path / "a.las", (at + row, struct.pack("<i", 10**6)))  # an old box
    assert len(read_cloud(tmp_path / "a.las")) == 4
    patched(tmp_path / "a.las", (at + 2 * row, struct.pack("<i", 10**6)))  # in two pieces
    with pytest.raises(CloudFileError, match="the last 3 lie outside"):
        read_cloud(tmp_path / "a.las")


def test_what_could_be_read_but_not_written_is_refused_before_the_work(tmp_path):
    las(tmp_path / "a.las", point_format=3, version="1.2")
    patched(tmp_path / "a.las", (25, b"\1"))
    assert len(read_cloud(tmp_path / "a.las")) == 4
    with pytest.raises(CloudFileError, match=r"a\.las: a copy cannot be written"):
        check_labelled(tmp_path / "a.las", tmp_path / "b.las")
    las(tmp_path / "c.las", point_format=3, version="1.2")
    with pytest.raises(CloudFileError, match="0 to 31"):
        check_labelled(tmp_path / "c.las", tmp_path / "b.las", codes=(64,))
