"""Every kind of task that nnU-Net takes, from raw files to evaluated predictions, planned and trained by us.

nnU-Net's own functions do all of it, as its commands would; only its pools of worker processes, each of
which takes seconds to import nnU-Net, are replaced by a pool that works here and at once.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from skimage import io

from dinomed3d.training.settings.nnunet_plan import NETWORK
from tests import ROOT
from tests.nnunet_here import PoolHere, few_samples, narrow
from tests.planners.nnunet.datasets import RawTask, case_name, draw, write_dataset

DATASET = "Dataset903_Task"
PLANS = "DinoMed3DPlans"
TRAINER = "DinoMed3DTrainer"
SETTINGS = {
    "DINOMED3D_WEIGHTS": "none",
    "DINOMED3D_ENCODER_OVERRIDES": '{"embed_dim": 24, "depth": 2, "num_heads": 2}',
    "DINOMED3D_STAGE1_EPOCHS": "1",
    "DINOMED3D_STAGE2_EPOCHS": "1",
    "DINOMED3D_ITERATIONS_PER_EPOCH": "1",
    "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "1",
}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


class Workspace:
    """nnU-Net's three folders with one dataset, and its steps."""

    def __init__(self, root: Path, task: RawTask) -> None:
        self.root = root
        self.task = task
        self.raw = root / "raw" / DATASET
        self.preprocessed = root / "preprocessed" / DATASET
        self.results = root / "results" / DATASET
        self.width = 4
        """Of the CNN at full resolution; nnU-Net's rule has 32 there."""
        write_dataset(self.raw, task)

    @property
    def plan_file(self) -> Path:
        return self.preprocessed / f"{PLANS}.json"

    def model(self, configuration: str) -> Path:
        return self.results / f"{TRAINER}__{PLANS}__{configuration}"

    def plan(self, memory_gib: float | None = None) -> dict:
        """nnUNetv2_plan_and_preprocess --verify_dataset_integrity --no_pp; returns the plan."""
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (
            extract_fingerprint_dataset,
            plan_experiment_dataset,
        )

        from planners.nnunet import DinoMed3DPlanner

        if not (self.preprocessed / "dataset_fingerprint.json").exists():
            extract_fingerprint_dataset(
                903, few_samples(), num_processes=1, check_dataset_integrity=True
            )
        plan_experiment_dataset(903, narrow(DinoMed3DPlanner, self.width), memory_gib)
        return json.loads(self.plan_file.read_text())

    def preprocess(self, *configurations: str) -> None:
        from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

        preprocess_dataset(903, PLANS, configurations, [1], show_progress_bar=False)

    def train(self, configuration: str, fold: int | str = 0, *, npz: bool = False) -> Path:
        """nnUNetv2_train, with the validation at its end; returns the fold's folder."""
        from nnunetv2.run.run_training import run_training

        run_training(
            "903",
            configuration,
            fold,
            TRAINER,
            PLANS,
            export_validation_probabilities=npz,
            device=torch.device("cpu"),
        )
        return self.model(configuration) / f"fold_{fold}"

    def predict(
        self,
        configuration: str,
        out: str,
        *,
        folds: tuple[int, ...] = (0,),
        earlier: str | None = None,
        npz: bool = False,
    ) -> Path:
        """nnUNetv2_predict of all test cases; returns the folder with the masks."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        (self.root / out).mkdir()
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(self.model(configuration)), folds)
        predictor.predict_from_files_sequential(
            str(self.raw / "imagesTs"),
            str(self.root / out),
            save_probabilities=npz,
            folder_with_segs_from_prev_stage=None if earlier is None else str(self.root / earlier),
        )
        return self.root / out

    def check_masks(self, folder: Path) -> None:
        """A mask for every test case, on its grid, of known labels."""
        task = self.task
        found = sorted(p.name for p in folder.glob(f"*{task.ending}"))
        names = [case_name(task.train + k) for k in range(task.test)]
        assert found == [f"{name}{task.ending}" for name in names]
        for name in names:
            source = self.raw / "imagesTs" / f"{name}_0000{task.ending}"
            mask = read(folder / f"{name}{task.ending}")
            assert_same_grid(mask, read(source))
            assert set(np.unique(mask["array"])) <= {0, *task.classes}

    def check_numbers(self, folder: Path) -> dict:
        """nnUNetv2_evaluate_folder: a Dice of every class, against the labels that were drawn."""
        from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2

        compute_metrics_on_folder2(
            str(self.raw / "labelsTs"),
            str(folder),
            str(self.preprocessed / "dataset.json"),
            str(self.plan_file),
            num_processes=1,
        )
        summary = json.loads((folder / "summary.json").read_text())
        self.check_summary(summary, first=self.task.train, count=self.task.test)
        return summary

    def check_summary(self, summary: dict, *, first: int, count: int) -> None:
        """Numbers of cases whose labels are known: all of them counted, none outside [0, 1]."""
        task = self.task
        foreground = {k: v for k, v in task.labels.items() if k not in ("background", "ignore")}
        groups = [tuple(v) if isinstance(v, list) else (v,) for v in foreground.values()]
        assert len(summary["mean"]) == len(groups)
        drawn = [draw(task, first + k)[1] for k in range(count)]
        for group in groups:
            # a region of several labels is written as a tuple
            key = str(group if len(group) > 1 else group[0])
            numbers = summary["mean"][key]
            assert 0 <= numbers["Dice"] <= 1
            assert numbers["n_ref"] == np.mean([np.isin(labels, group).sum() for labels in drawn])
        known = [(labels != task.ignored).sum() for labels in drawn]
        for case in summary["metric_per_case"]:
            for numbers in case["metrics"].values():
                assert sum(numbers[k] for k in ("TP", "FP", "FN", "TN")) in known
        assert 0 <= summary["foreground_mean"]["Dice"] <= 1


def read(path: Path) -> dict[str, Any]:
    """A picture or volume and its grid."""
    if path.suffix in (".png", ".tif", ".bmp"):
        return {"array": io.imread(path), "shape": io.imread(path).shape[:2]}
    if path.suffix == ".tiff":
        spacing = path.with_name(path.name.replace("_0000", "")).with_suffix(".json")
        array = tifffile.imread(path)
        return {"array": array, "shape": array.shape} | json.loads(spacing.read_text())
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    return {
        "array": array,
        "shape": array.shape,
        "spacing": image.GetSpacing(),
        "origin": image.GetOrigin(),
        "direction": image.GetDirection(),
    }


def assert_same_grid(mask: dict[str, Any], image: dict[str, Any]) -> None:
    assert mask["shape"] == image["shape"]
    for key in image.keys() - {"array", "shape"}:
        assert mask[key] == pytest.approx(image[key], abs=1e-5), key


MakeWorkspace = Callable[[RawTask], Workspace]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWorkspace:
    """Makes nnU-Net's folders and a dataset in them; settings are for tiny, short training."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    shims = ROOT / "dinomed3d" / "shims"
    monkeypatch.setenv("nnUNet_extTrainer", str(shims))  # where the package itself is not installed
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    here = SimpleNamespace(Pool=PoolHere)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: here)
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", PoolHere)
    # nnU-Net asks for as many threads as it has workers: none here, and eight where it exports
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(
        LocalLogger,
        "plot_progress_png",
        lambda self, folder: (Path(folder) / "progress.png").touch(),  # the picture takes 3 s
    )
    torch.manual_seed(0)
    np.random.seed(0)
    return lambda task: Workspace(tmp_path, task)


