"""nnU-Net's postprocessing: read from its own files without running anything, and equal to its own, voxel by voxel."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.postprocessing.remove_connected_components import (
    apply_postprocessing,
    remove_all_but_largest_component_from_segmentation,
)

import dinomed3d
from dinomed3d.inference.cohort.events import CasesFound
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import open_model
from dinomed3d.inference.models.model_files import open_model_files
from dinomed3d.inference.models.package import package_model
from dinomed3d.inference.models.postprocessing import (
    file_steps,
    model_steps,
    postprocessing_files,
    read_steps,
)
from dinomed3d.inference.nnunet.postprocess import keep_largest
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model

KEEP = remove_all_but_largest_component_from_segmentation
ARGUMENTS = [[np.int64(1), np.int64(2)], (1, 2), 2, [np.int64(1), (2, 3)], np.int64(3)]
"""As `determine_postprocessing` passes them: labels as numpy's numbers, regions as tuples."""


def write_files(folder: Path, arguments=ARGUMENTS) -> tuple[Path, Path]:
    """As `determine_postprocessing` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    kwargs = [{"labels_or_regions": a} for a in arguments]
    (folder / "postprocessing.pkl").write_bytes(pickle.dumps(([KEEP] * len(kwargs), kwargs)))
    content = {"input_folder": {}, "postprocessing_fns": [KEEP.__name__] * len(kwargs)}
    content["postprocessing_kwargs"] = kwargs
    text = json.dumps(content, default=int)  # tuples become lists, as in nnU-Net's
    (folder / "postprocessing.json").write_text(text, encoding="utf-8")
    return folder / "postprocessing.pkl", folder / "postprocessing.json"


def test_pickle_and_json_say_the_same(tmp_path):
    for path in write_files(tmp_path):
        assert file_steps(path) == ((1, 2), (1, 2), (2,), (1, 2, 3), (3,))
    pkl, text = write_files(tmp_path, [])
    assert file_steps(pkl) == ()
    text.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(UserError, match="too large"):
        file_steps(text)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (([Evil()], [{}]), "mkdir"),
        (([len], [{"labels_or_regions": 1}]), "len"),
        (([apply_postprocessing], [{"labels_or_regions": 1}]), "apply_postprocessing"),
        (([KEEP], [{"labels_or_regions": 1, "background_label": 2}]), "other arguments"),
        (([KEEP], [{"labels_or_regions": "1"}]), "labels and regions"),
        (([KEEP], [{"labels_or_regions": [0]}]), "labels and regions"),
        (([KEEP], [{"labels_or_regions": [[[1]]]}]), "labels and regions"),
        (([KEEP], []), "as nnU-Net writes it"),
        ("text", "no postprocessing"),
    ],
)
def test_nothing_else_is_read_or_run(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        read_steps(pickle.dumps(content), "x.pkl")
    whole = pickle.dumps(([KEEP], [{"labels_or_regions": 1}]))
    for damaged in (b"", whole[:-9], b"\x80\x04r\xff\xff\xff\xff."):  # the last: an index of 32 GiB
        with pytest.raises(UserError, match=r"x.pkl"):
            read_steps(damaged, "x.pkl")
    assert not list(tmp_path.iterdir())
    foreign = pickle.dumps(([KEEP], [{"labels_or_regions": 1}]), 0).replace(
        b"nnunetv2.", b"another."
    )
    with pytest.raises(UserError, match="another.*, which is not run"):
        read_steps(foreign, "x.pkl")
    with pytest.raises(UserError, match="is not run"):
        read_steps(b'{"postprocessing_fns": ["os.mkdir"], "postprocessing_kwargs": [{}]}', "x.json")


def test_masks_equal_those_of_nnunet():
    rng = np.random.default_rng(0)
    for density in (0.1, 0.2, 0.4):
        mask = rng.integers(1, 4, (9, 14, 12)) * (rng.random((9, 14, 12)) < density)
        mask[4, 4:8, 4:8] = 2
        for values in ([1], [2], [1, 2], [1, 2, 3]):
            found = mask.astype(np.uint8)
            removed = keep_largest(found, values)
            expected = apply_postprocessing(mask, [KEEP], [{"labels_or_regions": values}])
            assert np.array_equal(found, expected) and removed == (expected != mask).sum()
    two = np.zeros((1, 5, 9), np.uint16)  # of two largest both stay, corners connect
    two[0, 0, 0] = two[0, 1, 1] = two[0, 4, 7] = two[0, 3, 8] = 300
    two[0, 2, 5] = 300
    assert keep_largest(two, [300]) == 1 and two[0, 2, 5] == 0
    assert keep_largest(np.zeros((2, 2, 2), np.uint8), [1]) == 0


def test_which_file_of_a_model_is_meant(tmp_path):
    model = write_model(tmp_path, folds=("0", "1"))
    assert open_model(model).postprocessing is None
    with pytest.raises(UserError, match="has none"):
        model_steps(model, None)
    pkl, _ = write_files(model / "crossval_results_folds_0", [1])
    pkl.write_bytes(b"")  # the JSON is read
    assert model_steps(model, None) == ((1,),)
    pkl, text = write_files(model / "crossval_results_folds_0_1", [2])
    text.unlink()
    assert model_steps(model, None) == ((2,),) and model_steps(model, ("0",)) == ((1,),)
    assert open_model(model).postprocessing == "crossval_results_folds_0_1/postprocessing.pkl"
    with pytest.raises(UserError, match="several"):
        model_steps(model, ("1",))
    assert len(postprocessing_files(open_model_files(model), ("1",))) == 2
    before = open_model(model).hash
    write_files(model, [1, 2])
    assert model_steps(model, ("1",)) == ((1,), (2,)) and open_model(model).hash == before
    packed = package_model(model, tmp_path / "m.zip")
    assert model_steps(packed, None) == ((1,), (2,)) and open_model(packed).hash == before


def test_a_run_applies_it_where_it_is_asked_for(tmp_path):
    model = write_model(tmp_path, mirroring=None)
    write_files(model / "crossval_results_folds_0", [[1, 2], 2])
    scan = write_scan(tmp_path / "in" / "scan.nii.gz")
    spec = PredictSpec(
        source=str(scan), out=str(tmp_path / "out"), model=str(model), engine="threads", device="cpu",
        step_size=1.0,
    )  # fmt: skip
    events = []
    assert predict(spec, events.append).done
    assert isinstance(events[0], CasesFound) and "--postprocessing" in str(events[0].hint)
    masks = [nib.load(tmp_path / "out" / "scan.nii.gz").get_fdata()]
    with pytest.raises(UserError, match="other settings"):
        predict(replace(spec, postprocessing=""), events.append)
    events.clear()
    assert predict(replace(spec, postprocessing="", overwrite=True), events.append).done
    assert events[0].hint is None
    masks.append(nib.load(tmp_path / "out" / "scan.nii.gz").get_fdata())
    kwargs = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}]
    expected = apply_postprocessing(masks[0], [KEEP, KEEP], kwargs)
    assert np.array_equal(masks[1], expected) and (masks[0] != masks[1]).any()
    notes = json.loads((tmp_path / "out" / "scan.json").read_text())["notes"]
    assert sum("largest component" in note for note in notes) == 2
    loaded = dinomed3d.load_model(
        model, device="cpu", mirroring=False, step_size=1.0, postprocessing=True
    )
    assert np.array_equal(loaded.predict(nib.load(scan)).get_fdata(), expected)
    (foreign,) = write_files(tmp_path / "other", [7])[:1]
    with pytest.raises(UserError, match="another model"):
        dinomed3d.load_model(model, device="cpu", postprocessing=foreign)
