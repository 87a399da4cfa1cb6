"""Files of pretrained networks: every key accounted for, configurations checked, inputs by their names."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pointseg.backbones import (
    BackboneWeightsError,
    build_backbone,
    licence_of,
    load_into,
    load_pretrained,
    read_pretrained,
)
from pointseg.backbones.weights.pretrained_file import read_linear_head
from tests.pointseg.backbones.clouds import cloud
from tests.pointseg.backbones.ptv3.test_point_transformer_v3 import TINY as PTV3

ENCODER = dict(
    in_channels=9,
    order=["z", "hilbert"],
    stride=[2, 2],
    enc_depths=[1, 1, 2],
    enc_channels=[12, 12, 24],
    enc_num_head=[2, 2, 4],
    enc_patch_size=[16, 16, 16],
)
DECODER = dict(
    dec_depths=[1, 1], dec_channels=[12, 12], dec_num_head=[2, 2], dec_patch_size=[16, 16]
)
LITEPT = dict(
    **(ENCODER | DECODER),
    enc_conv=[True, True, False],
    enc_attn=[False, False, True],
    enc_rope_freq=[100.0] * 3,
    dec_conv=[True, True],
    dec_attn=[False, False],
    dec_rope_freq=[100.0] * 2,
    enc_mode=False,
)
TINY = {
    "sonata": dict(**ENCODER, enc_mode=True, mask_token=True, drop_path=0.3),
    "utonia": dict(**ENCODER, enc_mode=True, mask_token=True, rope_base=10),
    "litept": LITEPT | {"in_channels": 6},
}


def network(family, seed=0, **config):
    torch.manual_seed(seed)
    built = build_backbone(family, **(TINY[family] | config))
    for parameter in built.parameters():  # none at zero or one
        nn.init.normal_(parameter, std=0.2)
    return built.eval()


def saved(path, family="sonata", config=None, change=None, **more):
    """A file as the project publishes it, of a network whose configuration is the tiny one's with changes."""
    built = network(family, **more)
    state = dict(built.state_dict())
    if change is not None:
        change(state)
    content = {"config": TINY[family] | more | (config or {}), "state_dict": state}
    torch.save(content, path)
    return built


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("family", TINY)
def test_a_file_with_its_configuration(tmp_path, family):
    source = saved(tmp_path / "weights.pth", family)
    found = load_pretrained(tmp_path / "weights.pth")
    assert found.family == family and found.config == TINY[family]
    assert same(found.backbone, source) and not found.backbone.training
    assert found.notes == (f"licence of the weights: {licence_of(family)}",)
    assert found.licence == licence_of(family)
    again = build_backbone(family, tmp_path / "weights.pth", **TINY[family])
    assert same(again, source)


def test_licences():
    assert "CC-BY-NC" in licence_of("sonata") and "CC-BY-NC" in licence_of("utonia")
    assert "none stated" in licence_of("litept")
    with pytest.raises(ValueError, match="'family'.*'ptv3'"):
        licence_of("ptv3")


def test_loading_says_the_licence(tmp_path, caplog):
    saved(tmp_path / "weights.pth")
    load_pretrained(tmp_path / "weights.pth")
    assert [r.levelname for r in caplog.records if "CC-BY-NC" in r.getMessage()] == ["WARNING"]


def test_the_mask_token_goes_only_where_the_configuration_turns_it_off(tmp_path):
    source = saved(tmp_path / "weights.pth")
    found = load_pretrained(tmp_path / "weights.pth", mask_token=False)
    assert source.state_dict().keys() - found.backbone.state_dict().keys() == {
        "embedding.mask_token"
    }
    assert "mask token" in found.notes[1]
    saved(tmp_path / "without.pth", mask_token=False)
    with pytest.raises(BackboneWeightsError, match=r"1 missing: embedding\.mask_token"):
        load_pretrained(tmp_path / "without.pth", mask_token=True)


def test_a_folder_of_a_model_hub(tmp_path):
    source = network("utonia")
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(BackboneWeightsError, match=r"config\.json"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TINY["utonia"]))
    assert same(load_pretrained(tmp_path).backbone, source)


