"""The pool of reused patches: how often each is drawn, and that what is known of a patch stays with it."""

from collections import Counter

import torch

from dinomed3d.training.patch_reuse import POOL_BATCHES, PatchPool
from tests.dinomed3d.training.test_trainer import trainer


class Loader:
    """Batches of two patches that hold their number."""

    def __init__(self):
        self.number = 0

    def __next__(self):
        numbers = torch.tensor([self.number, self.number + 1.0]).reshape(2, 1, 1, 1, 1)
        self.number += 2
        return {"data": numbers, "target": [numbers, numbers]}


def test_every_so_many_steps_a_new_batch_and_each_patch_as_often():
    torch.manual_seed(0)
    loader = Loader()
    pool = PatchPool(loader, uses=4)
    drawn = Counter()
    for step in range(800):
        batch = next(pool)
        assert loader.number == 2 * (step // 4 + 1)
        assert batch["data"].shape == (2, 1, 1, 1, 1)
        assert all(torch.equal(batch["data"], level) for level in batch["target"])
        numbers = batch["data"].flatten().tolist()
        assert len(set(numbers)) == 2 and min(numbers) >= loader.number - 2 * POOL_BATCHES
        drawn.update(numbers)
    middle = [drawn[n] for n in range(20, 360)]
    assert abs(sum(middle) / len(middle) - 4) < 0.2


def test_features_stay_with_their_patch():
    pool = PatchPool(Loader(), uses=3)
    for _ in range(30):
        for patch in next(pool)["patches"]:
            if patch.taps is None:
                patch.taps = [10 * patch.data]
            assert torch.equal(patch.taps[0], 10 * patch.data)


def test_a_cleared_pool_begins_with_new_patches():
    pool = PatchPool(Loader(), uses=5)
    for _ in range(7):
        next(pool)
    pool.clear()
    assert next(pool)["data"].flatten().tolist() == [4.0, 5.0]


def test_the_trainer_encodes_a_patch_once_and_learns_the_same(nnunet, monkeypatch):
    """Logits of a step with kept features equal those without; the encoder runs at first uses only."""
    monkeypatch.setenv("DINOMED3D_COMPONENTS", "detail,encoder")
    monkeypatch.setenv("DINOMED3D_PATCH_USES", "3")
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    t = trainer()
    t.initialize()
    torch.nn.init.normal_(t.network.fusion["2"].enter.weight)
    encoded = []
    encode = t.network.encode

    def counted(volume):
        encoded.append(len(volume))
        return encode(volume)

    monkeypatch.setattr(t.network, "encode", counted)
    data = torch.randn(2, 1, 6, 20, 16)
    pool = PatchPool(iter([{"data": data, "target": [data]}]), uses=3)
    batches = [next(pool) for _ in range(3)]
    taps = [t._kept_taps(batch["data"], batch["patches"]) for batch in batches]
    assert encoded == [2]
    for batch, kept in zip(batches, taps, strict=True):
        with torch.no_grad():
            for a, b in zip(t.network(batch["data"], kept), t.network(batch["data"]), strict=True):
                torch.testing.assert_close(a, b)
