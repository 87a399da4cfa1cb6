"""Packages: what goes in, what comes out, and packages that were tampered with."""

from __future__ import annotations

import json
import zipfile

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from dinomed3d import __version__
from dinomed3d.inference.models.describe import inspect_json, inspect_text
from dinomed3d.inference.models.model import fold_weights, open_model
from dinomed3d.inference.models.network_weights import digest, from_safetensors, to_safetensors
from dinomed3d.inference.models.package import package_model
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.fake_models import export, named_architecture, ours, write_model
from tests.dinomed3d.training.conftest import REGIONS


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres")


@pytest.fixture
def licence(tmp_path):
    path = tmp_path / "licence.txt"
    path.write_text("DINOv3 License\nas I received it\n")
    return path


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


def contents(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, files, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_round_trip(folder, tmp_path):
    out = package_model(folder, tmp_path / "m.zip")
    model, packed = open_model(folder), open_model(out)
    assert packed.hash == model.hash
    assert packed.folds == model.folds == ("0", "1")
    for name in ("plans", "dataset", "fingerprint", "trainer", "configuration", "mirroring"):
        assert getattr(packed, name) == getattr(model, name)
    for fold in model.folds:
        assert same(fold_weights(packed, fold), fold_weights(model, fold))
    assert sorted(contents(out)) == [
        "dataset.json",
        "dataset_fingerprint.json",
        "fold_0/checkpoint.safetensors",
        "fold_1/checkpoint.safetensors",
        "model.json",
        "plans.json",
    ]
    manifest = json.loads(contents(out)["model.json"])
    assert manifest["versions"].keys() == {"dinomed3d", "nnunetv2", "torch"}
    assert manifest["versions"]["dinomed3d"] == __version__
    assert manifest["licence"] is None and manifest["dinov3_derived"] is False
    assert not [p for p in tmp_path.iterdir() if ".part." in p.name]


def test_no_optimizer_and_each_memory_once(folder, tmp_path):
    out = package_model(folder, tmp_path / "m.zip", folds=["0"])
    weights = fold_weights(open_model(folder), "0")
    own = {t.data_ptr(): t.numel() * t.element_size() for t in weights.values()}
    packed = contents(out)["fold_0/checkpoint.safetensors"]
    assert len(own) < len(weights)  # nnU-Net's decoder holds the encoder too
    header = int.from_bytes(packed[:8], "little")
    assert len(packed) - 8 - header == sum(own.values())
    assert b"momentum" not in packed


def test_the_same_model_makes_the_same_bytes(folder, tmp_path):
    first = package_model(folder, tmp_path / "a.zip").read_bytes()
    zipped = export(folder, tmp_path / "stock.zip")
    assert package_model(folder, tmp_path / "b.zip").read_bytes() == first
    assert package_model(zipped, tmp_path / "c.zip").read_bytes() == first
    assert package_model(tmp_path / "a.zip", tmp_path / "d.zip").read_bytes() == first


def test_an_unpacked_package_is_a_model_too(folder, tmp_path):
    out = package_model(folder, tmp_path / "m.zip")
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "unpacked")
    (tmp_path / "unpacked" / ".DS_Store").write_text("")
    assert open_model(tmp_path / "unpacked").hash == open_model(out).hash


def test_one_fold_of_a_package(folder, tmp_path):
    out = package_model(folder, tmp_path / "m.zip")
    assert open_model(out, folds=["1"]).hash == open_model(folder, folds=["1"]).hash
    one = package_model(out, tmp_path / "one.zip", folds=["1"])
    assert open_model(one).folds == ("1",)
    with pytest.raises(UserError, match="folds 1, not for 0"):
        open_model(one, folds=["0"])


def test_another_checkpoint(tmp_path):
    folder = write_model(tmp_path / "m", folds=("0",), name="checkpoint_best.pth")
    out = package_model(folder, tmp_path / "m.zip", checkpoint="checkpoint_best.pth")
    assert open_model(out).checkpoint == "checkpoint_best.pth"
    assert open_model(out, checkpoint="checkpoint_best.pth").folds == ("0",)
    with pytest.raises(UserError, match="checkpoint_best.pth, not checkpoint_latest.pth"):
        open_model(out, checkpoint="checkpoint_latest.pth")


def test_kinds_of_tensors():
    base = torch.arange(6.0)
    weights = {
        "half": torch.ones(2, 3, dtype=torch.float16),
        "brain": torch.ones(3, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 4),
        "base": base,
        "alias": base,
        "part": base[2:4],
        "turned": torch.arange(6).reshape(2, 3).T,
        "spread": torch.zeros(1).expand(4),
    }
    read = from_safetensors(to_safetensors(weights), "x")
    assert same(read, weights) and digest(read) == digest(weights)
    assert read["alias"].data_ptr() == read["base"].data_ptr()
    changed = weights | {"part": base[1:3]}
    assert digest(changed) != digest(weights)
    assert digest({**weights, "count": torch.tensor(7, dtype=torch.int32)}) != digest(weights)


