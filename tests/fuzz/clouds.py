"""Clouds: read, read in pieces, copied with classes and, now and then, predicted."""

from __future__ import annotations

import json
import shutil
import struct
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from dinomed3d.runtime.errors import UserError
from pointseg.files import (
    CloudFileError,
    check_labelled,
    finite_points,
    in_pieces,
    read_cloud,
    write_cloud,
    write_labelled,
)
from pointseg.models.trained_model import load_model
from pointseg.prediction import predict as predicting
from pointseg.prediction.spec import PredictSpec
from tests.fuzz.checkpoints import write_checkpoint
from tests.fuzz.damage import Damaged, Fields, fields_damaged, text_damaged
from tests.fuzz.kind import Finding, Kind, Refused, Result
from tests.pointseg.files.pcd import test_pcd as pcd
from tests.pointseg.files.test_files import scene

COUNT = 60
PLY_TEXT = """ply
format ascii 1.0
element vertex {}
{}element face 1
property list uchar int vertex_index
end_header
"""
PLY_NAMES = ("x", "y", "z", "red", "green", "blue", "label")
PLY_TYPES = ("float", "float", "float", "uchar", "uchar", "uchar", "int")
LAS_FIELDS: Fields = [
    *((24, "<B"), (25, "<B"), (94, "<H"), (96, "<I"), (100, "<I"), (104, "<B"), (105, "<H")),
    *((107 + 4 * i, "<I") for i in range(6)),
    *((131 + 8 * i, "<d") for i in range(12)),
    *((227, "<Q"), (235, "<Q"), (243, "<I"), (247, "<Q")),
]
"""Numbers of LAS 1.4's header: version, sizes, counts, scales, offsets, bounds."""


