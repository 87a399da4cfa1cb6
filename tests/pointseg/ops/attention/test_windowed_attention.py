"""Windows along a curve and attention within them."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import NamedTuple

import pytest
import torch

from pointseg.ops.attention import fused_kernels, relative_positions
from pointseg.ops.attention.relative_positions import RelativePositions, flex_with_positions
from pointseg.ops.attention.windowed_attention import attend, attend_explicitly
from pointseg.ops.attention.windows import Windows


def rows(count, channels=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3 * channels, generator=generator, dtype=dtype)


def shuffled(counts, seed=0):
    """Rows of each cloud in an arbitrary order, cloud after cloud."""
    generator = torch.Generator().manual_seed(seed)
    first, parts = 0, []
    for count in counts:
        parts.append(first + torch.randperm(count, generator=generator))
        first += count
    return torch.cat(parts)


def by_loop(qkv, counts, order, size, heads, bias=None):
    """Each point attends to the window that holds its place along the curve, one by one."""
    channels = qkv.shape[1] // 3
    width = channels // heads
    out = torch.zeros(len(qkv), channels, dtype=qkv.dtype)
    first = 0
    for count in counts:
        for place in range(count):
            start = place // size * size
            if start + size > count:
                start = max(0, count - size)
            members = order[first + start : first + min(start + size, count)]
            row = order[first + place]
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                query, key = (
                    qkv[row, :channels][part],
                    qkv[members, channels : 2 * channels][:, part],
                )
                scores = key @ query / math.sqrt(width)
                if bias is not None:
                    scores = scores + bias(row, members)[:, head]
                out[row, part] = scores.softmax(0) @ qkv[members, 2 * channels :][:, part]
        first += count
    return out


def test_windows_by_hand():
    windows = Windows.of([10, 3, 0, 4], 4)
    assert windows.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 13, 14, 15, 16, 10, 11, 12]
    assert windows.borrowed.tolist() == [8, 9]
    assert windows.slots.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 16, 17, 18, 12, 13, 14, 15]
    assert windows.short == (3,) and windows.longest == 4
    assert windows.ends.tolist() == [0, 4, 8, 12, 16, 19]
    assert [tuple(part.shape) for part in windows.split(windows.rows)] == [(4, 4), (1, 3)]


def test_windows_along_a_curve_by_hand():
    windows = Windows.of([3], 2).along(torch.tensor([2, 0, 1]))
    assert windows.rows.tolist() == [2, 0, 0, 1]
    assert windows.slots.tolist() == [1, 3, 0]
    assert windows.borrowed_rows.tolist() == [0]


COUNTS = [[7], [8], [9], [16], [17], [1], [3, 21, 0, 8, 30], [5, 2]]


@pytest.mark.parametrize("counts", COUNTS)
def test_every_row_has_a_slot_that_holds_it(counts):
    windows = Windows.of(counts, 8).along(shuffled(counts))
    count = sum(counts)
    assert torch.equal(windows.rows[windows.slots], torch.arange(count))
    others = torch.ones(len(windows.rows), dtype=torch.bool)
    others[windows.slots] = False
    assert torch.equal(others.nonzero()[:, 0], windows.borrowed)
    assert len(windows.borrowed_rows.unique()) == len(windows.borrowed)


@pytest.mark.parametrize("counts", COUNTS)
def test_as_a_loop(counts):
    qkv, order = rows(sum(counts)), shuffled(counts)
    windows = Windows.of(counts, 8).along(order)
    wanted = by_loop(qkv, counts, order, 8, 3)
    torch.testing.assert_close(attend(qkv, windows, heads=3), wanted)
    torch.testing.assert_close(attend_explicitly(qkv, windows, heads=3), wanted)


@pytest.mark.parametrize("function", [attend, attend_explicitly])
def test_gradients_are_those_of_finite_differences(function):
    qkv = rows(11, 4).requires_grad_()
    windows = Windows.of([8, 3], 5).along(shuffled([8, 3]))
    assert torch.autograd.gradcheck(lambda q: function(q, windows, heads=2), (qkv,))


def test_equal_values_come_out_as_they_are():
    qkv = rows(20)
    qkv[:, 24:] = 3.0
    out = attend(qkv, Windows.of([20], 6), heads=2)
    torch.testing.assert_close(out, torch.full_like(out, 3.0))


def test_scale():
    qkv, windows = rows(9), Windows.of([9], 9)
    turned = torch.cat([qkv[:, :12] * 0.3, qkv[:, 12:]], 1)
    for function in (attend, attend_explicitly):
        torch.testing.assert_close(
            function(qkv, windows, heads=1, scale=0.3),
            function(turned, windows, heads=1, scale=1.0),
        )


def test_few_scores_at_a_time(monkeypatch):
    counts = [40, 3]
    qkv, windows = rows(43), Windows.of(counts, 8)
    wanted = attend(qkv, windows, heads=2)
    monkeypatch.setattr("pointseg.ops.attention.windowed_attention._PAIRS", 200)
    torch.testing.assert_close(attend_explicitly(qkv, windows, heads=2), wanted)


def test_dropout_drops_in_the_mean_nothing():
    qkv = rows(400, dtype=torch.float32)
    qkv[:, 24:] = 1.0
    windows = Windows.of([400], 50)
    for function in (attend, attend_explicitly):
        torch.manual_seed(0)
        out = function(qkv, windows, heads=2, dropout=0.3)
        assert out.std() > 0.01 and abs(out.mean() - 1) < 0.05


def test_relative_positions_by_hand():
    bias = RelativePositions(2, 1)
    assert bias.reach == 4 and bias.rpe_table.shape == (27, 1)
    with torch.no_grad():
        bias.rpe_table[:] = torch.arange(27.0)[:, None]
    out = bias(torch.tensor([[[0, 0, 0], [1, 7, 2]]]))
    # rows of the table: 4 + dx, 9 + 4 + dy, 18 + 4 + dz, where |d| <= 4
    assert out[0, 0].tolist() == [[4 + 13 + 22, 3 + 9 + 20], [5 + 17 + 24, 4 + 13 + 22]]


def test_relative_positions_as_a_loop():
    counts, heads = [13], 3
    coord = torch.randint(0, 30, (13, 3), generator=torch.Generator().manual_seed(1))
    table = RelativePositions(5, heads).double()
    qkv, order = rows(13), shuffled(counts)

    def bias(row, members):
        distance = (coord[row] - coord[members]).clamp(-table.reach, table.reach) + table.reach
        size = 2 * table.reach + 1
        return sum(table.rpe_table[distance[:, axis] + axis * size] for axis in range(3))

    windows = Windows.of(counts, 5).along(order)
    out = attend_explicitly(qkv, windows, heads=heads, bias=table, grid_coord=coord)
    torch.testing.assert_close(out, by_loop(qkv, counts, order, 5, heads, bias))
    out.sum().backward()
    assert table.rpe_table.grad is not None


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # in dynamo
def test_relative_positions_by_flex_attention(monkeypatch):
    counts, heads = [40, 7], 2  # full windows and a short one
    coord = torch.randint(0, 30, (47, 3), generator=torch.Generator().manual_seed(1))
    qkv = rows(47, dtype=torch.float32)
    windows = Windows.of(counts, 16).along(shuffled(counts))
    table = RelativePositions(16, heads)
    with torch.no_grad():
        table.rpe_table.mul_(50)  # far from no bias at all
    change = rows(47, 4, seed=2, dtype=torch.float32)
    found = []
    for by_flex in (False, True):
        monkeypatch.setattr(fused_kernels, "has_flex", lambda *_, _on=by_flex, **__: _on)
        # as it is compiled on CUDA, and computed step by step here
        monkeypatch.setattr(relative_positions, "compiled", flex_with_positions)
        table.rpe_table.grad = None
        out = attend_explicitly(qkv, windows, heads=heads, scale=0.4, bias=table, grid_coord=coord)
        (out * change).sum().backward()
        found.append((out, table.rpe_table.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def as_varlen(signature):
    """What ``varlen_attn`` is documented to compute, sequence by sequence, for calls that its signature takes."""

    def varlen(*args, **named):
        call = signature.bind(*args, **named)
        call.apply_defaults()
        given = call.arguments
        query, key, value = given["query"], given["key"], given["value"]
        ends = given["cu_seq_q"].tolist()
        assert given["cu_seq_q"].dtype == torch.int32 and torch.equal(
            given["cu_seq_q"], given["cu_seq_k"]
        )
        lengths = [end - start for start, end in itertools.pairwise(ends)]
        assert ends[0] == 0 and ends[-1] == len(query)
        assert max(lengths) == given["max_q"] == given["max_k"]
        assert query.shape[-1] % 8 == 0 and query.stride(-1) == 1
        for bound in given["window_size"]:
            assert bound == -1 or bound >= max(lengths)
        scale = query.shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
        parts = []
        for q, k, v in zip(*(t.split(lengths) for t in (query, key, value)), strict=True):
            scores = torch.einsum("ihc,jhc->hij", q, k) * scale
            parts.append(torch.einsum("hij,jhc->ihc", scores.softmax(-1), v))
        return torch.cat(parts)

    return varlen


@pytest.mark.parametrize("counts", [[3, 21, 0, 8, 30], [5, 2], [16]])
@pytest.mark.parametrize("width", [8, 6])  # a multiple of what kernels take, and one that is padded
def test_windows_of_all_lengths_in_one_call(counts, width, monkeypatch):
    varlen_attn = pytest.importorskip("torch.nn.attention.varlen").varlen_attn
    qkv = rows(sum(counts), 2 * width).requires_grad_()
    windows = Windows.of(counts, 8).along(shuffled(counts))
    change = rows(sum(counts), 2 * width, seed=1)[:, : 2 * width]
    wanted = attend(qkv, windows, heads=2)
    (gradient,) = torch.autograd.grad((wanted * change).sum(), qkv)
    monkeypatch.setattr(fused_kernels, "padding", lambda like, width: -width % 8)
    fake = as_varlen(inspect.signature(varlen_attn))
    calls = []
    monkeypatch.setattr(
        fused_kernels,
        "varlen",
        lambda *_, **__: lambda *a, **k: calls.append(1) or fake(*a, **k),
    )
    out = attend(qkv, windows, heads=2)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(torch.autograd.grad((out * change).sum(), qkv)[0], gradient)
    assert calls == [1]


class OnCuda(NamedTuple):
    """What the choice of kernels looks at in a tensor."""

    device: torch.device
    dtype: torch.dtype


@pytest.mark.parametrize(
    ("capability", "dtype", "width", "dropout", "is_varlen", "first"),
    [
        ((9, 0), torch.float16, 16, 0.0, True, "FLASH_ATTENTION"),
        ((9, 0), torch.float16, 64, 0.0, True, "CUDNN_ATTENTION"),
        ((9, 0), torch.bfloat16, 16, 0.1, False, "FLASH_ATTENTION"),
        ((9, 0), torch.float32, 64, 0.0, False, None),
        ((8, 0), torch.float16, 64, 0.0, True, None),
        ((7, 5), torch.float16, 16, 0.0, False, None),
    ],
)
def test_kernels_by_rule(capability, dtype, width, dropout, is_varlen, first, monkeypatch):
    pytest.importorskip("torch.nn.attention.varlen")
    like = OnCuda(torch.device("cuda", 0), dtype)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    orders = []
    monkeypatch.setattr(
        fused_kernels,
        "sdpa_kernel",
        lambda backends, set_priority=False: orders.append(backends[0].name),
    )
    assert (fused_kernels.varlen(like, width, dropout=dropout) is not None) == is_varlen
    fused_kernels.fused_backends(like, width)
    assert orders == ([] if first is None else [first])
    bounds = fused_kernels.varlen_window(width, 1024)
    assert bounds == ((-1, -1) if width == 64 else (1024, 1024))
    assert fused_kernels.has_flex(like, dropout=dropout) == (
        capability >= (8, 0) and not dropout and fused_kernels._flex_is_there()
    )


def test_on_a_cpu_the_plain_path_is_taken():
    like = torch.zeros(1, dtype=torch.float16)
    assert fused_kernels.varlen(like, 16, dropout=0.0) is None
    assert fused_kernels.padding(like, 18) == 0
    assert not fused_kernels.has_flex(like, dropout=0.0)


@pytest.mark.parametrize("options", [{}, {"upcast_attention": True}, {"upcast_softmax": True}])
def test_half_precision(options):
    qkv = rows(30, dtype=torch.float32)
    windows = Windows.of([30], 16)
    wanted = attend(qkv, windows, heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend_explicitly(qkv.bfloat16(), windows, heads=2, **options)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), wanted, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Windows.of([4], 0), "'size'"),
        (lambda: attend(rows(5), Windows.of([4], 2), heads=2), "'qkv'"),
        (lambda: attend_explicitly(rows(4), Windows.of([4], 2), heads=5), "5 heads"),
        (
            lambda: attend_explicitly(
                rows(4), Windows.of([4], 2), heads=2, bias=RelativePositions(2, 2)
            ),
            "'grid_coord'",
        ),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
