"""Sparse convolution: numbers by hand, against dense convolution, gradients, precision, errors."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from pointseg.ops.convolution import cpu_tiles, on_accelerators, on_cpu, triton_choice
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.layers import InverseConv3d, StridedConv3d, SubmanifoldConv3d
from pointseg.ops.convolution.sparse_convolution import convolve
from pointseg.ops.hardware.pieces import decided_for

SHAPE = (6, 8, 4)


def scattered(density=0.4, batches=2, seed=0, shape=SHAPE):
    """Random voxels in random order."""
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(batches, *shape, generator=generator) < density).nonzero()
    cells = cells[torch.randperm(len(cells), generator=generator)]
    return Grid(cells[:, 1:].contiguous(), cells[:, 0].contiguous())


def dense(feat, grid, shape=SHAPE):
    volume = feat.new_zeros(int(grid.batch.max()) + 1, feat.shape[1], *shape)
    x, y, z = grid.coord.T
    volume[grid.batch, :, x, y, z] = feat
    return volume


def at(volume, grid):
    x, y, z = grid.coord.T
    return volume[grid.batch, :, x, y, z]


def random(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PLAIN = ("tiles", "small tiles", "neighbourhoods", "table")


@pytest.fixture(params=[*PLAIN, "triton"])
def way(request, monkeypatch):
    """The ways through: tiles of a CPU, also where they are many, its narrow rows, other devices' table, kernels."""
    monkeypatch.setattr(on_cpu, "NARROW", 0)
    if request.param == "small tiles":
        monkeypatch.setattr(on_cpu, "_ROWS", 7)
        monkeypatch.setattr(cpu_tiles, "PAIRS_PER_TILE", 50)
        monkeypatch.setattr(cpu_tiles, "PAIRS_PER_SECTION", 1)
    if request.param == "neighbourhoods":
        monkeypatch.setattr(on_cpu, "NARROW", 16)
        monkeypatch.setattr(on_cpu, "_PIECE", 400)
    if request.param == "table":
        monkeypatch.setattr(on_accelerators, "_BLOCK", 400)
    if request.param == "triton":
        interpreted = request.getfixturevalue("interpreted")
        monkeypatch.setattr(triton_choice, "kernels_for", lambda rows: interpreted)
    with decided_for("cuda" if request.param in ("table", "triton") else "cpu"):
        yield request.param


def test_by_hand(way):
    # a row of voxels 0, 1, 3; the kernel 1, 10, 100 along z
    coord = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 3]])
    grid = Grid(coord, torch.zeros(3, dtype=torch.int64))
    weight = torch.zeros(1, 3, 3, 3, 1)
    weight[0, 1, 1, :, 0] = torch.tensor([1.0, 10.0, 100.0])
    feat = torch.tensor([[2.0], [3.0], [5.0]])
    assert convolve(feat, weight, grid.kernel_map(3)).tolist() == [[320.0], [32.0], [50.0]]


