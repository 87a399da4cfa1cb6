"""pointseg-cache-features: what it prints, how it ends."""

from __future__ import annotations

import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.cli.cache_features import main
from pointseg.images.features import encoder as encoding
from tests.pointseg.images.posed import ENCODER, photographed, tiny_encoder


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    held = photographed(tmp_path / "images")
    monkeypatch.setattr("pointseg.datasets.open_dataset", lambda *_, **__: held)
    monkeypatch.setattr(encoding, "open_encoder", lambda name, *_, **__: tiny_encoder(name))
    return held


def run(tmp_path, *options):
    fixed = ("--dataset", "scannet", "--weights", "none", "-o", tmp_path / "cache")
    return main([str(word) for word in (*fixed, "--image-size", 32, 48, *options)])


def test_a_table_of_what_is_held(tmp_path, dataset, capsys):
    assert run(tmp_path, "--max-views", 3, "--batch", 4) == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[0] == ["split", "scenes", "without_images", "kept", "made", "stale"]
    assert lines[1] == ["train", "2", "0", "0", "6", "0"]
    assert lines[2] == ["test", "2", "1", "0", "1", "0"]
    assert printed.out.splitlines()[3].startswith("7 images of 24 channels, ")
    assert "random weights" in printed.err and "7 images to encode" in printed.err
    assert "[1/7] train/s0" in printed.err  # no terminal, no bar
    assert run(tmp_path, "--max-views", "all", "--splits", "train") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "train", "2", "0", "6", "4", "0",
    ]  # fmt: skip
    (folder,) = (tmp_path / "cache").iterdir()
    assert folder.name.startswith(ENCODER) and folder.name.endswith("-32x48")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--splits", "lost"), "no split 'lost'"),
        (("--precision", "float16", "--device", "cpu"), "--precision float16"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, dataset, capsys, options, message):
    assert run(tmp_path, *options) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("pointseg-")]
    assert message in line


def test_images_are_a_number_or_all(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--max-views", "0")
    assert "must be at least 1" in capsys.readouterr().err


def test_sizes_that_cut_patches_are_refused(tmp_path, dataset, capsys):
    assert run(tmp_path, "--image-size", 40, 48) == 2
    assert "--image-size 48 48" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_interrupted(tmp_path, dataset, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pointseg.loading.build_feature_cache.FeatureCache.put", stop)
    assert run(tmp_path) == 130
    assert "encoded images are kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "encoder", "size", "views"),
    [
        ("scannet", ENCODER, (416, 560), 10),
        ("scannet", "vit_small_patch14_dinov2", (420, 560), 10),
        ("s3dis", ENCODER, (512, 512), 10),
        ("nuscenes", ENCODER, (384, 672), None),
        ("semantickitti", ENCODER, (384, 1248), None),
        ("s3dis", "vit_small_patch14_reg4_dinov2", (518, 518), 10),
        ("waymo", "vit_small_patch14_dinov2", (308, 672), None),
        ("structured3d", "vit_small_patch14_reg4_dinov2", (350, 630), 3),
        ("semantickitti", "vit_large_patch14_reg4_dinov2", (378, 1246), None),
        ("nuscenes", "vit_small_patch14_dinov2", (378, 672), None),
        ("folder", ENCODER, (480, 640), 10),
        ("folder", "vit_small_patch14_reg4_dinov2", (476, 644), 10),
    ],
)
def test_images_are_encoded_as_training_reads_them(
    tmp_path, dataset, capsys, monkeypatch, name, encoder, size, views
):
    from pointseg.config.presets import images_for

    asked = []

    def stop(spec):
        asked.append(spec)
        raise UserError("enough")

    monkeypatch.setattr("pointseg.loading.build_feature_cache.cache_features", stop)
    fixed = ["--dataset", name, "--encoder", encoder, "--weights", "none", "-o", str(tmp_path)]
    assert main(fixed) == 2
    recipe = images_for(name, encoder)
    assert (asked[0].size, asked[0].max_views) == (size, views) == (recipe.size, recipe.views)
    assert f"resized to {size[0]} x {size[1]} pixels" in capsys.readouterr().err
    assert main([*fixed, "--image-size", "112", "224", "--max-views", "all"]) == 2
    assert (asked[1].size, asked[1].max_views) == ((112, 224), None)
    assert main([*fixed, "--max-views", "3"]) == 2
    assert (asked[2].size, asked[2].max_views) == (size, 3)


def test_a_dataset_without_images_and_an_unknown_encoder(tmp_path, dataset, capsys):
    fixed = ["--weights", "none", "-o", str(tmp_path)]
    assert main(["--dataset", "synthetic", *fixed]) == 2
    assert "the dataset synthetic has no images; those that do: scannet" in capsys.readouterr().err
    assert main(["--dataset", "scannet", "--encoder", "vit", *fixed]) == 2
    assert "--encoder vit: there is no " in capsys.readouterr().err