def test_a_state_of_pretraining_gives_its_student(tmp_path):
    student, teacher = network("sonata", 0), network("sonata", 1)
    state = {f"module.student.backbone.{k}": v for k, v in student.state_dict().items()}
    state |= {f"module.teacher.backbone.{k}": v for k, v in teacher.state_dict().items()}
    state["module.student.mask_head.prototype.weight"] = torch.zeros(4, 4)
    path = tmp_path / "pretrain-sonata.pth"
    torch.save({"state_dict": state, "epoch": 3}, path)
    with pytest.raises(
        BackboneWeightsError, match="do not say order, stride, enc_num_head, enc_patch_size"
    ):
        load_pretrained(path)
    names = ("order", "stride", "enc_num_head", "enc_patch_size")
    found = load_pretrained(path, **{name: ENCODER[name] for name in names})
    assert same(found.backbone, student)
    count = len(teacher.state_dict())
    assert f"1 tensors of module.student, {count} tensors of module.teacher" in found.notes[-1]


def test_a_fine_tuned_file_and_its_head(tmp_path):
    source, head = network("litept"), nn.Linear(12, 5)
    state = {f"module.backbone.{k}": v for k, v in source.state_dict().items()}
    state |= {f"module.seg_head.{k}": v for k, v in head.state_dict().items()}
    torch.save({"state_dict": state, "best_metric_value": np.float64(0.7)}, tmp_path / "best.pth")
    with pytest.raises(BackboneWeightsError, match="enc_rope_freq.*dec_num_head.*dec_rope_freq"):
        load_pretrained(tmp_path / "best.pth")
    names = re.findall(r"\w+_(?:freq|head|size)|order|stride", " ".join(LITEPT))
    found = load_pretrained(tmp_path / "best.pth", **{name: LITEPT[name] for name in names})
    assert same(found.backbone, source)
    assert found.head is not None and torch.equal(found.head.weight, head.weight)
    assert "head for 5 classes" in found.notes[1]
    # into a network that is there already
    target = network("litept", 1)
    load_into(target, read_pretrained(tmp_path / "best.pth"))
    assert same(target, source)


def test_an_encoder_under_a_new_decoder(tmp_path):
    source = saved(tmp_path / "weights.pth")
    found = load_pretrained(tmp_path / "weights.pth", enc_mode=False, mask_token=False, **DECODER)
    state = found.backbone.state_dict()
    assert all(
        torch.equal(state[k], v) for k, v in source.state_dict().items() if k.startswith("enc.")
    )
    assert any(key.startswith("dec.") for key in state) and "decoder is new" in found.notes[2]
    # and the encoder of a network with decoder
    whole = saved(tmp_path / "whole.pth", enc_mode=False, **DECODER)
    found = load_pretrained(tmp_path / "whole.pth", enc_mode=True)
    assert found.backbone.state_dict().keys() < whole.state_dict().keys()
    assert "decoder is left out" in found.notes[1]


def test_a_lost_decoder_is_not_replaced(tmp_path):
    def lose(state):
        for key in [key for key in state if key.startswith("dec.")]:
            del state[key]

    saved(tmp_path / "weights.pth", change=lose, enc_mode=False, **DECODER)
    with pytest.raises(BackboneWeightsError, match=r"missing: dec\."):
        load_pretrained(tmp_path / "weights.pth")


def test_frequencies_of_another_base_are_refused(tmp_path):
    saved(tmp_path / "weights.pth", "utonia", enc_channels=[24, 24, 48])
    with pytest.raises(BackboneWeightsError, match="base 10,.*rope_base=10"):
        load_pretrained(tmp_path / "weights.pth", rope_base=100)


def test_other_columns_are_explained_or_taken_by_name(tmp_path):
    path = tmp_path / "weights.pth"
    source = saved(path, mask_token=False)
    with pytest.raises(
        BackboneWeightsError, match=r"9 channels \(coord, color, normal, in this order\).*7"
    ):
        load_pretrained(path, in_channels=7)
    columns = ("normal", "strength", "color")
    with pytest.raises(BackboneWeightsError, match="adapt_input"):
        load_pretrained(path, in_channels=7, columns=columns)
    with pytest.raises(BackboneWeightsError, match="'columns'"):
        load_pretrained(path, in_channels=6, columns=columns)
    with pytest.raises(
        BackboneWeightsError, match="normal, coord, color"
    ):  # as many, in another order
        load_pretrained(path, columns=("normal", "coord", "color"))
    found = load_pretrained(path, columns=columns, adapt_input=True)
    assert "strength start at zero" in found.notes[1] and "coord are left out" in found.notes[1]
    mine = cloud(channels=7)
    normal, _, color = mine.feat.split([3, 1, 3], 1)
    theirs = replace(mine, feat=torch.cat([torch.zeros_like(color), color, normal], 1))
    with torch.no_grad():
        torch.testing.assert_close(found.backbone(mine).feat, source(theirs).feat)
    source = saved(path, "litept")
    found = load_pretrained(path, columns=("coord", "color"), adapt_input=True)
    weights = [net.embedding.stem["conv"].weight for net in (found.backbone, source)]
    assert torch.equal(weights[0][..., 3:], weights[1][..., :3]) and not weights[0][..., :3].any()