def test_strided_and_back_by_hand(way):
    coord = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 3]])
    grid = Grid(coord, torch.zeros(3, dtype=torch.int64))
    weight = torch.zeros(1, 2, 2, 2, 1)
    weight[0, 0, 0, :, 0] = torch.tensor([1.0, 10.0])
    kernel_map = grid.coarser()[1]
    coarse = convolve(torch.tensor([[2.0], [3.0], [5.0]]), weight, kernel_map)
    assert coarse.tolist() == [[32.0], [50.0]]
    assert convolve(coarse, weight, kernel_map.transposed).tolist() == [[32.0], [320.0], [500.0]]


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("density", [0.02, 0.4, 1.0])
def test_submanifold_is_dense_convolution_at_the_voxels(size, density, way):
    shape = (4, 4, 4) if (way, size) == ("triton", 5) else SHAPE  # interpreting takes its time
    grid = scattered(density, shape=shape)
    feat, weight = random(len(grid), 3), random(5, size, size, size, 3, seed=2)
    expected = F.conv3d(dense(feat, grid, shape), weight.movedim(-1, 1), padding=size // 2)
    assert torch.allclose(convolve(feat, weight, grid.kernel_map(size)), at(expected, grid))


def test_strided_is_dense_convolution(way):
    grid = scattered()
    feat, weight = random(len(grid), 3), random(5, 2, 2, 2, 3, seed=2)
    coarse, kernel_map = grid.coarser()
    expected = F.conv3d(dense(feat, grid), weight.movedim(-1, 1), stride=2)
    assert torch.allclose(convolve(feat, weight, kernel_map), at(expected, coarse))


def test_inverse_is_dense_transposed_convolution(way):
    grid = scattered()
    coarse, kernel_map = grid.coarser()
    feat, weight = random(len(coarse), 3), random(5, 2, 2, 2, 3, seed=2)
    half = tuple(n // 2 for n in SHAPE)
    expected = F.conv_transpose3d(dense(feat, coarse, half), weight.movedim(-1, 0), stride=2)
    assert torch.allclose(convolve(feat, weight, kernel_map.transposed), at(expected, grid))


@pytest.mark.parametrize("way", PLAIN, indirect=True)  # the kernels': test_triton_launch.py
@pytest.mark.parametrize("which", ["submanifold", "strided", "inverse"])
def test_gradients(which, way):
    grid = scattered(0.1)
    coarse, strided = grid.coarser()
    rows, along, size = {
        "submanifold": (len(grid), grid.kernel_map(3), 3),
        "strided": (len(grid), strided, 2),
        "inverse": (len(coarse), strided.transposed, 2),
    }[which]
    feat = random(rows, 2).requires_grad_()
    weight = random(3, size, size, size, 2, seed=2).requires_grad_()
    assert gradcheck(lambda f, w: convolve(f, w, along), (feat, weight))


@pytest.mark.parametrize(("device", "own"), [("cpu", on_cpu), ("cuda", on_accelerators)])
def test_each_device_has_its_way(device, own, monkeypatch):
    called = []
    for name in ("sum_products", "weight_grad"):
        monkeypatch.setattr(own, name, note(called, getattr(own, name)))
    grid = scattered(0.1)
    feat, weight = random(len(grid), 2).requires_grad_(), random(3, 27, 2).requires_grad_()
    with decided_for(device):
        convolve(feat, weight, grid.kernel_map(3)).sum().backward()
    assert called == ["sum_products", "sum_products", "weight_grad"]  # forward, then both gradients


def note(called, function):
    """The function, whose calls are written down."""
    return lambda *given: called.append(function.__name__) or function(*given)


@pytest.mark.parametrize("density", [0.02, 0.4])
@pytest.mark.parametrize("narrow", [0, 8])
def test_gradients_do_not_depend_on_threads(density, narrow, request, monkeypatch):
    """Of one tile and of several, also where an offset finds no pairs; of narrow rows."""
    monkeypatch.setattr(on_cpu, "NARROW", narrow)
    grids = [scattered(density, shape=(20, 20, 20)) for _ in range(2)]
    feat, weight = random(len(grids[0]), 8), random(8, 3, 3, 3, 8, seed=2)
    found = []
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    for threads, grid in zip((1, 2), grids, strict=True):
        torch.set_num_threads(threads)
        f, w = (t.clone().requires_grad_() for t in (feat, weight))
        out = convolve(f, w, grid.kernel_map(3))
        again = [torch.autograd.grad(out, (f, w), out, retain_graph=True) for _ in range(2)]
        assert all(torch.equal(one, other) for one, other in zip(*again, strict=True))
        found.append((out, *again[0]))
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two)


@pytest.mark.parametrize("frozen", ["feat", "weight"])
def test_gradients_only_where_wanted(frozen, way):
    grid = scattered(0.1)
    inputs = {"feat": random(len(grid), 2), "weight": random(3, 3, 3, 3, 2)}
    for name, tensor in inputs.items():
        tensor.requires_grad_(name != frozen)
    convolve(inputs["feat"], inputs["weight"], grid.kernel_map(3)).sum().backward()
    assert [name for name, tensor in inputs.items() if tensor.grad is None] == [frozen]


@pytest.mark.parametrize("blas", [True, False])
def test_many_rows_in_float32(blas, monkeypatch):
    """Long enough for the products that go through oneDNN where BLAS is slow, and for several tiles."""
    monkeypatch.setattr(on_cpu, "fills_vectors", lambda: blas)
    grid = scattered(0.5, shape=(40, 30, 20))
    feat, weight = random(len(grid), 20), random(24, 3, 3, 3, 20, seed=2) / 20
    grad = random(len(grid), 24, seed=3)
    found = []
    for dtype in (torch.float64, torch.float32):
        f, w = (t.to(dtype).requires_grad_() for t in (feat, weight))
        out = convolve(f, w, grid.kernel_map(3))
        found.append((out, *torch.autograd.grad(out, (f, w), grad.to(dtype))))
    assert len(grid.kernel_map(3).tiles) > 1
    for exact, single in zip(*found, strict=True):
        assert single.dtype == torch.float32
        assert (single - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_as_matrix_products_do(dtype, way):
    grid = scattered(0.1 if way == "triton" else 0.4)
    feat, weight = random(len(grid), 8).float(), random(4, 3, 3, 3, 8).float() / 8
    exact_feat, exact_weight = feat.clone().requires_grad_(), weight.clone().requires_grad_()
    exact = convolve(exact_feat, exact_weight, grid.kernel_map(3))
    exact.sum().backward()
    feat.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", dtype):
        out = convolve(feat, weight, grid.kernel_map(3))
    out.sum().backward()
    assert out.dtype == dtype
    assert feat.grad.dtype == weight.grad.dtype == torch.float32
    assert (out - exact).abs().max() < 0.02 * exact.abs().max()
    for got, want in ((feat, exact_feat), (weight, exact_weight)):
        assert (got.grad - want.grad).abs().max() < 0.02 * want.grad.abs().max()


def test_rows_in_another_order():
    """Those of a layer, which sorts them, are where the map of unsorted voxels has them, also gradients."""
    grid, layer = scattered(), SubmanifoldConv3d(3, 4, bias=False).double()
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(3))
    feat, grad = random(len(grid), 3).requires_grad_(), random(len(grid), 4, seed=4)
    moved = layer(feat[order], Grid(grid.coord[order], grid.batch[order]))
    expected = convolve(feat, layer.weight, grid.kernel_map(3))
    assert torch.allclose(moved, expected[order])
    for one, other in zip(
        torch.autograd.grad(moved, (feat, layer.weight), grad[order]),
        torch.autograd.grad(expected, (feat, layer.weight), grad),
        strict=True,
    ):
        assert torch.allclose(one, other)


def test_clouds_moved_by_whole_voxels():
    grid, layer = scattered(), SubmanifoldConv3d(3, 4, 5).double()
    moved = Grid(grid.coord + torch.tensor([7, 0, 11]), grid.batch)
    feat = random(len(grid), 3)
    assert torch.equal(layer(feat, moved), layer(feat, grid))


def test_clouds_of_a_batch_do_not_meet():
    grid, layer = scattered(), SubmanifoldConv3d(3, 4, 5).double()
    feat = random(len(grid), 3)
    together = layer(feat, grid)
    for number in (0, 1):
        rows = grid.batch == number
        alone = layer(feat[rows], Grid(grid.coord[rows], grid.batch[rows]))
        assert torch.allclose(together[rows], alone)


@pytest.mark.parametrize("threads", [1, 2])
def test_same_numbers_every_time(threads, monkeypatch):
    monkeypatch.setattr(on_cpu, "NARROW", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        grid = scattered(0.5, shape=(30, 30, 30))
        feat, layer = random(len(grid), 16).float().requires_grad_(), SubmanifoldConv3d(16, 16)
        runs = []
        for _ in range(2):
            out = layer(feat, grid)
            runs.append((out, *torch.autograd.grad(out.square().sum(), (feat, layer.weight))))
        assert len(grid.kernel_map(3).tiles) > threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_number_of_threads_changes_nothing(monkeypatch):
    """Beyond the order of sums over tiles: more tiles in two threads than in one."""
    monkeypatch.setattr(on_cpu, "NARROW", 0)
    grid = scattered(0.5, shape=(30, 30, 30))
    feat, weight = random(len(grid), 8).requires_grad_(), random(8, 3, 3, 3, 8).requires_grad_()
    before, runs = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            fresh = Grid(grid.coord, grid.batch).kernel_map(3)
            out = convolve(feat, weight, fresh)
            runs.append((out, *torch.autograd.grad(out.square().sum(), (feat, weight))))
        finally:
            torch.set_num_threads(before)
    assert all(torch.allclose(a, b) for a, b in zip(*runs, strict=True))


def test_under_inference_mode():
    grid, layer = scattered(), SubmanifoldConv3d(3, 4)
    feat = random(len(grid), 3).float()
    with torch.inference_mode():
        out = layer(feat, grid)
    assert torch.equal(out, layer(feat, grid))


def test_one_voxel_and_none(way):
    for count in (1, 0):
        grid = Grid(torch.ones(count, 3, dtype=torch.int64), torch.zeros(count, dtype=torch.int64))
        feat = torch.ones(count, 3, requires_grad=True)
        down, same, up = StridedConv3d(3, 4), SubmanifoldConv3d(4, 4), InverseConv3d(4, 5)
        out = up(same(down(feat, grid), grid.coarser()[0]), grid)
        out.sum().backward()
        assert out.shape == (count, 5) and feat.grad.shape == (count, 3)
        assert torch.isfinite(same.weight.grad).all()
        assert bool(same.weight.grad.any()) == bool(count)


def test_bias_is_added():
    grid, layer = scattered().sorted()[0], SubmanifoldConv3d(3, 4)
    feat = random(len(grid), 3).float()
    without = convolve(feat, layer.weight, grid.kernel_map(3))
    assert torch.equal(layer(feat, grid), without + layer.bias)
    assert StridedConv3d(3, 4, bias=False).bias is None


def test_bias_has_a_gradient_in_its_own_type(way):
    grid = scattered(0.1)
    feat, weight = random(len(grid), 3).float(), random(4, 2, 2, 2, 3).float()
    bias = torch.tensor([1.0, -2.0, 0.0, 1000.0], requires_grad=True)
    coarse, strided = grid.coarser()
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(feat, weight, strided, bias=bias)
    assert (out - convolve(feat, weight, strided) - bias).abs().max() < 8
    grad = torch.linspace(0, 1, 4).bfloat16().expand(len(coarse), 4)
    out.backward(grad)
    assert bias.grad.dtype == torch.float32
    assert torch.equal(bias.grad, grad.float().sum(0))


def test_one_voxel_kernels_are_read_as_spconv_does():
    """Its (out, 1, 1, 1, in) numbers are multiplied as an (in, out) matrix."""
    layer = SubmanifoldConv3d(2, 3, kernel_size=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).view(3, 1, 1, 1, 2))
    out = layer(torch.tensor([[1.0, 10.0]]), Grid(torch.zeros(1, 3).long(), torch.zeros(1).long()))
    assert out.tolist() == [[30.0, 41.0, 52.0]]  # 0 + 30, 1 + 40, 2 + 50


@pytest.mark.parametrize(
    ("rows", "channels", "size", "named"),
    [(1, 3, 3, "'feat'"), (0, 2, 3, "'weight'"), (0, 3, 5, "'weight'")],
)
def test_what_does_not_fit_is_refused(rows, channels, size, named):
    grid = scattered()
    weight = torch.zeros(4, 3, 3, 3, channels)
    with pytest.raises(ValueError, match=named):
        convolve(torch.zeros(len(grid) - rows, 3), weight, grid.kernel_map(size))


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="'kernel_size'"):
        SubmanifoldConv3d(3, 4, kernel_size=2)
