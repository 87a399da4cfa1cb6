"""Models from elsewhere: what is read of them, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import sys
import zipfile

import pytest
import torch

from dinomed3d.inference.models.model import fold_weights, open_model
from dinomed3d.inference.models.validate_plans import check_architecture
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.fake_models import (
    checkpoint,
    export,
    named_architecture,
    network,
    ours,
    stock_plans,
    write_model,
)
from tests.dinomed3d.training.conftest import LABELS, REGIONS


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def change(path, **entries):
    """Replace entries of a JSON file; None removes."""
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_a_stock_folder(folder):
    model = open_model(folder)
    assert (model.trainer, model.configuration, model.name) == (
        "nnUNetTrainer",
        "3d_fullres",
        "Dataset901_Tiny",
    )
    assert model.folds == ("0", "1") and model.mirroring == (0, 1, 2)
    assert model.channels == ("MRI",) and model.labels == LABELS
    assert model.regions_class_order is None and model.ending == ".nii.gz"
    assert model.spacing == (2.0, 1.0, 1.0) and model.patch == (6, 20, 16)
    assert model.reader == "SimpleITKIO" and model.licence is None
    assert model.fingerprint == {"spacings": [[2.0, 1.0, 1.0]]}
    assert same(fold_weights(model, "1"), network(1))
    assert pickle.loads(pickle.dumps(model)) == model  # goes to other processes


def test_a_folder_by_another_name_and_its_zip_are_the_same_model(folder, tmp_path):
    hash = open_model(folder).hash
    zipped = export(folder, tmp_path / "m.zip")
    folder = folder.rename(tmp_path / "my model")
    assert open_model(folder).hash == open_model(zipped).hash == hash
    assert open_model(folder, folds=["1"]).hash != hash
    assert same(fold_weights(open_model(zipped), "0"), network(0))
    change(folder / "dataset.json", labels={"background": 0, "b": 1, "a": 2})
    assert open_model(folder).hash != hash


def test_the_hash_is_of_values_not_of_files(folder):
    hash = open_model(folder).hash
    state = {f"_orig_mod.module.{k}": v.clone() for k, v in network(0).items()}  # nothing shared
    torch.save({**checkpoint(state), "optimizer_state": {}}, folder / "fold_0/checkpoint_final.pth")
    assert open_model(folder).hash == hash
    state["_orig_mod.module.seg"] = torch.zeros(1)
    torch.save(checkpoint(state), folder / "fold_0/checkpoint_final.pth")
    assert open_model(folder).hash != hash


def test_our_own_checkpoint(tmp_path):
    model = open_model(write_model(tmp_path / "m", folds=("0",), **ours("hub")))
    assert model.trainer == "DinoMed3DTrainer" and model.training["recipe"] == {"weights": "hub"}


def test_regions(tmp_path):
    model = open_model(write_model(tmp_path / "m", folds=("0",), labels=REGIONS))
    assert model.labels == {"background": 0, "whole": [1, 2], "b": 2}
    assert model.regions_class_order == (1, 2)


def test_folds(folder):
    assert open_model(folder, folds=["fold_1"]).folds == ("1",)
    assert open_model(folder, folds=["1", "0", "1"]).folds == ("0", "1")
    with pytest.raises(UserError, match="folds 0, 1, not for 4"):
        open_model(folder, folds=["4"])
    write_model(folder, folds=("all",))
    assert open_model(folder).folds == ("0", "1")
    assert open_model(folder, folds=["all"]).folds == ("all",)


def test_only_another_checkpoint(tmp_path):
    folder = write_model(tmp_path / "m", folds=("all",), name="checkpoint_best.pth")
    with pytest.raises(UserError, match=r"--checkpoint for checkpoint_best.pth"):
        open_model(folder)
    model = open_model(folder, checkpoint="checkpoint_best.pth")
    assert model.folds == ("all",) and same(fold_weights(model, "all"), network(0))
    with pytest.raises(UserError, match="--checkpoint"):
        open_model(folder, checkpoint="../../x.pth")


def test_where_no_model_is(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    two = export(folder, tmp_path / "m.zip")
    export(folder, two, root="Dataset901_Tiny/nnUNetTrainer__P__2d/")
    for path, advice in (
        (tmp_path / "none", "nnUNet_results"),
        (tmp_path / "empty", "nnUNet_results"),
        (tmp_path, "models in nnUNetTrainer__nnUNetPlans__3d_fullres"),
        (folder / "fold_0", "--folds 0"),
        (folder / "fold_0" / "checkpoint_final.pth", "--folds and --checkpoint"),
        (two, "nnUNetTrainer__P__2d/"),
    ):
        with pytest.raises(UserError, match=f"{path.name}: .*{advice}"):
            open_model(path)


@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("dataset.json", {"labels": {"background": 0, "a": 2}}),
        ("dataset.json", {"labels": {"a": 1}}),
        ("dataset.json", {"labels": {"0": "background", "1": "a"}}),
        ("dataset.json", {"labels": {"background": 0, "a": 1.5}}),
        ("dataset.json", {"labels": {"background": 0, "ignore": 1, "a": 2}}),
        ("dataset.json", {"labels": {"background": 0, "a": 1, "ignore": [2]}}),
        ("dataset.json", {"labels": None}),
        ("dataset.json", {"channel_names": {"1": "CT"}}),
        ("dataset.json", {"file_ending": None}),
        ("plans.json", {"dataset_name": None}),
        ("plans.json", {"configurations": None}),
        ("plans.json", {"image_reader_writer": "os.system"}),
        ("plans.json", {"label_manager": "../x"}),
        ("plans.json", {"transpose_forward": [0, 0, 1]}),
        ("plans.json", {"foreground_intensity_properties_per_channel": None}),
        ("configuration", {"previous_stage": "3d_lowres"}),
        ("configuration", {"spacing": [1.0, 1.0]}),
        ("configuration", {"patch_size": [0, 20, 16]}),
        ("configuration", {"preprocessor_name": "os.path"}),
        ("configuration", {"resampling_fn_data": "a b"}),
        ("configuration", {"resampling_fn_data_kwargs": 3}),
        ("configuration", {"normalization_schemes": ["os.x"]}),
        ("configuration", {"use_mask_for_norm": []}),
        ("configuration", {"architecture": None}),
    ],
)
def test_malformed_entries(folder, file, entries):
    if file == "configuration":
        file = "plans.json"
        plan = json.loads((folder / file).read_text())
        plan["configurations"]["3d_fullres"] |= entries
        change(folder / file, configurations=plan["configurations"])
    else:
        change(folder / file, **entries)
    with pytest.raises(UserError, match=f"{file}.*'{next(iter(entries))}'"):
        open_model(folder)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"normalization_schemes": ["CTNormalization"]}, "'0' must be numbers for .*std"),
        ({"resampling_fn_data_kwargs": {"order": "3"}}, "'order'"),
        ({"resampling_fn_data_kwargs": {"order_z": 6}}, "'order_z'"),
        ({"resampling_fn_probabilities_kwargs": {"force_separate_z": 1}}, "'force_separate_z'"),
    ],
)
def test_malformed_numbers_of_preprocessing(folder, entries, named):
    plan = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    plan["configurations"]["3d_fullres"] |= entries
    known = {"0": {"percentile_00_5": 0, "percentile_99_5": 1, "mean": "x", "std": 1}}
    change(
        folder / "plans.json",
        configurations=plan["configurations"],
        foreground_intensity_properties_per_channel=known,
    )
    with pytest.raises(UserError, match=f"plans.json.*{named}"):
        open_model(folder)


def test_files_that_do_not_fit_together(folder):
    change(folder / "dataset.json", labels={"background": 0, "a": [1, 2], "b": 2})
    with pytest.raises(UserError, match="'regions_class_order'"):
        open_model(folder)
    change(folder / "dataset.json", labels=LABELS, channel_names={"0": "a", "1": "b"})
    with pytest.raises(UserError, match="'normalization_schemes'"):
        open_model(folder)
    for configurations in (
        {},
        *({"3d_fullres": {"inherits_from": n}} for n in ("x", "3d_fullres")),
    ):
        change(folder / "plans.json", configurations=configurations)
        with pytest.raises(UserError, match="configuration '(x|3d_fullres)'"):
            open_model(folder)


def test_no_json(folder):
    for content in ("{", "[1]", "[" * 100_000, "\xff", None):
        if content is None:
            (folder / "plans.json").unlink()
        else:
            (folder / "plans.json").write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match="plans.json"):
            open_model(folder)


def test_inherited_settings(tmp_path):
    plan = stock_plans()
    configurations = plan["configurations"]
    configurations["base"] = configurations["3d_fullres"]
    configurations["3d_fullres"] = {"inherits_from": "base", "patch_size": [6, 24, 16]}
    model = open_model(write_model(tmp_path / "m", folds=("0",), plan=plan))
    assert model.patch == (6, 24, 16) and model.spacing == (2.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "paths",
    [
        {"network_class_name": "subprocess.Popen"},
        {"network_class_name": "os.system"},
        {"network_class_name": "torch.hub.load"},
        {"network_class_name": "torch.nnx.Evil"},
        {"network_class_name": "torch.nn.parallel.distributed.os.system"},
        {"network_class_name": "torch.nn.functional.warnings.sys.exit"},
        {"network_class_name": "torch.nn.functional.relu"},
        {"network_class_name": "torch.nn.Module.__class__"},
        {"network_class_name": "dynamic_network_architectures"},
        {"network_class_name": "dinomed3d.networks.network.build_encoder"},
        {"network_class_name": "dinomed3d.cli.main.main"},
        {"network_class_name": "../torch.nn.Linear"},
        {"network_class_name": 3},
        {"conv_op": "subprocess.Popen"},
        {"norm_op": "torch.nn.modules.module.warnings.warn"},
    ],
)
def test_code_that_is_no_network(paths):
    with pytest.raises(UserError, match="names the code"):
        check_architecture(named_architecture(**paths), "3d_fullres")


def test_a_foreign_module_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    plan = named_architecture(network_class_name="evil_module.Network")
    with pytest.raises(UserError, match="evil_module"):
        check_architecture(plan, "3d_fullres")
    assert "evil_module" not in sys.modules


def test_networks_that_plans_may_name():
    moved = "dynamic_network_architectures.architectures.moved.PlainConvUNet"
    for name in ("dinomed3d.networks.network.build_network", moved):
        check_architecture(named_architecture(network_class_name=name), "3d_fullres")
    for name in (
        "torch.nn.Identity",
        moved.replace("Plain", "Odd"),
        moved.replace("PlainConvUNet", "torch"),
    ):
        with pytest.raises(UserError, match=name.split(".")[-1]):
            check_architecture(named_architecture(network_class_name=name), "3d_fullres")
    with pytest.raises(UserError, match="Conv9d"):
        check_architecture(named_architecture(conv_op="torch.nn.Conv9d"), "3d_fullres")
    plan = named_architecture(encoder_overrides={"embed_dim": 24, "checkpoint_path": "evil.pth"})
    with pytest.raises(UserError, match="encoder_overrides"):
        check_architecture(plan, "3d_fullres")


def test_early_plans():
    plan = stock_plans()
    configuration = plan["configurations"]["3d_fullres"]
    del configuration["architecture"]
    for name in ("PlainConvUNet", "ResidualEncoderUNet"):
        configuration["UNet_class_name"] = name
        check_architecture(plan, "3d_fullres")
    configuration["UNet_class_name"] = "Popen"
    with pytest.raises(UserError, match="UNet_class_name"):
        check_architecture(plan, "3d_fullres")


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_wants_code(folder, tmp_path):
    mark = tmp_path / "it_ran"
    content = checkpoint(network(0), logging=Evil(f"echo x > {mark}"))
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"wants to run (posix|nt)\.system"):
        open_model(folder)
    with pytest.raises(UserError, match="refused"):
        open_model(export(folder, tmp_path / "m.zip"))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"network_weights": None}, "'network_weights'"),
        ({"network_weights": {"a": 1}}, "plain tensor"),
        ({"network_weights": {"a": torch.eye(3).to_sparse()}}, "plain tensor"),
        ({"network_weights": {"a": torch.zeros(1).expand(1 << 40)}}, "bytes of weights"),
        ({"init_args": None}, "'init_args'"),
        ({"trainer_name": None}, "'trainer_name'"),
        ({"trainer_name": "a.b"}, "trainer"),
        ({"inference_allowed_mirroring_axes": (0, 7)}, "mirrored axes"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_malformed_checkpoints(folder, entries, reason):
    torch.save(checkpoint(network(0), **entries), folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UserError, match=reason):
        open_model(folder)


def test_truncated_and_empty(folder):
    path = folder / "fold_0" / "checkpoint_final.pth"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PK", b"no checkpoint"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="checkpoint .*cannot be read"):
            open_model(folder)
    torch.save([1], path)
    with pytest.raises(UserError, match="holds a list"):
        open_model(folder)


def test_a_bomb_inside_a_checkpoint(folder):
    """Torch stores what it writes; its reader would unpack what somebody compressed."""
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(checkpoint({"a": torch.zeros(1 << 20)}), path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="is compressed"):
        open_model(folder)
    with pytest.raises(UserError, match="is compressed"):
        open_model(export(folder, folder.parent / "m.zip"))


def test_folds_of_two_configurations(folder):
    arguments = {"configuration": "2d"}
    path = folder / "fold_1" / "checkpoint_final.pth"
    torch.save(checkpoint(network(0), init_args=arguments), path)
    with pytest.raises(UserError, match="fold 1 is of configuration 2d"):
        open_model(folder)


def test_weights_that_changed_since(folder):
    model = open_model(folder)
    torch.save(checkpoint(network(7)), folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UserError, match="weights of fold 0"):
        fold_weights(model, "0")


@pytest.mark.parametrize(
    ("order", "values"),
    [
        ([300, 7], {"whole": [7, 300], "core": [7]}),
        ([1, 2], {"whole": [1, 2], "core": [2]}),
    ],
)
def test_values_of_regions_in_a_mask(folder, order, values):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    change(folder / "dataset.json", labels=labels, regions_class_order=order)
    assert open_model(folder).mask_values == values