def test_channels_that_the_file_does_not_name_are_those_that_the_run_gives(tmp_path):
    path = tmp_path / "weights.pth"
    source = saved(path, in_channels=6)
    found = load_pretrained(path, columns=("coord", "color"))
    assert torch.equal(
        found.backbone.embedding.stem["linear"].weight, source.embedding.stem["linear"].weight
    )
    assert any("taken for coord, color" in note for note in found.notes)
    for adapt in (False, True):
        with pytest.raises(BackboneWeightsError, match="6 channels, which the file does not name"):
            load_pretrained(
                path, in_channels=9, columns=("coord", "color", "normal"), adapt_input=adapt
            )


@pytest.mark.parametrize("family", TINY)
def test_a_file_for_another_backbone_says_for_which(tmp_path, family):
    saved(tmp_path / "weights.pth", family)
    with pytest.raises(BackboneWeightsError, match=f"--backbone {family}"):
        build_backbone("ptv3", tmp_path / "weights.pth", **PTV3)


def test_a_frozen_encoder_follows_the_curves_of_prediction():
    built = network("sonata", **DECODER | {"enc_mode": False, "order": ["z", "hilbert", "z-trans"]})
    drawn = [built.train().curve_sequences() for _ in range(9)]
    assert any(each != drawn[0] for each in drawn)
    built.enc.eval()
    assert all(built.curve_sequences() == [[0, 1, 2]] * 3 for _ in range(9))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"enc_depths": [1, 1, 10**6]}, "'enc_depths'"),
        ({"enc_channels": [12, 12, "24"]}, "'enc_channels'"),
        ({"enc_num_head": None}, "enc_num_head"),
        ({"stride": [2] * 100}, "'stride'"),
        ({"order": [["z"]]}, "'order'"),
        ({"order": ["z", "peano"]}, "'order'"),
        ({"drop_path": float("nan")}, "'drop_path'"),
        ({"mask_token": "no"}, "'mask_token'"),
        ({"enc_patch_size": [16, 16, 1.5]}, "'enc_patch_size'"),
        ({"depth": 3}, "'depth'"),
        ({"enable_rpe": True}, "'enable_rpe'"),
        ({"enc_channels": [12, 12, 8000]}, "another shape"),
        ({"image_channels": 4}, "'image_channels'"),
    ],
)
def test_configurations_that_are_refused(tmp_path, config, named):
    saved(tmp_path / "weights.pth", config=config)
    with pytest.raises(BackboneWeightsError, match=named):
        load_pretrained(tmp_path / "weights.pth")


def test_files_that_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(BackboneWeightsError, match="no such file"):
        read_pretrained(path)
    torch.save(build_backbone("ptv3", **PTV3).state_dict(), path)
    with pytest.raises(BackboneWeightsError, match="ptv3"):
        read_pretrained(path)
    for content, named in [
        ([1], "list"),
        ({"state_dict": {"a": torch.ones(1)}}, "embedding"),
        ({"state_dict": {"a": "b"}}, "'a'"),
        ({"state_dict": {}, "config": {}}, "head"),
        ({"state_dict": dict(network("sonata").state_dict()), "config": [1]}, "'config'"),
        ({"state_dict": 3}, "'state_dict'"),
    ]:
        torch.save(content, path)
        with pytest.raises(BackboneWeightsError, match=named):
            read_pretrained(path)
    saved(path)
    with pytest.raises(BackboneWeightsError, match="family sonata.*Utonia"):
        load_into(network("utonia"), read_pretrained(path))
    saved(path, change=lambda state: state.update({"enc.lora_A.weight": torch.ones(1)}))
    with pytest.raises(BackboneWeightsError, match="merge"):
        load_pretrained(path)


def test_a_linear_head(tmp_path):
    path = tmp_path / "sonata_linear_prob_head_sc.pth"
    head = nn.Linear(8, 20)
    state = {f"seg_head.{key}": value for key, value in head.state_dict().items()}
    config = {"backbone_out_channels": 8, "num_classes": 20}
    torch.save({"config": config, "state_dict": state}, path)
    found = read_linear_head(path)
    assert torch.equal(found.weight, head.weight) and torch.equal(found.bias, head.bias)
    with pytest.raises(BackboneWeightsError, match="network that it belongs to"):
        read_pretrained(path)
    saved(tmp_path / "weights.pth")
    with pytest.raises(BackboneWeightsError, match="seg_head"):
        read_linear_head(tmp_path / "weights.pth")
