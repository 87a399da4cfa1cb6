"""From arrays to masks: preprocessing, windows and export against nnU-Net's own, voxel by voxel."""

import threading
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import gaussian_filter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.nnunet import preprocess
from dinomed3d.inference.nnunet.label_export import Certainty, Exporter, Labels, Regions
from dinomed3d.inference.nnunet.plan import read_plan
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.preprocess import filled, nonzero_box, prepare
from dinomed3d.inference.nnunet.segment import segment
from dinomed3d.inference.nnunet.sliding_window import LogitsChunk
from tests.dinomed3d.inference.models.write_model import tiny_dataset, tiny_network, tiny_plans
from tests.dinomed3d.training.conftest import LABELS, REGIONS

SPACING = (1.0, 2.0, 0.8)


def volume(channels=1):
    noise = np.random.default_rng(0).standard_normal((channels, 40, 15, 50)).astype(np.float32)
    smooth = gaussian_filter(noise, [0, 2, 1, 2])
    smooth /= smooth.std()
    smooth[:, :3] = 0
    smooth[..., 45:] = 0
    smooth[:, 10:14, 5:9, 10:14] = 0  # a hole, which nnU-Net fills in its mask
    return smooth


def plan_of(plans, dataset, kind):
    return read_plan(
        SimpleNamespace(plans=plans, dataset=dataset, configuration=kind, source="model")
    )


def predictor_of(*networks, mirroring=None, threads=1):
    device = torch.device("cpu")
    return Predictor(networks, mirroring=mirroring, device=device, precision=None, threads=threads)


@pytest.fixture(params=[LABELS, REGIONS], ids=["labels", "regions"])
def prepared(request):
    """A preprocessed volume, its plan, and a network for it."""
    plan = plan_of(tiny_plans(), tiny_dataset(request.param), "3d_fullres")
    return prepare([volume()[0]], SPACING, plan), plan, tiny_network(3, 1, plan.heads)


def stock(plans, dataset, kind, networks, image, mirroring):
    """nnU-Net's own preprocessing, prediction and export."""
    manager = PlansManager(plans)
    configuration = manager.get_configuration(kind)
    labels = manager.get_label_manager(dataset)
    threads = torch.get_num_threads()
    predictor = nnUNetPredictor(
        device=torch.device("cpu"), allow_tqdm=False, use_mirroring=mirroring is not None
    )
    states = [network.state_dict() for network in networks]
    predictor.manual_initialization(
        tiny_network(len(configuration.patch_size), len(image), labels.num_segmentation_heads),
        manager, configuration, states, dataset, "nnUNetTrainer", mirroring,
    )  # fmt: skip
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case_npy(
        image, None, {"spacing": list(SPACING)}, manager, configuration, dataset
    )
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    mask = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, manager, configuration, labels, properties
    )
    torch.set_num_threads(threads)
    return data, mask