class Reading:
    """Reads the cloud of a folder as the commands do; the model is made once."""

    def __init__(self, folder: Path) -> None:
        self.model = write_checkpoint(folder / "best.pt")
        self.out = folder / "out"
        self.loaded = load_model(self.model, "cpu")
        predicting.load_model = lambda path, device, **_: self.loaded  # type: ignore[assignment]

    def __call__(self, file: str, folder: Path, whole: bool) -> Result:
        path = folder / file
        try:
            found = read_cloud(path)
        except UserError as error:
            if path.name not in str(error):
                raise Finding(f"its file is not named: {error}") from error
            raise Refused(str(error)) from error
        result = {"coord": found.coord, "origin": found.origin, **found.fields}
        for name, values in result.items():
            if name != "origin" and len(values) != len(found):
                raise Finding(f"{name} has {len(values)} rows, {len(found)} points were read")
        for name in ("color", "normal", "strength", "returns"):
            if name in result and not np.isfinite(result[name]).all():
                raise Finding(f"{name} is not finite")
        finite_points(found)
        self._pieces(path, found.coord + found.origin)
        self._labelled(path, found.coord)
        return {**result, **(self._predicted(path) if whole else {})}

    def _pieces(self, path: Path, coord: np.ndarray) -> None:
        """A cloud in pieces has as many points, or is refused."""
        try:
            pieces = in_pieces(path)
            count = sum(len(next(iter(part.values()))) for part in pieces.read(17))
        except CloudFileError:
            return
        if count != len(coord):
            raise Finding(f"{count} points in pieces, {len(coord)} as a whole")

    def _labelled(self, path: Path, coord: np.ndarray) -> None:
        """What is read can be written with classes, or is refused before; the copy has its points."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        classes = np.arange(len(coord)) % 3
        try:  # as the commands do before the work
            check_labelled(path, self.out / path.name)
        except UserError as error:
            raise Refused(str(error)) from error
        try:
            write_labelled(path, self.out / path.name, classes)
        except UserError as error:
            raise Finding(f"read, but not written: {error}") from error
        copy = read_cloud(self.out / path.name)
        if not np.array_equal(copy.coord, coord, equal_nan=True):
            raise Finding("its labelled copy has other points")
        if not np.array_equal(copy["segment"], classes):
            raise Finding("its labelled copy has other classes")

    def _predicted(self, path: Path) -> Result:
        spec = PredictSpec(
            inputs=(path,),
            out=self.out / "predicted",
            model=self.model,
            log=lambda text: None,
            pictures=False,
        )
        (one,) = predicting.predict(spec)
        if one.status == "done":
            return {"predicted": np.array(json.dumps(one.classes))}
        kind = one.reason.partition(":")[0]
        if kind.endswith(("Error", "Exception")) and kind.isidentifier():
            raise Finding(one.reason)
        raise Refused(f"{path.name}: {one.reason}")


def _cloud() -> Any:
    made = scene(COUNT, extra=np.arange(COUNT, dtype=np.int32))
    return made


def _write(folder: Path, name: str) -> None:
    write_cloud(folder / name, _cloud())


def _write_ply_text(folder: Path, name: str) -> None:
    made = _cloud()
    head = "".join(f"property {t} {n}\n" for n, t in zip(PLY_NAMES, PLY_TYPES, strict=True))
    rows = [
        " ".join(
            [
                *(f"{v:.6f}" for v in made.coord[i]),
                *(f"{v:.0f}" for v in made["color"][i]),
                str(made["segment"][i]),
            ]
        )
        for i in range(COUNT)
    ]
    text = PLY_TEXT.format(COUNT, head) + "\n".join(rows) + "\n3 0 1 2\n"
    (folder / name).write_text(text, encoding="ascii", newline="\n")


def _write_pcd(folder: Path, name: str, form: str) -> None:
    (folder / name).write_bytes(pcd.content(form))


def lie_before(end: bytes, rng: Random, content: bytes) -> Damaged:
    """The text of a header lies."""
    at = content.find(end)
    return text_damaged(rng, content, content.index(b"\n", at) + 1)


def npy_lie(rng: Random, content: bytes) -> Damaged:
    """The dict of a numpy header lies, in the length that its header says."""
    size = struct.unpack("<H", content[8:10])[0]
    lie = text_damaged(rng, content[10 : 10 + size])
    head = lie.content.rstrip()[: 2**16 - 2] + b"\n"
    return Damaged(
        content[:8] + struct.pack("<H", len(head)) + head + content[10 + size :],
        lie.how,
        is_lie=True,
    )


def npz_lie(rng: Random, content: bytes) -> Damaged:
    """A member lies below a checksum that fits."""
    import io
    import zipfile

    target = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        chosen, how = rng.choice(old.namelist()), ""
        for name in old.namelist():
            data = old.read(name)
            if name == chosen:
                lie = npy_lie(rng, data)
                data, how = lie.content, f"{name}: {lie.how}"
            new.writestr(name, data)
    return Damaged(target.getvalue(), how, is_lie=True)


def kinds(folder: Path) -> list[Kind]:
    """All types of files; they share a model below `folder`."""
    reading = Reading(folder)

    def kind(file: str, lie: Any, write: Any = None, **more: Any) -> Kind:
        return Kind(
            name=file,
            file=file,
            write=write or partial(_write, name=file),
            read=partial(reading, file),
            lie=lie,
            **more,
        )

    def pcd_kind(form: str, **more: Any) -> Kind:
        name = f"{form}.pcd"
        return kind(
            name, partial(lie_before, b"\nDATA"), partial(_write_pcd, name=name, form=form), **more
        )

    def text(rng: Random, content: bytes) -> Damaged:
        return text_damaged(rng, content)

    def las(rng: Random, content: bytes) -> Damaged:
        return fields_damaged(rng, content, LAS_FIELDS)

    return [
        kind("cloud.ply", partial(lie_before, b"end_header")),
        kind(
            "ascii.ply",
            partial(lie_before, b"end_header"),
            partial(_write_ply_text, name="ascii.ply"),
            counted=False,
        ),
        pcd_kind("ascii", counted=False),
        pcd_kind("binary"),
        pcd_kind("binary_compressed"),
        kind("cloud.las", las),
        kind("cloud.laz", las),
        kind("cloud.npy", npy_lie),
        kind("cloud.npz", npz_lie, has_checksum=True),
        kind("cloud.txt", text, counted=False),
        kind("cloud.csv", text, counted=False),
        kind(
            "cloud.bin",
            lambda rng, content: fields_damaged(rng, content, [(4 * i, "<f") for i in range(40)]),
            counted=False,
        ),
    ]
