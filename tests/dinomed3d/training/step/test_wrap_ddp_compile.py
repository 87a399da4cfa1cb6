"""The wrapped network of a stage: every parameter learns, and compiled it gives the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from dinomed3d.networks import build_network
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint
from dinomed3d.training.step.wrap_ddp_compile import running_network
from tests.dinomed3d.training.trainers import fold_folder, trainer

CPU = torch.device("cpu")
TINY = {
    "encoder_overrides": {"embed_dim": 24, "depth": 3, "num_heads": 2, "init_values": 1.0},
    "voxels_per_token": 4,
    "lora_rank": 2,
    "adapter_width": 8,
    "token_width": 8,
    "cnn": {
        "widths": [4, 6, 8],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "kernels": [[3, 3, 3]] * 3,
        "blocks": [1, 1, 1],
        "decoder_blocks": [1, 1],
    },
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def network(stage, *, supervised=True, checkpointing=False, **changes):
    torch.manual_seed(0)
    net = build_network(1, 3, supervised, **(TINY | changes))
    net.begin_stage(stage, deep_supervision=supervised)
    if net.encoder is not None:
        net.encoder.encoder.checkpointing = checkpointing
    return net.train()


def example(stage, is_2d=False):
    torch.manual_seed(1)
    if stage == 1:
        return torch.randn(4, 3, 24, 20)
    return torch.randn(2, 1, 24, 20) if is_2d else torch.randn(2, 1, 3, 24, 20)


def loss(output):
    output = output if isinstance(output, list) else [output]
    return sum(x.square().mean() for x in output)


@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"taps": (0, 1)},  # the last block is unused
        {"encoder": "vit_small_patch14_reg4_dinov2"},
        {"components": ("detail", "encoder", "adapters")},
        {"components": ("encoder", "lora", "detail")},
        {"components": ("encoder", "adapters", "detail")},
        {"components": ("encoder", "detail")},
        {"components": ("detail",)},
    ],
    ids=str,
)
@pytest.mark.parametrize("stage", [1, 2])
def test_all_that_learns_takes_part(stage, changes, supervised):
    """Or several processes would wait for a gradient that never comes."""
    if stage == 1 and changes.get("components") == ("detail",):
        with pytest.raises(ValueError, match="no stage 1"):
            network(stage, **changes)
        return
    net = network(stage, supervised=supervised, **changes)
    loss(running_network(net, stage=stage, device=CPU, backend=None)(example(stage))).backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stage", [1, 2])
def test_compiled_it_is_one_graph_and_gives_the_same(stage, checkpointing):
    results = []
    two_blocks = TINY["encoder_overrides"] | {"depth": 2}
    for backend in (None, "aot_eager"):
        net = network(stage, checkpointing=checkpointing, encoder_overrides=two_blocks)
        value = loss(running_network(net, stage=stage, device=CPU, backend=backend)(example(stage)))
        value.backward()
        results.append((value.detach(), {n: p.grad for n, p in net.named_parameters()}))
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    (value, gradients), (compiled, found) = results
    assert torch.allclose(value, compiled, rtol=1e-5)
    for name, gradient in gradients.items():
        if gradient is not None:
            assert torch.allclose(gradient, found[name], rtol=1e-3, atol=1e-6), name


def test_predicting_is_one_graph_for_any_batch_under_float16_too():
    """Stock nnUNetv2_predict's autocast on CUDA, which the encoder replaces by another."""
    flat = TINY["cnn"] | {
        "widths": [4, 6],
        "strides": TINY["cnn"]["strides"][:2],
        "kernels": [[3, 3, 3]] * 2,
        "blocks": [1, 1],
        "decoder_blocks": [1],
    }
    one_block = TINY["encoder_overrides"] | {"depth": 1}
    net = network(2, supervised=False, encoder_overrides=one_block, taps=(0,), cnn=flat).eval()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.inference_mode(), torch.autocast("cpu", torch.float16):
        for batch in (2, 3, 4):
            windows = torch.randn(batch, 1, 3, 16, 12)
            torch.testing.assert_close(compiled(windows), net(windows))
    assert counters["stats"]["unique_graphs"] == 2  # of the first size, of any


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo's own look at logits
def test_a_compiled_training_is_the_same_training(nnunet):
    """Both stages, validation, the switch of deep supervision, and keys that know nothing of it."""
    weights, losses = [], []
    for fold, backend in enumerate((None, "eager")):
        torch.manual_seed(2)
        np.random.seed(2)
        t = trainer(fold=fold)
        t.compile_backend = backend
        t.run_training()
        losses.append(t.logger.get_value("train_losses", step=None))
        t.set_deep_supervision_enabled(False)
        assert isinstance(t.network(torch.randn(1, 1, 6, 20, 16)), torch.Tensor)
        weights.append(
            read_checkpoint(fold_folder(nnunet, fold=fold) / "checkpoint_final.pth")[
                "network_weights"
            ]
        )
    assert counters["stats"]["unique_graphs"] >= 2
    assert weights[0].keys() == weights[1].keys()
    assert np.allclose(losses[0], losses[1], rtol=1e-3)
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], rtol=1e-2, atol=1e-3), name