BRATS = ("T1", "T1ce", "T2", "FLAIR")
TASKS: dict[str, tuple[str, RawTask, dict[str, Any]]] = {
    # what it is: configuration, task, what the plan must say
    "MR, slices 10 times as thick": (
        "3d_fullres",
        RawTask(shapes=((6, 40, 34),), spacing_mm=(8.0, 0.8, 0.8)),
        {"normalization_schemes": ["ZScoreNormalization"], "image_reader_writer": "SimpleITKIO"},
    ),
    "MR, 2d": ("2d", RawTask(), {"normalization_schemes": ["ZScoreNormalization"]}),
    "CT, isotropic": (
        "3d_fullres",
        RawTask(shapes=((22, 26, 30),), spacing_mm=(1.5, 1.5, 1.5), channels=("CT",)),
        {"normalization_schemes": ["CTNormalization"]},
    ),
    "CT, 2d": ("2d", RawTask(channels=("CT",)), {"normalization_schemes": ["CTNormalization"]}),
    "four channels and regions": (
        "3d_fullres",
        RawTask(channels=BRATS, labels=REGIONS, regions_class_order=(1, 2, 3)),
        {"normalization_schemes": ["ZScoreNormalization"] * 4},
    ),
    "four channels and regions, 2d": (
        "2d",
        RawTask(channels=BRATS, labels=REGIONS, regions_class_order=(1, 2, 3)),
        {"normalization_schemes": ["ZScoreNormalization"] * 4},
    ),
    "slices along x, zeros around, two sizes": (
        "3d_fullres",
        RawTask(
            shapes=((44, 48, 7), (40, 46, 9)), spacing_mm=(1.0, 1.1, 5.0), frame=(5, 6, 0), test=2
        ),
        {"transpose_forward": [2, 0, 1], "use_mask_for_norm": [True]},
    ),
    "slices along y, 2d": (
        "2d",
        RawTask(shapes=((30, 6, 34),), spacing_mm=(1.0, 4.0, 1.0)),
        {"transpose_forward": [1, 0, 2]},
    ),
    "smaller than a patch": ("3d_fullres", RawTask(shapes=((5, 11, 9),)), {}),
    "smaller than a patch, 2d": ("2d", RawTask(shapes=((5, 11, 9),)), {}),
    "hardly a token": ("3d_fullres", RawTask(shapes=((3, 6, 5),)), {}),
    "hardly a token, 2d": ("2d", RawTask(shapes=((3, 6, 5),)), {}),
    "one slice": ("2d", RawTask(shapes=((1, 40, 36),)), {"configurations": {"2d"}}),
    "files of two dimensions": (
        "2d",
        RawTask(shapes=((1, 40, 36),), ending=".mha"),
        {"configurations": {"2d"}, "image_reader_writer": "SimpleITKIO"},
    ),
    "far larger than a patch": ("3d_fullres", RawTask(shapes=((12, 40, 40), (3, 80, 60))), {}),
    "png in colour": (
        "2d",
        RawTask(shapes=((1, 40, 36), (1, 52, 30)), channels=("R", "G", "B"), ending=".png", test=2),
        {"configurations": {"2d"}, "image_reader_writer": "NaturalImage2DIO"},
    ),
    "bmp in grey": (
        "2d",
        RawTask(shapes=((1, 40, 36),), channels=("noNorm",), ending=".bmp"),
        {"configurations": {"2d"}, "normalization_schemes": ["NoNormalization"]},
    ),
    "tif, a file for each channel": (
        "2d",
        RawTask(shapes=((1, 40, 36),), channels=("red", "infrared"), ending=".tif"),
        {"configurations": {"2d"}, "image_reader_writer": "NaturalImage2DIO"},
    ),
    "tiff volume with its spacing": (
        "3d_fullres",
        RawTask(spacing_mm=(4.0, 1.0, 1.0), ending=".tiff"),
        {"image_reader_writer": "Tiff3DIO", "spacing": [4.0, 1.0, 1.0]},
    ),
    "nrrd": ("3d_fullres", RawTask(ending=".nrrd"), {"image_reader_writer": "SimpleITKIO"}),
    "nifti, turned upright by nibabel": (
        "3d_fullres",
        RawTask(reader="NibabelIOWithReorient"),
        {"image_reader_writer": "NibabelIOWithReorient"},
    ),
    "ignore label": (
        "3d_fullres",
        RawTask(labels={"background": 0, "organ": 1, "core": 2, "ignore": 3}),
        {},
    ),
    "ignore label, 2d": (
        "2d",
        RawTask(labels={"background": 0, "organ": 1, "core": 2, "ignore": 3}),
        {},
    ),
    "ignore label and regions": (
        "3d_fullres",
        RawTask(labels=REGIONS | {"ignore": 4}, regions_class_order=(1, 2, 3)),
        {},
    ),
    "cases without foreground": ("3d_fullres", RawTask(empty=(1, 3, 4)), {}),
    "ten labels": (
        "3d_fullres",
        RawTask(
            shapes=((12, 60, 60),),
            labels={"background": 0} | {f"part {label}": label for label in range(1, 11)},
        ),
        {},
    ),
    "label files of floating point": ("3d_fullres", RawTask(label_type=np.float32), {}),
    "label files of 64 bits": ("3d_fullres", RawTask(label_type=np.int64), {}),
}