class Remembers(torch.nn.Module):
    """Gives what it was given, and keeps it."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, windows):
        self.given.append(windows)
        return windows.clone()


@pytest.mark.parametrize("mirroring", [None, (0, 2)])
def test_a_trial_takes_each_network_once_and_once_more_mirrored(mirroring):
    first, last = Remembers(), Remembers()
    windows = torch.randn(2, 1, 2, 3, 4)
    predictor = predictor_of(first, last, mirroring=mirroring)
    logits = predictor.try_passes(windows, [(0, 0, 0)] * 2)
    torch.testing.assert_close(logits, windows)  # the mirrored one is turned back
    assert len(first.given) == 1 and torch.equal(first.given[0], windows)
    expected = [windows] if mirroring is None else [windows, windows.flip(2, 4)]
    assert len(last.given) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(last.given, expected, strict=True))


@pytest.mark.parametrize("kind", ["3d_fullres", "2d", "anisotropic"])
@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize(
    ("mirroring", "folds", "splits"), [(None, 1, 1), ((0, 1), 1, 3), (None, 2, 2)]
)
def test_equals_nnunet(kind, labels, mirroring, folds, splits):
    plans, dataset, image = tiny_plans(kind), tiny_dataset(labels), volume()
    plan = plan_of(plans, dataset, kind)
    networks = [tiny_network(len(plan.patch), 1, plan.heads, seed) for seed in range(1, folds + 1)]
    data, mask = stock(plans, dataset, kind, networks, image, mirroring)
    prepared = prepare([image[0]], SPACING, plan)
    np.testing.assert_allclose(prepared.data.numpy(), data, atol=3e-6)
    predictor = predictor_of(*networks, mirroring=mirroring)
    reported = []
    ours = segment(
        prepared,
        plan,
        predictor,
        step=0.5,
        splits=splits,
        batch=3,
        progress=lambda *windows: reported.append(windows),
    )
    assert ours.mask.shape == mask.shape == (40, 15, 50)
    assert len(np.unique(mask)) > 1
    # nnU-Net sums in float16, whose smallest numbers are the weights of a window's corners: there it rounds
    # logits to whole numbers, once for each fold. A random network's labels hang on that; trained ones do not.
    assert (ours.mask == mask).mean() >= (0.9997 if folds == 1 else 0.998)
    assert 0.3 < ours.certainty <= 1 and reported == sorted(reported)
    done, windows = reported[-1]
    assert done == windows and {count for _, count in reported} == {windows}


def test_threads_change_nothing(prepared):
    volume, plan, network = prepared
    one, several = (
        segment(
            volume,
            plan,
            predictor_of(network, mirroring=(0,), threads=threads),
            step=0.3,
            splits=2,
            batch=1,
        )
        for threads in (1, 3)
    )
    assert np.array_equal(one.mask, several.mask)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("predict")]


@pytest.mark.parametrize("where", ["label_export.Exporter.add", "sliding_window._add"])
def test_interrupted_it_leaves_no_threads_behind_while_the_error_is_looked_at(
    prepared, monkeypatch, where
):
    volume, plan, network = prepared
    before = torch.get_num_threads()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"dinomed3d.inference.nnunet.{where}", interrupted)
    predictor = predictor_of(network, mirroring=(0,), threads=3)
    with pytest.raises(KeyboardInterrupt) as error:
        segment(volume, plan, predictor, step=0.3, splits=2, batch=1)
    assert error.tb is not None and torch.get_num_threads() == before
    assert not [t for t in threading.enumerate() if t.name.startswith("predict")]


def test_splits_change_nothing(prepared):
    volume, plan, network = prepared
    predictor = predictor_of(network)
    one, many = (segment(volume, plan, predictor, step=0.5, splits=n, batch=2) for n in (1, 7))
    assert np.array_equal(one.mask, many.mask)
    assert one.certainty == pytest.approx(many.certainty, abs=1e-6)


def test_probabilities_agree_with_the_mask(prepared):
    volume, plan, network = prepared
    options = {"step": 0.5, "splits": 2, "batch": 2}
    without = segment(volume, plan, predictor_of(network), **options)
    logits = np.full((plan.heads, *volume.crop_shape), np.nan, np.float32)

    def take(row, z, values):
        logits[:, z, row : row + values.shape[1]] = values

    given = segment(volume, plan, predictor_of(network), probabilities=take, **options)
    assert not np.isnan(logits).any()
    # whole planes and single voxels are interpolated with roundings of their own
    assert (given.mask == without.mask).mean() > 0.9999
    mask = given.mask.transpose(plan.transpose)[volume.box]
    if plan.regions is None:
        assert np.array_equal(mask, logits.argmax(0))
    else:
        assert np.array_equal(mask > 0, (logits > 0).any(0))


def test_on_a_device_the_host_waits_once_for_a_chunk_and_the_labels_are_the_same(prepared):
    """The way of GPUs, on a CPU's tensors: nothing asks for a number or for the places of voxels."""
    volume, plan, _ = prepared
    resampling = plan.logits.between(
        volume.data.shape[1:], volume.crop_shape, volume.network_spacing_mm, volume.spacing_mm
    )
    torch.manual_seed(0)
    logits = torch.randn(plan.heads, *volume.data.shape[1:])
    decide = Labels() if plan.regions is None else Regions(plan.regions)
    results, waits = [], Waits()
    for on_device in (False, True):
        labels, certainty = np.zeros(volume.crop_shape, np.uint8), Certainty()
        exporter = Exporter(
            labels, resampling, (0, volume.crop_shape[1]), decide,
            padding=(0, 0, 0), certainty=certainty, device=logits.device,
        )  # fmt: skip
        exporter.on_device = on_device
        low, high = exporter.row_range
        with waits if on_device else nullcontext():
            for first in range(0, logits.shape[1], 5):
                exporter.add(
                    LogitsChunk(logits=logits[:, first : first + 5, low:high], first=first)
                )
        results.append((labels, certainty.mean))
    (expected, mean), (found, found_mean) = results
    # rounding of interpolated ties, as between planes and single voxels
    assert (found == expected).mean() > 0.9999
    assert found_mean == pytest.approx(mean, rel=1e-5)
    assert waits.seen == []


