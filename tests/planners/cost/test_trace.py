"""The tracer by hand-made cases, and against real tensors."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dinomed3d.networks import CnnSpec, NetworkSpec, build_network
from examples.benchmarks.traced_steps import (
    LiveMemory,
    build,
    materialise,
    nnunet_loss,
    step_inputs,
    step_loss,
    trace_prediction,
    trace_step,
    trace_training,
)
from planners.cost import stage_one, stage_two
from tests.planners.steps import make_inputs

SPEC = NetworkSpec(
    encoder_overrides={"embed_dim": 96, "depth": 4, "num_heads": 4},
    voxels_per_token=4,
    cnn=CnnSpec(
        widths=(4, 8, 8),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        kernels=((3, 3, 3),) * 3,
        blocks=(1, 1, 1),
        decoder_blocks=(1, 1),
    ),
    token_width=16,
    adapter_width=16,
    lora_rank=4,
)
PATCH = (6, 64, 64)
STEPS = [(1, False), (1, True), (2, False), (2, True)]


def test_memory_is_counted_from_allocation_to_release() -> None:
    with FakeTensorMode(), LiveMemory() as live:
        a = torch.empty(10, 25)  # 1000 bytes
        b = torch.empty(500, dtype=torch.bfloat16)
        assert live.now == live.peak == 2000
        del a
        assert (live.now, live.peak) == (1000, 2000)
        c = torch.empty(100)
        assert (live.now, live.peak) == (1400, 2000)
        del b, c
        assert live.now == 0


def test_the_peak_includes_what_lives_only_within_an_expression() -> None:
    with FakeTensorMode(), LiveMemory() as live:
        a = torch.empty(250)
        b = (a + 1) * 2  # while the product is made, all three are there
        assert (live.now, live.peak) == (2000, 3000)
        assert b.shape == a.shape


def test_work_in_place_allocates_nothing() -> None:
    with FakeTensorMode(), LiveMemory() as live:
        a = torch.zeros(250)
        a.add_(1).relu_()
        a[:10] = 3.0  # the number itself may be a tensor for a moment
        assert live.now == 1000 and live.peak <= 1004


def test_views_count_once_and_keep_their_storage() -> None:
    with FakeTensorMode(), LiveMemory() as live:
        a = torch.empty(25, 10)
        view = a.T[:2].flatten(0, 0).unsqueeze(0)
        assert live.now == 1000
        del a
        assert live.now == 1000  # two columns hold the whole storage
        del view
        assert live.now == 0


def test_what_was_there_before_counts_once_it_is_watched() -> None:
    before = torch.zeros(250)
    with LiveMemory() as live:
        assert live.now == 0
        live.watch(before)
        live.watch(before[3:])
        assert live.now == live.peak == 1000


def test_the_backward_pass_is_seen() -> None:
    """exp keeps its result: 1000 bytes; its gradient and that of its input are made on the way."""
    with FakeTensorMode(), LiveMemory() as live:
        x = torch.empty(250, requires_grad=True)
        value = x.exp().sum()
        assert live.now == 2004
        value.backward()
        assert x.grad is not None
        del value
        assert live.now == 2000


class Twice(nn.Module):
    """One layer under two names, and another one that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.other = self.one
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.one.weight
        self.frozen = nn.BatchNorm1d(8).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 8) -> (N, 8)."""
        return self.frozen(self.tied(self.other(self.one(x))))


def test_what_is_shared_stays_shared_and_is_counted_once() -> None:
    with torch.device("meta"):
        network = Twice()
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        materialise(network)
        assert network.one is network.other
        assert network.one.weight is network.tied.weight
        assert [p.device.type for p in network.parameters()] == ["cpu"] * 5
        assert [p.requires_grad for p in network.parameters()] == [True] * 3 + [False] * 2
        batch_norm = 4 * 4 * 8 + 8  # weight, bias, mean and variance; a count of batches
        assert live.now == 4 * (64 + 8 + 8) + batch_norm


def test_a_step_by_hand() -> None:
    """One linear layer of 128 x 128 on 2 rows, float32 because nothing in the loss is autocast.

    65536 bytes of weights, twice that in the optimizer; the gradient comes at the end of the backward
    pass, so the peak is that of four such and the rows.
    """
    with torch.device("meta"):
        weight = nn.Linear(128, 128, bias=False)

    def loss(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return weight(x).sum()

    traced = trace_step(weight, {"x": ((2, 128), torch.float32)}, loss)
    rows = 2 * 128 * 4
    assert traced.flops == 2 * (2 * 2 * 128 * 128)  # forward, and the gradient of the weights
    assert 0 <= traced.saved - 4 < rows + 1  # the sum, and at most the rows' result
    assert 0 <= traced.peak - (4 * 65536 + rows) < 3 * rows


def live_real(stage: int, *, checkpointing: bool) -> tuple[int, int]:
    """Peak and saved bytes of a real training step, measured like `trace_step` measures its own."""
    torch.manual_seed(0)
    network = build(SPEC, channels=1, classes=3, stage=stage, checkpointing=checkpointing)
    inputs = step_inputs(network, PATCH, stage=stage, batch=2, channels=1, slices=12)
    compute = step_loss(network, stage=stage, loss=nnunet_loss())
    gc.collect()
    with LiveMemory() as live:
        for tensor in [*network.parameters(), *network.buffers()]:
            live.watch(tensor.data)
        learning = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learning, fused=True)
        batch = make_inputs(inputs, classes=3)
        for tensor in batch.values():
            live.watch(tensor)
        saved = 0
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            before = live.now
            live.peak = live.now
            with torch.autocast("cpu", torch.bfloat16):
                value = compute(**batch)
            saved = live.now - before
            value.backward()
            del value
            optimizer.step()
        return live.peak, saved


@pytest.mark.parametrize(("stage", "checkpointing"), STEPS)
def test_fake_tensors_take_what_real_ones_take(stage: int, checkpointing: bool) -> None:
    peak, saved = live_real(stage, checkpointing=checkpointing)
    traced = trace_training(
        SPEC, PATCH, stage=stage, batch=2, channels=1, classes=3, slices=12,
        checkpointing=checkpointing,
    )  # fmt: skip
    # numbers that a real step computes on the side (means, counts) are a few bytes each
    assert traced.peak == pytest.approx(peak, rel=1e-3)
    assert traced.saved == pytest.approx(saved, rel=1e-3)


def test_prediction_with_fake_tensors_takes_what_real_ones_take() -> None:
    with torch.device("meta"):
        network = build_network(1, 3, False, **SPEC.to_arch_kwargs())
    traced = trace_prediction(network, (1, 1, *PATCH))
    network = build_network(1, 3, False, **SPEC.to_arch_kwargs()).eval()
    with LiveMemory() as live:
        for tensor in [*network.parameters(), *network.buffers()]:
            live.watch(tensor.data)
        volume = torch.zeros(1, 1, *PATCH)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            network(volume)
    assert traced == pytest.approx(live.peak, rel=1e-3)


@pytest.mark.parametrize(("stage", "checkpointing"), STEPS)
def test_autograd_keeps_what_the_model_counts(stage: int, checkpointing: bool) -> None:
    """A second witness of what a step keeps: autograd's own word, each storage once."""
    torch.manual_seed(0)
    network = build(SPEC, channels=1, classes=3, stage=stage, checkpointing=checkpointing)
    inputs = step_inputs(network, PATCH, stage=stage, batch=2, channels=1, slices=12)
    batch = make_inputs(inputs, classes=3)
    compute = step_loss(network, stage=stage, loss=nnunet_loss())
    known = [*network.parameters(), *network.buffers(), *batch.values()]
    counted_elsewhere = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16):
            compute(**batch)
    found = sum(
        tensor.untyped_storage().nbytes()
        for pointer, tensor in kept.items()
        if pointer not in counted_elsewhere
    )
    two = stage_two(SPEC, PATCH, batch=2, channels=1, classes=3, checkpointing=checkpointing)
    cost = two
    if stage == 1:
        cost = stage_one(
            SPEC, PATCH, slices=12, channels=1, classes=3, resident=two.resident,
            checkpointing=checkpointing,
        )  # fmt: skip
    copies = sum(part.copies for part in cost.components.values())
    assert cost.saved + copies == pytest.approx(found, rel=0.05 if checkpointing else 0.02)


@pytest.mark.slow
def test_checkpointed_blocks_are_released_one_after_the_other() -> None:
    """What a counter of operations would hold on to, were it there in the measured step."""
    deep = {"embed_dim": 96, "depth": 12, "num_heads": 4}
    peaks = []
    for depth in (6, 12):
        spec = replace(SPEC, encoder_overrides=deep | {"depth": depth})
        traced = trace_training(
            spec, PATCH, stage=1, batch=2, channels=1, classes=3, slices=12, checkpointing=True
        )
        peaks.append(traced.peak)
    tokens = 12 * (16 * 16 + 5)
    block = 16 * 12 * 96**2 + 4 * 96 * tokens  # weights and their gradients, moments; its input
    assert peaks[1] - peaks[0] < 6 * 1.3 * block
