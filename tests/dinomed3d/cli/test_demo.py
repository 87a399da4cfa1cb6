"""The demo's parts; the whole of it is what .ci/run executes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from dinomed3d.cli import main as main_module
from dinomed3d.cli.demo_steps import (
    DemoResult,
    DemoSpec,
    prepare_folder,
    read_dice,
    read_miou,
    run_demo,
)
from dinomed3d.cli.nnunet_commands import NnUNetCommands
from dinomed3d.cli.overlay import OverlayCase, draw_overlay
from dinomed3d.cli.phantom import LABELS, PhantomSpec, phantom_case, write_phantom
from dinomed3d.runtime.errors import UserError


def test_phantom_depends_on_seed_and_case_only() -> None:
    image, labels = phantom_case(PhantomSpec(seed=3), 2)
    again, same = phantom_case(PhantomSpec(seed=3, training_cases=7), 2)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(image, phantom_case(PhantomSpec(seed=4), 2)[0])
    assert not np.array_equal(image, phantom_case(PhantomSpec(seed=3), 3)[0])


@pytest.mark.parametrize("index", range(16))
def test_phantom_has_every_structure_in_every_case(index: int) -> None:
    image, labels = phantom_case(PhantomSpec(), index)
    assert image.shape == labels.shape == (16, 64, 64)
    voxels = np.bincount(labels.ravel(), minlength=4)
    assert len(voxels) == len(LABELS)
    assert voxels[1:].min() > 200
    assert 0.8 < voxels[0] / labels.size < 0.97
    assert (labels == LABELS["vessel"]).any((1, 2)).all(), "the tube runs through every slice"


def best_band(image: np.ndarray, mask: np.ndarray) -> float:
    """Dice of the range of brightness that tells a label best."""
    edges = np.arange(0, 240, 4)
    inside, everywhere = (
        np.concatenate([[0], np.histogram(values, edges)[0].cumsum()])
        for values in (image[mask], image)
    )
    hits = inside[None] - inside[:, None]  # (from, to)
    size = everywhere[None] - everywhere[:, None]
    return float((2 * hits / np.maximum(1, size + mask.sum())).max())


@pytest.mark.parametrize("index", [0, 5, 10, 15])
def test_labels_cannot_be_read_off_the_brightness(index: int) -> None:
    image, labels = phantom_case(PhantomSpec(), index)
    assert best_band(image, labels == LABELS["organ"]) < 0.75
    assert best_band(image, labels == LABELS["wall"]) < 0.75


@pytest.mark.parametrize("index", range(16))
def test_what_has_no_label_is_darker_than_the_vessel(index: int) -> None:
    """What is as bright is learned too late for a demonstration: a ball was called vessel in every case."""
    image, labels = phantom_case(PhantomSpec(), index)
    vessel = np.percentile(image[labels == LABELS["vessel"]], 10)
    assert (image[labels == 0] > vessel).sum() < 20


def test_wall_is_thin() -> None:
    _, labels = phantom_case(PhantomSpec(), 0)
    wall = labels[8] == LABELS["wall"]
    row = wall[int(np.flatnonzero(wall.any(1)).mean())].astype(int)  # through the middle
    starts, ends = np.flatnonzero(np.diff(row) == 1), np.flatnonzero(np.diff(row) == -1)
    assert len(starts) == 2, "left and right of the cavity"
    assert (ends - starts).max() <= 4  # voxels of 1 mm


def test_phantom_is_written_as_nnunet_expects(tmp_path: Path) -> None:
    spec = PhantomSpec(training_cases=5, test_cases=1, shape_zyx=(8, 16, 20))
    folder = tmp_path / "Dataset900_Phantom"
    assert write_phantom(folder, spec) == ["phantom_005"]
    assert len(list((folder / "imagesTr").iterdir())) == 5
    image = sitk.ReadImage(str(folder / "imagesTs" / "phantom_005_0000.nii.gz"))
    labels = sitk.ReadImage(str(folder / "labelsTs" / "phantom_005.nii.gz"))
    assert image.GetSpacing() == labels.GetSpacing() == (1.0, 1.0, 3.0)
    assert image.GetSize() == labels.GetSize() == (20, 16, 8)
    expected = phantom_case(spec, 5)
    assert np.array_equal(sitk.GetArrayFromImage(image), expected[0])
    assert np.array_equal(sitk.GetArrayFromImage(labels), expected[1])
    description = json.loads((folder / "dataset.json").read_text())
    assert description["numTraining"] == 5
    assert description["labels"] == LABELS
    with pytest.raises(UserError, match="exists already"):
        write_phantom(folder, spec)


def overlay_case() -> OverlayCase:
    truth = np.zeros((3, 4, 5), np.uint8)
    truth[0, 0, 0] = 1
    truth[2, 1:3, 1:3] = 2
    image = np.arange(60, dtype=float).reshape(3, 4, 5)
    return OverlayCase(name="case", image=image, truth=truth, prediction=np.zeros_like(truth))


def test_overlay_shows_the_slice_with_most_foreground(tmp_path: Path) -> None:
    case = overlay_case()
    assert case.slice_index == 2
    empty = OverlayCase(
        name="empty", image=case.image, truth=case.prediction, prediction=case.truth
    )
    assert empty.slice_index == 1
    picture = tmp_path / "overlay.png"
    draw_overlay(picture, [case, empty], labels={"background": 0, "one": 1, "two": 2})
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 5000


def test_overlay_shows_labels_in_their_colours_and_leaves_background_clear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from matplotlib.axes import Axes

    shown: list[tuple[Any, dict[str, Any]]] = []
    draw = Axes.imshow

    def imshow(axis: Axes, values: Any, **style: Any) -> Any:
        shown.append((values, style))
        return draw(axis, values, **style)

    monkeypatch.setattr(Axes, "imshow", imshow)
    draw_overlay(tmp_path / "x.png", [overlay_case()], labels={"none": 0, "one": 1, "two": 2})
    truth, style = shown[2]
    assert truth.mask.tolist() == (overlay_case().truth[2] == 0).tolist()
    scaled = (2 - style["vmin"]) / (style["vmax"] - style["vmin"])
    assert style["cmap"](scaled) == style["cmap"](1)


def test_errors_are_voxels_of_either_mask_that_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    truth = np.array([[[0, 1, 1], [2, 2, 0]]], np.uint8)
    prediction = np.array([[[0, 1, 2], [2, 0, 3]]], np.uint8)
    case = OverlayCase(name="x", image=truth, truth=truth, prediction=prediction)
    marks, share = case.errors()
    assert marks.tolist() == [[0, 1, 2], [1, 2, 2]]
    assert share == 3 / 5
    empty = OverlayCase(name="x", image=truth, truth=truth * 0, prediction=truth * 0)
    assert empty.errors()[1] == 0 and not empty.errors()[0].any()

    from matplotlib.axes import Axes

    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda axis, text, **style: titles.append(text))
    draw_overlay(tmp_path / "x.png", [case], labels={"none": 0, "one": 1, "two": 2, "three": 3})
    assert titles == ["x, slice 0", "truth", "prediction", "errors: 60.0% of structures"]


def test_folder_is_made_and_marked(tmp_path: Path) -> None:
    out = prepare_folder(tmp_path / "new" / "demo", overwrite=False)
    assert out.is_absolute()
    assert {"nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"} <= {
        p.name for p in out.iterdir()
    }


def test_earlier_demo_is_replaced_only_when_told_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    out = prepare_folder(tmp_path, overwrite=False)
    (out / "nnUNet_results" / "old.pth").write_text("old")
    (out / "notes.txt").write_text("the user's")
    with pytest.raises(UserError, match="--overwrite"):
        prepare_folder(tmp_path, overwrite=False)
    prepare_folder(tmp_path, overwrite=True)
    assert not (out / "nnUNet_results" / "old.pth").exists()
    assert (out / "notes.txt").read_text() == "the user's"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_a_demo_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "nnUNet_results").mkdir()
    with pytest.raises(UserError, match="holds no earlier demo"):
        prepare_folder(tmp_path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["nnUNet_results"]


def test_report_lists_dice_and_paths(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    dice = {"1": {"Dice": 0.9}, "2": {"Dice": 0.8}, "3": {"Dice": 0.7}}
    summary.write_text(json.dumps({"mean": dice}))
    assert read_dice(summary) == {"organ": 0.9, "vessel": 0.8, "wall": 0.7}
    result = DemoResult(
        dice=read_dice(summary),
        masks=(tmp_path / "a.nii.gz",),
        overlay=tmp_path / "overlay.png",
        room_miou=0.25,
        room=tmp_path / "room.png",
        report_page=tmp_path / "report.html",
        seconds=61.4,
    )
    assert result.report().splitlines() == [
        "1 unseen test cases, 61 s",
        "",
        "label    Dice",
        "organ   0.900",
        "vessel  0.800",
        "wall    0.700",
        "mean    0.800",
        "",
        "masks:",
        f"  {tmp_path / 'a.nii.gz'}",
        f"overlay: {tmp_path / 'overlay.png'}",
        "",
        "point clouds of rooms: val_voxel_miou 0.250",
        f"room: {tmp_path / 'room.png'}",
        "",
        f"report of the prediction, for a browser: {tmp_path / 'report.html'}",
    ]


def test_steps_are_counted_and_the_report_is_that_of_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that only leave what the demo reads of theirs."""
    ran: list[tuple[str, list[str]]] = []

    def run(commands: NnUNetCommands, command: str, words: Sequence[str], **more: Any) -> float:
        ran.append((command, list(words)))
        if command == "dinomed3d":
            values = dict(zip(words[1::2], words[2::2], strict=True))
            shutil.copytree(Path(values["-i"]).parent / "labelsTs", values["-o"])
            more["watch"]("[1/2] phantom_005: 1.0 s, about 1 s left")
        if command == "nnUNetv2_evaluate_simple":
            dice = {str(v): {"Dice": 1.0} for v in LABELS.values()}
            Path(words[words.index("-o") + 1]).write_text(json.dumps({"mean": dice}))
        if command == "pointseg-train":
            rooms = Path(words[words.index("--out") + 1])
            (rooms / "pictures").mkdir(parents=True)
            (rooms / "pictures" / "room.png").touch()
            (rooms / "metrics.csv").write_text("step,val_voxel_miou\n5,0.5\n")
        return 1.0

    monkeypatch.setattr(NnUNetCommands, "run", run)
    phantom = PhantomSpec(training_cases=5, test_cases=2, shape_zyx=(8, 16, 20))
    result = run_demo(DemoSpec(out=tmp_path / "demo", device="cpu", phantom=phantom))
    said = capsys.readouterr().err.splitlines()
    assert [line[:5] for line in said if line[0] == "["] == [f"[{k}/6]" for k in range(1, 7)]
    assert "  [1/2] phantom_005: 1.0 s, about 1 s left" in said
    (words,) = (words for command, words in ran if command == "dinomed3d")
    asked = main_module._parser().parse_args(words)
    assert asked.verb == "predict" and asked.device == "cpu" and asked.folds == ["0"]
    assert result.report_page == Path(asked.out) / "report.html"
    assert result.report().splitlines()[-1].endswith(str(result.report_page))
    assert all(mask.is_file() for mask in (*result.masks, result.overlay))


def test_miou_is_the_last_one(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,loss,val_voxel_miou\n5,1.0,0.1\n10,0.9,0.2\n11,0.9,\n")
    assert read_miou(metrics) == 0.2
