"""Class weights: from published shares, or from the labels of all training scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import collate
from pointseg.datasets.label_counts import label_counts
from pointseg.datasets.semantickitti.dataset import CLASS_SHARES, SemanticKITTI
from pointseg.loading.samples import Samples
from pointseg.training.tasks.segmentation import Segmentation
from pointseg.training.train import train
from tests.pointseg.tiny import RECIPE, Boxes, spec

AUTO = replace(RECIPE, class_weights="auto")


class Published(Boxes):
    """Boxes of which no scene may be read."""

    class_shares = (0.5, 0.25)
    shares_of = ("train",)

    def load(self, split, scene):
        raise AssertionError("read")


def weights(dataset, recipe=AUTO):
    made = Segmentation(dataset, recipe)
    made.begin()
    return made.weights


def test_published_shares_are_not_counted():
    torch.testing.assert_close(weights(Published()), -torch.tensor([0.5, 0.25]).log())
    with pytest.raises(AssertionError, match="read"):  # they are of another split
        weights(Published(), replace(AUTO, train_splits=("train", "val")))
    assert SemanticKITTI.class_shares == CLASS_SHARES and SemanticKITTI.shares_of == ("train",)


def test_others_are_counted():
    # 400 of floor and 190 of boxes in each of 5 scenes of 600 points
    torch.testing.assert_close(weights(Boxes()), -torch.tensor([400 / 600, 190 / 600]).log())
    counts, points = label_counts(Boxes(), [("train", "train0"), ("val", "val1")])
    assert counts.tolist() == [800, 380] and points == 1200


def test_devices_share_the_scenes(monkeypatch):
    read = []

    class Watched(Boxes):
        def load(self, split, scene):
            read.append(scene)
            return super().load(split, scene)

    def gathered(parts, mine):
        parts[:] = [label_counts(Boxes(), [("train", "train0"), ("train", "train2")]), mine]

    there = torch.distributed
    monkeypatch.setattr(there, "is_initialized", lambda: True)
    monkeypatch.setattr(there, "get_rank", lambda: 1)
    monkeypatch.setattr(there, "get_world_size", lambda: 2)
    monkeypatch.setattr(there, "all_gather_object", gathered)
    found = weights(Watched())
    assert read == ["train1", "train3"]
    torch.testing.assert_close(found, -torch.from_numpy(np.log([4 / 6, 1.9 / 6])).float())


@pytest.mark.parametrize("lovasz", [0.0, 1.0])
def test_the_recipe_decides_the_losses(lovasz, tmp_path):
    recipe = replace(RECIPE, lovasz=lovasz, label_smoothing=0.2, epochs=1, evaluations=1)
    task = Segmentation(Boxes(), recipe)
    cloud = collate([Samples(Boxes(), recipe, training=True, seed=0)[0, 0]])
    logits = torch.randn(len(cloud), 2, generator=torch.Generator().manual_seed(0))
    found = task.losses(logits, cloud)
    wanted = F.cross_entropy(logits, cloud.segment, ignore_index=-1, label_smoothing=0.2)
    torch.testing.assert_close(found["cross_entropy"], wanted)
    assert {"loss", *task.loss_names} == set(found)
    if lovasz:
        return
    train(replace(spec(tmp_path, recipe=recipe), task=task))  # the log has columns of no other loss
    columns = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "cross_entropy" in columns and "lovasz" not in columns


def test_a_validation_without_labels_has_no_score():
    task = Segmentation(Boxes(), RECIPE)
    with pytest.raises(UserError, match="no point of the validation clouds .*val"):
        task.scores(task.empty_metrics())
    scores, _ = task.scores(torch.tensor([[3, 1], [0, 0]]))
    assert scores["val_voxel_accuracy"] == 0.75