class Waits(TorchDispatchMode):
    """Operators for whose result a host waits."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("nonzero", "_local_scalar_dense", "masked_select"):
            self.seen.append(func)
        if func.overloadpacket.__name__ == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            self.seen.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["3d_fullres", "anisotropic"])
def test_a_gpu_resamples_without_mixing_devices(kind):
    """On tensors without values: every operand is where it must be, and the result is on the CPU."""
    plan = plan_of(
        tiny_plans(kind, scheme="ZScoreNormalization", masked=True), tiny_dataset(), kind
    )
    # a range of the whole volume would need values
    plan = replace(plan, data=replace(plan.data, clip=kind == "anisotropic"))
    gpu = torch.device("cuda")
    image = volume()[0]
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = prepare([image], SPACING, plan, device=gpu)
    assert found.data.device.type == "cpu" and found.data.shape[0] == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("MPS backend out of memory")]
)
def test_a_full_gpu_leaves_it_to_the_cpu(monkeypatch, error):
    plan = plan_of(tiny_plans(), tiny_dataset(), "3d_fullres")
    expected = prepare([volume()[0]], SPACING, plan).data
    whole = preprocess.resample_array

    def full(*args, device=None):
        if device is not None:
            raise error
        return whole(*args)

    monkeypatch.setattr(preprocess, "resample_array", full)
    assert torch.equal(prepare([volume()[0]], SPACING, plan).data, expected)


@pytest.mark.parametrize(
    "scheme",
    ["CTNormalization", "RescaleTo01Normalization", "NoNormalization", "ZScoreNormalization"],
)
@pytest.mark.parametrize("masked", [False, True])
def test_normalisation_equals_nnunet(scheme, masked):
    plans = tiny_plans(channels=2, scheme=scheme, masked=masked)
    dataset = tiny_dataset(channels=("a", "b"))
    image = volume(2)
    network = tiny_network(3, 2, 3)
    data, _ = stock(plans, dataset, "3d_fullres", [network], image, None)
    plan = plan_of(plans, dataset, "3d_fullres")
    prepared = prepare(list(image), SPACING, plan)
    np.testing.assert_allclose(prepared.data.numpy(), data, atol=1e-5)


def test_stored_types_make_no_difference():
    plan = plan_of(tiny_plans(), tiny_dataset(), "3d_fullres")
    image = (volume()[0] * 100).astype(np.int16)
    one = prepare([image], SPACING, plan).data
    two = prepare([image.astype(np.float64)], SPACING, plan).data
    torch.testing.assert_close(one, two)


def test_crop_and_holes_by_hand():
    image = np.zeros((4, 5, 6), np.int16)
    image[1:4, 1:4, 2:5] = 1
    image[2, 2, 3] = 0
    assert nonzero_box([image]) == (slice(1, 4), slice(1, 4), slice(2, 5))
    assert filled([image]).sum() == 27  # the hole inside counts as inside
    image[2, 2, 4] = 0  # a way out: no hole
    assert filled([image]).sum() == 25
    assert nonzero_box([np.zeros((2, 3, 4))]) == (slice(0, 2), slice(0, 3), slice(0, 4))


def test_a_volume_thinner_than_a_voxel_is_refused():
    plan = plan_of(tiny_plans("anisotropic"), tiny_dataset(), "anisotropic")
    with pytest.raises(CaseError, match="less than one voxel thick"):
        prepare([np.ones((9, 1, 9))], (1, 1, 1), plan)