QUICK = ("CT, 2d", "slices along x, zeros around, two sizes", "png in colour", "ignore label")
MIRRORED = ("four channels and regions", "four channels and regions, 2d")
"""Tasks of three and of two dimensions whose windows are also predicted mirrored, as is nnU-Net's default."""


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TASKS]
)
def test_from_raw_files_to_evaluated_masks(
    workspace: MakeWorkspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    configuration, task, facts = TASKS[name]
    if name not in MIRRORED:
        without_mirroring(monkeypatch)
    w = workspace(task)
    plan = w.plan()
    planned = plan["configurations"][configuration]
    assert planned["architecture"]["network_class_name"] == NETWORK
    found = plan | planned | {"configurations": set(plan["configurations"])}
    assert {key: found[key] for key in facts} == facts
    w.preprocess(configuration)
    fold = w.train(configuration)
    validated = json.loads((fold / "validation" / "summary.json").read_text())
    assert 0 <= validated["foreground_mean"]["Dice"] <= 1
    masks = w.predict(configuration, "masks")
    w.check_masks(masks)
    w.check_numbers(masks)


LEARNT = {
    # width of the CNN, iterations in each of two epochs, and the Dice that every class must pass after them
    "slices along x, zeros around, two sizes": (12, 30, 0.8),
    "png in colour": (12, 60, 0.8),
    "ignore label, 2d": (12, 100, 0.7),
    "four channels and regions, 2d": (32, 100, 0.6),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "iterations", "dice"), [(k, *v) for k, v in LEARNT.items()]
)
def test_what_is_learnt_lies_where_it_was_drawn(
    workspace: MakeWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    width: int,
    iterations: int,
    dice: float,
) -> None:
    """A mask that is turned, shifted or mixed up on its way back to the input's grid has a low Dice."""
    monkeypatch.setenv("DINOMED3D_ITERATIONS_PER_EPOCH", str(iterations))
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    monkeypatch.setenv("DINOMED3D_STAGE2_EPOCHS", "2")
    without_mirroring(monkeypatch)
    configuration, task, _ = TASKS[name]
    w = workspace(task)
    w.width = width
    w.plan()
    w.preprocess(configuration)
    w.train(configuration)
    summary = w.check_numbers(w.predict(configuration, "masks"))
    found = {key: numbers["Dice"] for key, numbers in summary["mean"].items()}
    assert min(found.values()) > dice, found


