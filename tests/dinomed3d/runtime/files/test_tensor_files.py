"""The reader of tensor files: what torch.save and safetensors write, and every way in which it can be bad."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.tensor_files import (
    TensorFileError,
    read_safetensors,
    read_tensor_file,
    read_torch,
    safetensors_metadata,
)

CONTENT = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor([True, False]),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "view": torch.arange(10)[2:5],
    "nested": {"epoch": 3, "loss": [0.5, None, "text"]},
}


class RunsCode:
    """A pickle of this makes a folder when it is read without care."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.fixture
def path(tmp_path):
    torch.save(CONTENT, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def rewritten(path, change=lambda files: files, method=zipfile.ZIP_STORED):
    """The same archive with other records."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in change(files).items():
            archive.writestr(name, content)


def same(one, two):
    assert one.keys() == two.keys()
    assert all(
        torch.equal(one[k], two[k]) if isinstance(two[k], torch.Tensor) else one[k] == two[k]
        for k in two
    )


def refused(path, match):
    with pytest.raises(TensorFileError, match=match) as caught:
        read_tensor_file(path)
    assert isinstance(caught.value, UserError)
    assert str(path) in str(caught.value)


def test_what_torch_saves(path):
    same(read_torch(path), CONTENT)
    same(read_torch(path, mapped=True), CONTENT)
    same(read_torch(io.BytesIO(path.read_bytes()), name="stream"), CONTENT)
    optimizer = torch.optim.AdamW(torch.nn.Linear(2, 2).parameters()).state_dict()
    torch.save({"optimizer": optimizer, "random": torch.get_rng_state()}, path)
    assert read_torch(path)["optimizer"]["param_groups"] == optimizer["param_groups"]


def test_safetensors(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3)}
    save_file(tensors, tmp_path / "w.safetensors")
    same(read_tensor_file(tmp_path / "w.safetensors"), tensors)
    content = save(tensors, {"note": "x"})
    same(read_safetensors(content), tensors)
    assert safetensors_metadata(content, name="w") == {"note": "x"}


def test_numbers_of_numpy_and_nothing_else_of_it(path):
    before = set(torch.serialization.get_safe_globals())
    numbers = [np.float16(0.5), np.int64(3), np.uint8(4), np.bool_(True), np.float32(2)]
    torch.save(numbers, path)
    assert read_torch(path) == [0.5, 3, 4, True, 2.0]
    for value in (np.zeros(3), np.str_("a"), np.datetime64("2020-01-01")):
        torch.save([value], path)
        refused(path, "wants to run|cannot be read")
    assert set(torch.serialization.get_safe_globals()) == before


def test_numbers_that_numpy_1_wrote(path):
    """numpy 1 has its constructor of numbers in another module."""
    torch.save({"x": np.float64(0.25)}, path)

    def older(files):
        return {n: c.replace(b"numpy._core.multi", b"numpy.core.multi") for n, c in files.items()}

    rewritten(path, older)
    assert read_torch(path) == {"x": 0.25}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["torch", "legacy torch", "pickle"])
def test_a_pickle_that_calls_something(kind, wrapped, tmp_path):
    target, path = tmp_path / "it_ran", tmp_path / "w.pth"
    content = {"model": CONTENT, "extra": RunsCode(target)} if wrapped else RunsCode(target)
    with open(path, "wb") as file:
        if kind == "pickle":
            pickle.dump(content, file)
        else:
            torch.save(content, file, _use_new_zipfile_serialization=kind == "torch")
    refused(path, r"wants to run \w+\.mkdir" if kind == "torch" else "no zip archive")
    assert not target.exists()
    with open(path, "rb") as file:
        pickle.load(file) if kind == "pickle" else torch.load(file, weights_only=False)
    assert target.exists()  # it would have run


def flipped(path, record):
    """One bit of a record's content."""
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(record))
    name, extra = struct.unpack_from("<HH", whole, info.header_offset + 26)
    whole[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 4
    path.write_bytes(whole)


@pytest.mark.parametrize("record", ["/data.pkl", "/data/0", "/version"])
def test_a_flipped_bit(record, path):
    flipped(path, record)
    refused(path, "Bad CRC-32")
    if record == "/data/0":
        assert not torch.equal(torch.load(path)["a"], CONTENT["a"])  # what PyTorch alone does


def test_compressed_records(path):
    torch.save({"a": torch.zeros(1 << 20)}, path)
    rewritten(path, method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    refused(path, "is compressed")
    with pytest.raises(TensorFileError, match="stream: .* is compressed"):
        read_torch(io.BytesIO(path.read_bytes()), name="stream")


def test_sizes_that_differ_from_the_records(path):
    def shorter(files):
        return {n: c[:-1] if n.endswith("/data/0") else c for n, c in files.items()}

    rewritten(path, shorter)
    refused(path, "storage 0 is declared with 24 bytes and has 23")


def test_a_pickle_that_declares_more_than_there_is(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(255)}, path)

    def larger(files):  # BININT1 255 -> BININT2 25600, in the storage and in the tensor's shape
        return {
            n: c.replace(b"K\xff", b"M\x00\x64") if n.endswith("data.pkl") else c
            for n, c in files.items()
        }

    rewritten(path, larger)
    refused(path, "storage 0 is declared with 102400 bytes and has 1020")


def test_a_record_that_is_missing_or_there_twice(path):
    whole = path.read_bytes()
    rewritten(path, lambda files: {n: c for n, c in files.items() if not n.endswith("/data/1")})
    refused(path, "storage 1 is declared")
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("w/data/0", b"\0" * 24)
    refused(path, "the same name")
    path.write_bytes(whole)
    rewritten(path, lambda files: {n: c for n, c in files.items() if not n.endswith("data.pkl")})
    refused(path, "no data.pkl")


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
def test_truncated_files(file, tmp_path):
    path = tmp_path / file
    tensors = {"a": torch.arange(300.0), "b": torch.ones(7)}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    whole = path.read_bytes()
    ends = random.Random(0).sample(range(1, len(whole)), 20)
    for end in (0, 1, 7, len(whole) // 2, len(whole) - 1, *ends):
        path.write_bytes(whole[:end])
        refused(path, "cannot be read")


@pytest.mark.parametrize("start", [b"", b"\x80\x02", b"PK\x03\x04", b"epoch,loss\n"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_other_files(start, ending, tmp_path):
    rng, path = random.Random(0), tmp_path / f"w.{ending}"
    for _ in range(10):
        path.write_bytes(start + rng.randbytes(rng.randrange(1, 200)))
        refused(path, "cannot be read")


def test_no_file(tmp_path):
    refused(tmp_path / "absent.pth", "no such file")
    refused(tmp_path / "absent.safetensors", "no such file")
    refused(tmp_path, "cannot be read")