def test_dinov3_needs_its_licence(tmp_path, licence):
    folder = write_model(tmp_path / "m", folds=("0",), **ours("/weights/dinov3_vits16.pth"))
    with pytest.raises(UserError, match="DINOv3.*--licence FILE"):
        package_model(folder, tmp_path / "m.zip")
    assert not (tmp_path / "m.zip").exists()
    other = tmp_path / "mit.txt"
    other.write_text("MIT License")
    with pytest.raises(UserError, match="--licence .*DINOv3"):
        package_model(folder, tmp_path / "m.zip", licence=other)
    out = package_model(folder, tmp_path / "m.zip", licence=licence)
    assert contents(out)["LICENSE.txt"] == licence.read_bytes()
    model = open_model(out)
    assert model.licence == "DINOv3 License" and model.hash == open_model(folder).hash
    known = inspect_json(model)
    assert known["encoder_weights"] == "dinov3_vits16.pth"  # not where it lay
    assert known["encoder"] == "vit_small_patch16_dinov3" and known["dinov3_derived"] is True
    again = package_model(out, tmp_path / "again.zip")  # it has the text already
    assert contents(again)["LICENSE.txt"] == licence.read_bytes()


@pytest.mark.parametrize(
    "other", [ours("none"), ours("hub", encoder="vit_small_patch14_reg4_dinov2"), {}]
)
def test_what_needs_no_licence(tmp_path, other):
    folder = write_model(tmp_path / "m", folds=("0",), **other)
    assert open_model(package_model(folder, tmp_path / "m.zip")).licence is None


def test_in_doubt_it_is_dinov3(tmp_path):
    """Other trainers do not note where the weights of an encoder come from."""
    folder = write_model(tmp_path / "a", folds=("0",), trainer_name="MedDINOv3Trainer")
    with pytest.raises(UserError, match="--licence FILE"):
        package_model(folder, tmp_path / "m.zip")
    plan = named_architecture(network_class_name="dinomed3d.networks.network.build_network")
    kwargs = plan["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["encoder"] = "vit_small_patch16_dinov3"
    with pytest.raises(UserError, match="--licence FILE"):
        package_model(write_model(tmp_path / "b", folds=("0",), plan=plan), tmp_path / "m.zip")


def test_any_licence_is_packed(folder, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("\n  Our licence, 2026\nmore\n")
    model = open_model(package_model(folder, tmp_path / "m.zip", licence=text))
    assert model.licence == "Our licence, 2026"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a\0b", None])
def test_licences_that_are_not_text(folder, tmp_path, content):
    text = tmp_path / "mine.txt"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(UserError, match="--licence"):
        package_model(folder, tmp_path / "n.zip", licence=text)


def test_an_existing_file_is_kept(folder, tmp_path):
    out = tmp_path / "m.zip"
    out.write_text("mine")
    for path in (out, tmp_path / "m.tar"):
        with pytest.raises(UserError, match=f"-o .*{path.name}"):
            package_model(folder, path)
    assert out.read_text() == "mine"
    assert open_model(package_model(folder, out, overwrite=True)).folds == ("0", "1")


def labels_folder(folder):
    """Two label images: 24 and 10 voxels of label 1, 0 and 6 of label 2; a voxel has 0.5 ml."""
    folder.mkdir()
    for name, counts in (("a", (24, 0)), ("b", (10, 6))):
        flat = np.repeat([1, 2, 0], [*counts, 60 - sum(counts)]).astype(np.uint8)
        image = nibabel.Nifti1Image(flat.reshape(3, 4, 5), np.diag([5.0, 10.0, 10.0, 1.0]))
        nibabel.save(image, folder / f"{name}.nii.gz")
    (folder / "._a.nii.gz").write_bytes(b"macOS")
    return folder


def test_training_volumes(folder, tmp_path):
    labels = labels_folder(tmp_path / "labelsTr")
    out = package_model(folder, tmp_path / "m.zip", training_labels=labels)
    model = open_model(out)
    assert model.label_volumes_ml == {"a": [5.0, 12.0], "b": [0.0, 3.0]}
    assert model.hash == open_model(folder).hash
    again = open_model(package_model(out, tmp_path / "again.zip"))
    assert again.label_volumes_ml == model.label_volumes_ml


def test_training_volumes_of_regions(tmp_path):
    folder = write_model(tmp_path / "m", folds=("0",), labels=REGIONS)
    labels = labels_folder(tmp_path / "labelsTr")
    out = package_model(folder, tmp_path / "m.zip", training_labels=labels)
    assert open_model(out).label_volumes_ml == {"whole": [8.0, 12.0], "b": [0.0, 3.0]}


def test_images_that_are_not_training_labels(folder, tmp_path):
    labels = tmp_path / "labels"
    for value in (None, 7, -1, 0.5, b"no image"):
        if isinstance(value, bytes):
            (labels / "a.nii.gz").write_bytes(value)
        elif value is not None:
            labels.mkdir(exist_ok=True)
            image = SimpleITK.GetImageFromArray(np.full((2, 2, 2), value, np.float32))
            SimpleITK.WriteImage(image, str(labels / "a.nii.gz"))
        with pytest.raises(UserError, match="--training-labels"):
            package_model(folder, tmp_path / "m.zip", training_labels=labels)


@pytest.fixture
def packed(folder, tmp_path):
    return package_model(folder, tmp_path / "m.zip")


def test_changed_missing_and_additional_files(packed):
    original = contents(packed)
    for name, content in original.items():
        if name == "model.json":
            continue
        for change in ({name: content[:-1] + b" "}, {name: content + b" "}, {"extra.py": b""}):
            with pytest.raises(UserError, match=next(iter(change))):
                open_model(write(packed, original | change))
        with pytest.raises(UserError, match=name):
            open_model(write(packed, {n: c for n, c in original.items() if n != name}))


def changed_manifest(packed, **entries):
    files = contents(packed)
    manifest = json.loads(files["model.json"]) | entries
    files["model.json"] = json.dumps({k: v for k, v in manifest.items() if v != "DROP"}).encode()
    return write(packed, files)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "model.json"),
        ({"trainer": "DROP"}, "model.json"),
        ({"unknown": 1}, "model.json"),
        ({"folds": ["0"]}, "model.json"),
        ({"folds": [0, 1]}, "model.json"),
        ({"files": {"evil.py": {}}}, "model.json"),
        ({"files": {"../evil": {}}}, "model.json"),
        ({"label_volumes_ml": {"a": [1]}}, "model.json"),
        ({"trainer": "os.system"}, "trainer"),
        ({"mirroring": [5]}, "mirrored axes"),
        ({"configuration": "3d_lowres"}, "not in the plan"),
    ],
)
def test_a_changed_manifest(packed, entries, reason):
    with pytest.raises(UserError, match=reason):
        open_model(changed_manifest(packed, **entries))


