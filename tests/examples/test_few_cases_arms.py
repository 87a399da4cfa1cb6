"""The bias fields that arms of the benchmark with few cases train with."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import few_cases_arms as arms  # noqa: E402
import few_cases_trainers as trainers  # noqa: E402

IMAGE = torch.tensor([-2.0, 1.0, 5.0]).repeat(2, 8, 6, 2) * torch.tensor([1.0, 3.0]).view(
    2, 1, 1, 1
)
"""Two channels of other spread and mean, each with three kinds of voxels."""
LABELS = (IMAGE[:1] > 0).to(torch.int16)


class Rest(BasicTransform):
    """In place of nnU-Net's transforms: keeps what reaches it."""

    def apply(self, data_dict, **_):
        self.image = data_dict["image"].clone()
        return data_dict


@pytest.fixture
def transforms_of(monkeypatch):
    """The transforms of an arm, nnU-Net's replaced."""

    def of(name):
        rest = Rest()
        monkeypatch.setattr(
            trainers.DinoMed3DTrainer, "get_training_transforms", lambda *_, **__: rest
        )
        trainer = object.__new__(trainers.ScoredDinoMed3D)
        trainer.run = SimpleNamespace(arm=name)
        return rest, trainer.get_training_transforms()

    return of


def test_a_field_is_a_gain_that_leaves_mean_and_spread():
    field = arms.BiasField()
    found = field(image=IMAGE.clone(), segmentation=LABELS.clone())
    assert torch.equal(found["segmentation"], LABELS)
    image = found["image"]
    for now, before in zip(
        torch.std_mean(image, (1, 2, 3)), torch.std_mean(IMAGE, (1, 2, 3)), strict=True
    ):
        torch.testing.assert_close(now, before)
    for channel, before in zip(image, IMAGE, strict=True):
        dark, *bright = (channel[before == value] for value in before.unique())
        assert dark.std() < 1e-5 < min(part.std() for part in bright)  # no signal, none is gained
    assert not torch.allclose(field(image=IMAGE.clone())["image"], image)  # drawn anew
    assert field(image=torch.ones(1, 4, 4, 4))["image"].isfinite().all()


def test_half_of_the_patches_get_one_before_all_else_where_an_arm_asks_for_it(transforms_of):
    for name in arms.ARMS:
        rest, transforms = transforms_of(name)
        if not name.endswith("-bias"):
            assert transforms is rest
            continue
        changed = 0
        for _ in range(40):
            transforms(image=IMAGE.clone(), segmentation=LABELS.clone())
            changed += not torch.equal(rest.image, IMAGE)
        assert 10 < changed < 30
