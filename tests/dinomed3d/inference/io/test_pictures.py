"""Models that were trained on PNG, BMP or TIFF: read and written as nnU-Net's readers do."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image
from skimage.io import imread

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.io.image import check_mask, read_case, read_grid, write_mask
from tests.dinomed3d.inference.models.stock_prediction import stock_prediction
from tests.dinomed3d.inference.models.write_model import write_model

RGB = ("red", "green", "blue")


def values(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def cases(folder, channels=("grey",), reader="NaturalImage2DIO"):
    return find_cases(folder, channels=channels, reader=reader)


def run(model, source, out):
    spec = PredictSpec(
        source=str(source), out=str(out), model=str(model), engine="threads", device="cpu"
    )
    return predict(spec, lambda event: None)


def test_colour_images_as_nnunet_predicts_them(tmp_path):
    model = write_model(tmp_path / "m", "2d", channels=RGB, reader="NaturalImage2DIO", turned=False)
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    coarse = Image.fromarray(values((5, 6, 3)))
    file = source / "road_0000.png"
    coarse.resize((40, 30)).save(file)
    assert run(model, source, out).done == ("road",)
    mask, _ = NaturalImage2DIO().read_seg(str(out / "road.png"))
    expected = stock_prediction(model, [file])
    assert mask.shape == (1, 1, 30, 40) and len(np.unique(expected)) > 1
    assert (mask[0] == expected).mean() > 0.999
    assert {path.name for path in out.iterdir()} == {
        *("road.png", "road.preview.png", "road.json", "run.json", "report.html", "report.csv"),
        "labels.ctbl",
    }
    assert "road.preview.png" in json.loads((out / "road.json").read_text())["files"]
    # done is done, and a mask that was corrected by hand is never lost
    edited = (mask[0, 0] == 0).astype(np.uint8)
    Image.fromarray(edited).save(out / "road.png")
    assert run(model, source, out).done == ("road",)
    coarse.resize((40, 31)).save(file)
    assert run(model, source, out).done == ("road",)
    assert np.array_equal(imread(out / "road.edited1.png"), edited)
    assert imread(out / "road.png").shape == (31, 40)


def test_tiff_stacks_with_their_spacing_as_nnunet_predicts_them(tmp_path):
    model = write_model(tmp_path / "m", channels=("a", "b"), reader="Tiff3DIO")
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    files = [source / f"cells_000{i}.tif" for i in range(2)]
    for seed, file in enumerate(files):
        coarse = values((6, 8, 7), np.uint16, seed)
        tifffile.imwrite(file, np.kron(coarse, np.ones((3, 3, 3), np.uint16)))
    (source / "cells.json").write_text('{"spacing": [1.4, 0.9, 1.0]}')
    assert run(model, source, out).done == ("cells",)
    mask, properties = Tiff3DIO().read_seg(str(out / "cells.tif"))
    assert properties["spacing"] == [1.4, 0.9, 1.0]  # from the record, where nnU-Net looks for it
    assert (mask[0] == stock_prediction(model, files)).mean() > 0.999
    assert (out / "cells.png").is_file()
    before = (out / "cells.tif").stat().st_mtime_ns
    assert run(model, source, out).done == ("cells",)
    assert (out / "cells.tif").stat().st_mtime_ns == before
    (source / "cells.json").write_text('{"spacing": [1.4, 0.9, 0.5]}')
    run(model, source, out)
    assert (out / "cells.tif").stat().st_mtime_ns > before


def test_the_spacing_of_a_stack_is_not_that_of_another_case(tmp_path):
    model = write_model(tmp_path / "m", channels=("a",), reader="Tiff3DIO")
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name, spacing in {"p1": [5, 1, 1], "p1_post": [2, 0.5, 0.5], "p1_left": None}.items():
        tifffile.imwrite(source / f"{name}.tif", values((6, 8, 7), np.uint16))
        if spacing is not None:
            (source / f"{name}.json").write_text(json.dumps({"spacing": spacing}))
    assert run(model, source, out).done == ("p1", "p1_left", "p1_post")
    found = {
        name: json.loads((out / f"{name}.json").read_text())
        for name in ("p1", "p1_post", "p1_left")
    }
    assert found["p1"]["spacing"] == [5, 1, 1] and found["p1_post"]["spacing"] == [2, 0.5, 0.5]
    assert (
        found["p1_left"]["spacing"] == [1, 1, 1] and "taken as 1 mm" in found["p1_left"]["notes"][0]
    )


MODES = ("L", "RGB", "RGBA", "P", "1", "I;16")
STORED = [(mode, ending) for mode in MODES for ending in (".png", ".bmp", ".tif")
          if (mode, ending) != ("I;16", ".bmp")]  # fmt: skip
"""Kinds of images, and the formats that can hold them."""


@pytest.mark.parametrize(("mode", "ending"), STORED)
def test_voxels_equal_nnunets(mode, ending, tmp_path):
    stored = values((7, 9), np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(stored)
    file = tmp_path / f"a_0000{ending}"
    (image if mode == "I;16" else image.convert(mode)).save(file)
    expected, _ = NaturalImage2DIO().read_images([str(file)])
    names = [str(i) for i in range(len(expected))]
    (case,) = cases(tmp_path, names).cases
    volume = read_case(case, names)
    assert np.array_equal(np.stack(volume.channels).astype(np.float32), expected)
    assert volume.grid == read_grid(case.scans[0]) and volume.grid.spacing_mm == (999, 1, 1)
    mask = (values((1, 7, 9)) % 3).astype(np.uint8)
    path = tmp_path / f"out{ending}"
    write_mask(mask, volume.grid, path)
    assert np.array_equal(NaturalImage2DIO().read_seg(str(path))[0][0], mask)
    assert check_mask(path, volume.grid) is None
    Image.fromarray(mask[0, :6]).save(path)
    assert "(9, 6)" in str(check_mask(path, volume.grid))


def test_grey_and_colour_images_add_up_to_the_channels(tmp_path):
    Image.fromarray(values((7, 9, 3))).save(tmp_path / "a_0000.png")
    Image.fromarray(values((7, 9))).save(tmp_path / "a_0001.png")
    (case,) = cases(tmp_path, (*RGB, "depth")).cases
    assert len(read_case(case, (*RGB, "depth")).channels) == 4
    with pytest.raises(CaseError, match="needs 3 channels .*2 images have 4"):
        read_case(case, RGB)


def test_other_models_do_not_take_them_for_scans(tmp_path):
    Image.fromarray(values((7, 9))).save(tmp_path / "a.png")
    (tmp_path / "b.nii").write_bytes(b"x")
    assert cases(tmp_path, reader="SimpleITKIO").ids == ["b"]
    assert cases(tmp_path).ids == ["a", "b"]


def broken(folder: Path, kind: str) -> None:
    image = Image.fromarray(values((40, 50)))
    if kind == "cut":
        image.save(folder / "a.png")
        content = (folder / "a.png").read_bytes()
        (folder / "a.png").write_bytes(content[: len(content) // 2])
    elif kind == "another":
        image.save(folder / "a.png", format="GIF")
    elif kind == "moving":
        image.save(folder / "a.png", save_all=True, append_images=[image.rotate(90)])
    elif kind == "empty":
        (folder / "a.png").touch()
    elif kind == "flipped":
        image.save(folder / "a.png")
        content = bytearray((folder / "a.png").read_bytes())
        content[200] ^= 4
        (folder / "a.png").write_bytes(content)
    elif kind == "stack":
        tifffile.imwrite(folder / "a.tif", values((5, 9, 8)))
    elif kind == "cut tiff":
        tifffile.imwrite(folder / "a.tif", values((90, 80)))
        (folder / "a.tif").write_bytes((folder / "a.tif").read_bytes()[:3000])


@pytest.mark.parametrize(
    "kind", ["cut", "another", "moving", "empty", "flipped", "stack", "cut tiff"]
)
def test_damaged_and_other_images_are_refused_by_name(kind, tmp_path):
    broken(tmp_path, kind)
    (case,) = cases(tmp_path).cases
    with pytest.raises(CaseError, match=r"a\.(png|tif): ") as caught:
        read_grid(case.scans[0])
        read_case(case, ("grey",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[1, 2, 3]", '{"spacing": [1, 2]}', '{"spacing": [1, 2, 0]}', '{"spacing": 1}', "{", "[" * 10000]
)  # fmt: skip
def test_a_spacing_that_is_none_is_refused(text, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values((5, 9, 8)))
    (tmp_path / "a.json").write_text(text)
    (case,) = cases(tmp_path, reader="Tiff3DIO").cases
    with pytest.raises(CaseError, match=r"a\.json: "):
        read_grid(case.scans[0])


def test_no_other_file_that_a_tiff_names_is_opened(tmp_path):
    (tmp_path / "in").mkdir()
    options = {"ome": True, "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "in" / "a.ome.tif", values((2, 9, 8)), **options)
    content = (tmp_path / "in" / "a.ome.tif").read_bytes()
    assert b"OME" in content
    tifffile.imwrite(tmp_path / "secret.ome.tif", values((2, 9, 8), seed=1), **options)
    (case,) = cases(tmp_path / "in", reader="Tiff3DIO").cases
    assert np.array_equal(read_case(case, ("grey",)).channels[0], values((2, 9, 8)))