def in_two(cases: int) -> list[dict[str, list[str]]]:
    """Two folds as a user may write them; each case is validated once."""
    names = [case_name(index) for index in range(cases)]
    first, second = names[: cases // 2], names[cases // 2 :]
    return [{"train": first, "val": second}, {"train": second, "val": first}]


def stages_of_the_user(w: Workspace) -> None:
    """Both stages written into a plan that had none, the first at half the resolution."""
    plan = w.plan()
    found = plan["configurations"]
    full = found["3d_fullres"]
    full["patch_size"] = [6, 32, 32]
    half = {"data_identifier": f"{PLANS}_3d_lowres", "next_stage": "3d_cascade_fullres"}
    thickness, height, width = full["spacing"]
    found["3d_lowres"] = full | half | {"spacing": [thickness, 2 * height, 2 * width]}
    found["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    w.plan_file.write_text(json.dumps(plan))


def without_mirroring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict every window once instead of eight times, in the validation too."""
    monkeypatch.setattr(
        "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor._internal_maybe_mirror_and_predict",
        lambda self, window: self.network(window),
    )


def test_cascade(workspace: MakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the user wrote into the plan; which volumes get one is tested in test_nnunet."""
    task = RawTask(
        shapes=((6, 48, 40),),
        channels=("CT",),
        labels=REGIONS,
        regions_class_order=(1, 2, 3),
        train=4,
    )
    without_mirroring(monkeypatch)
    w = workspace(task)
    (w.raw / "splits_final.json").write_text(json.dumps(in_two(task.train)))
    stages_of_the_user(w)
    w.preprocess("3d_lowres", "3d_fullres")
    for fold in (0, 1):
        w.train("3d_lowres", fold)
    handed_on = w.model("3d_lowres") / "predicted_next_stage" / "3d_cascade_fullres"
    assert sorted(p.stem for p in handed_on.iterdir()) == [case_name(k) for k in range(task.train)]
    fold_0 = w.train("3d_cascade_fullres")
    content = torch.load(fold_0 / "checkpoint_final.pth", weights_only=True)
    assert content["dinomed3d"]["spec"]["cascade_channels"] == len(task.classes)
    with pytest.raises(AssertionError, match="requires the segmentations of the previous stage"):
        w.predict("3d_cascade_fullres", "alone")
    w.check_masks(w.predict("3d_lowres", "coarse", folds=(0, 1)))
    masks = w.predict("3d_cascade_fullres", "masks", earlier="coarse", npz=True)
    w.check_masks(masks)
    w.check_numbers(masks)
    given = w.predict("3d_cascade_fullres", "given", earlier=f"raw/{DATASET}/labelsTs", npz=True)
    name = f"{case_name(task.train)}.npz"
    coarse, true = (np.load(folder / name)["probabilities"] for folder in (masks, given))
    assert not np.allclose(coarse, true)  # the second configuration of the cascade reads the first


def test_folds_of_the_user(workspace: MakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.run.run_training import get_trainer_from_args

    without_mirroring(monkeypatch)
    w = workspace(RawTask())
    w.plan()
    w.preprocess("3d_fullres")
    mine = [{"train": ["case_03", "case_01"], "val": ["case_04", "case_00"]}]
    (w.preprocessed / "splits_final.json").write_text(json.dumps(mine))
    fold = w.train("3d_fullres")
    validated = {path.name for path in (fold / "validation").glob("*.nii.gz")}
    assert validated == {"case_00.nii.gz", "case_04.nii.gz"}
    arguments = ("903", "3d_fullres", 0, TRAINER, PLANS)
    trainer = get_trainer_from_args(*arguments, device=torch.device("cpu"))
    trainer.initialize()
    training, _ = trainer.get_tr_and_val_datasets()
    assert sorted(training.identifiers) == ["case_01", "case_03"]
    everything = w.train("3d_fullres", "all")
    assert len(list((everything / "validation").glob("*.nii.gz"))) == 5


def spoil_label(w: Workspace, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = w.raw / "labelsTr" / "case_02.nii.gz"
    image = sitk.ReadImage(str(path))
    spoilt = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    spoilt.SetSpacing(image.GetSpacing())
    sitk.WriteImage(spoilt, str(path))


@pytest.mark.parametrize(
    ("labels", "spoil", "message"),
    [
        ({"organ": 1, "core": 3}, None, "Labels must be in consecutive order"),
        ({"ignore": 1, "organ": 2}, None, "ignore label it must have the highest"),
        ({"organ": 1}, lambda labels: labels * 7, "contained unexpected labels"),
        ({"organ": 1}, lambda labels: labels * np.float32(0.5), "contained unexpected labels"),
        ({"organ": 1}, lambda labels: labels[:-1], "Some images have errors"),
    ],
    ids=["gap in labels", "ignore label amid", "unknown label", "half a label", "other shape"],
)
def test_what_nnunet_rejects_is_never_planned(
    workspace: MakeWorkspace, labels: dict[str, int], spoil: Callable | None, message: str
) -> None:
    w = workspace(RawTask(labels={"background": 0} | labels))
    if spoil is not None:
        spoil_label(w, spoil)
    with pytest.raises((AssertionError, RuntimeError), match=message):
        w.plan()
    assert not w.plan_file.exists()


def no_network(*arguments: object) -> None:
    raise OSError("no network here")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # nnU-Net's instructions
def test_best_of_two_and_both_together_and_shared(
    workspace: MakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.ensembling.ensemble import ensemble_folders
    from nnunetv2.evaluation.find_best_configuration import (
        dumb_trainer_config_plans_to_trained_models_dict,
        find_best_configuration,
    )
    from nnunetv2.model_sharing.model_export import export_pretrained_model
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file
    from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder
    from nnunetv2.utilities.file_path_utilities import load_pickle

    both = ("2d", "3d_fullres")
    without_mirroring(monkeypatch)
    w = workspace(RawTask(train=4, test=1))
    w.plan()
    w.preprocess(*both)
    (w.preprocessed / "splits_final.json").write_text(json.dumps(in_two(4)))
    for configuration in both:
        for fold in (0, 1):
            w.train(configuration, fold, npz=True)

    models = dumb_trainer_config_plans_to_trained_models_dict([TRAINER], list(both), [PLANS])
    best = find_best_configuration(903, models, num_processes=1, folds=(0, 1))
    two, three = (w.model(configuration).name for configuration in both)
    ensemble = f"ensemble___{two}___{three}___0_1"
    assert set(best["all_results"]) == {two, three, ensemble}
    assert best["best_model_or_ensemble"]["result_on_crossval_pre_pp"] == max(
        best["all_results"].values()
    )
    sources = [w.model(c) / "crossval_results_folds_0_1" for c in both]
    for source in (*sources, w.results / "ensembles" / ensemble):
        w.check_summary(json.loads((source / "summary.json").read_text()), first=0, count=4)
    assert TRAINER in (w.results / "inference_instructions.txt").read_text()

    folders = [w.predict(c, f"masks_{c}", folds=(0, 1), npz=True) for c in both]
    together, cleaned = w.root / "together", w.root / "cleaned"
    ensemble_folders([str(f) for f in folders], str(together), num_processes=1)
    w.check_masks(together)
    mean = np.mean([np.load(f / "case_04.npz")["probabilities"] for f in folders], 0)
    assert np.array_equal(read(together / "case_04.nii.gz")["array"], mean.argmax(0))
    chosen = load_pickle(best["best_model_or_ensemble"]["postprocessing_file"])
    plan_and_data = (str(folders[0] / "plans.json"), str(folders[0] / "dataset.json"))
    apply_postprocessing_to_folder(str(together), str(cleaned), *chosen, *plan_and_data, 1)
    w.check_masks(cleaned)
    w.check_numbers(cleaned)

    archive = w.root / "models.zip"
    export_pretrained_model(903, str(archive), both, TRAINER, PLANS, folds=(0, 1))
    for name in (*SETTINGS, "nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("socket.socket.connect", no_network)
    (w.root / "elsewhere").mkdir()
    monkeypatch.setenv("nnUNet_results", str(w.root / "elsewhere"))
    w.results = w.root / "elsewhere" / DATASET
    install_model_from_zip_file(str(archive))
    for configuration, before in zip(both, folders, strict=True):
        after = w.predict(configuration, f"again_{configuration}", folds=(0, 1))
        w.check_masks(after)
        name = "case_04.nii.gz"
        assert np.array_equal(read(after / name)["array"], read(before / name)["array"])


def test_preprocessed_once_for_nnunet_and_for_us(workspace: MakeWorkspace) -> None:
    """nnU-Net's trainer and ours read the same data, and either plan's preprocessing writes the same voxels."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        plan_experiment_dataset,
        preprocess_dataset,
    )
    from nnunetv2.run.run_training import get_trainer_from_args

    w = workspace(RawTask(channels=("CT",)))
    w.plan()
    plan_experiment_dataset(903, ExperimentPlanner)

    def voxels(*model: str) -> dict[str, list]:
        t = get_trainer_from_args("903", "3d_fullres", 0, *model, device=torch.device("cpu"))
        t.initialize()
        training, validation = t.get_tr_and_val_datasets()
        # ours are wrapped, for neighbours of the end slices
        datasets = [getattr(d, "cases", d) for d in (training, validation)]
        cases = {name: d.load_case(name) for d in datasets for name in d.identifiers}
        assert len(cases) == w.task.train and next(t.get_dataloaders()[0])["data"].isfinite().all()
        return {name: [data[:], labels[:]] for name, (data, labels, _, _) in cases.items()}

    def same(a: dict[str, list], b: dict[str, list]) -> bool:
        return all(np.array_equal(x, y) for n in a for x, y in zip(a[n], b[n], strict=True))

    preprocess_dataset(903, "nnUNetPlans", ("3d_fullres",), [1], show_progress_bar=False)
    theirs = voxels("nnUNetTrainer", "nnUNetPlans")
    assert same(theirs, voxels(TRAINER, PLANS))
    w.preprocess("3d_fullres")  # replaces the folder
    assert same(theirs, voxels(TRAINER, PLANS))
    assert [p.name for p in w.preprocessed.glob("*_3d_fullres")] == ["nnUNetPlans_3d_fullres"]