def test_weights_of_another_model_under_a_true_checksum(packed):
    manifest = json.loads(contents(packed)["model.json"])
    swapped = manifest["weights"]["1"]
    model = open_model(changed_manifest(packed, weights={"0": swapped, "1": swapped}))
    with pytest.raises(UserError, match="weights of fold 0"):
        fold_weights(model, "0")


def test_a_truncated_package(packed):
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError, match="m.zip"):
        open_model(packed)


def test_no_safetensors():
    for content in (b"", b"1234567", b"\xff" * 100, b"{}" * 20):
        with pytest.raises(UserError, match="^weights x"):
            from_safetensors(content, "x")


def test_inspect(tmp_path, licence):
    folder = write_model(tmp_path / "m", folds=("0",), labels=REGIONS, **ours("hub"))
    labels = labels_folder(tmp_path / "labelsTr")
    out = package_model(folder, tmp_path / "m.zip", licence=licence, training_labels=labels)
    text = inspect_text(open_model(out))
    for line in (
        "model         Dataset901_Tiny",
        "trainer       DinoMed3DTrainer",
        "encoder       vit_small_patch16_dinov3, derived from DINOv3",
        "channels      0 MRI",
        "spacing       2 x 1 x 1 mm, axes in the order [0, 1, 2]",
        "patch         6 x 20 x 16 voxels",
        "folds         0 (checkpoint_final.pth)",
        "mirroring     axis 0, axis 1, axis 2",
        "licence       DINOv3 License (LICENSE.txt in the package)",
        "whole       1 (region of 1, 2)  8 to 12",
        "b           2 (region of 2)  0 to 3",
    ):
        assert line in text.splitlines(), text
    assert "fold_0/checkpoint.safetensors" in text and open_model(out).hash in text
    known = inspect_json(open_model(folder))
    assert known == json.loads(json.dumps(known))
    assert known["regions_class_order"] == [1, 2] and known["encoder_weights"] == "hub"
    assert "--licence" in inspect_text(open_model(folder))


def test_inspect_steers_no_terminal(folder):
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace("MRI", "\\u001b[2J"))
    text = inspect_text(open_model(folder))
    assert "\x1b" not in text and r"0 \x1b[2J" in text
