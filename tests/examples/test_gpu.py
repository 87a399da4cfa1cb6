"""The runner, measurements, comparisons and aims of examples/benchmarks/gpu.py, without a GPU."""

from __future__ import annotations

import json
import sys
import time
import warnings
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch
from torch.autograd import DeviceType

from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import gpu  # noqa: E402
import gpu_device  # noqa: E402
import gpu_equal  # noqa: E402
import gpu_operators  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_table  # noqa: E402
from gpu_parts import Part, run_parts  # noqa: E402

CPU = torch.device("cpu")
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def counting(bench):
    """A part that finds something, and counts how often it ran."""
    file = bench.work / "runs"
    file.write_text(file.read_text() + "x" if file.exists() else "x")
    bench.note("found", 1)
    bench.attempt("bad", lambda: 1 / 0)
    bench.attempt("command", lambda: sys.exit("a command failed"))
    bench.note("after", 2)


def failing(bench):
    bench.note("before", 1)
    (bench.work / f"failed-{time.monotonic_ns()}").touch()
    raise ValueError("broken")


def hanging(bench):
    bench.note("before", 1)
    time.sleep(60)


def part(run, seconds=1.0, **more):
    return Part(
        name=run.__name__,
        what="",
        seconds=seconds,
        module=__name__,
        function=run.__name__,
        **more,
    )


def run(work, *parts, seconds=100.0, again=False, tiny=False):
    bench = gpu_parts.Bench(device=CPU, tiny=tiny, work=work)
    return run_parts(parts, bench, seconds=seconds, again=again, report=lambda _: None)


@FORKS
def test_parts_end_alone_and_are_not_repeated(tmp_path):
    parts = [part(failing), part(counting)]
    found = run(tmp_path, *parts)
    assert found == json.loads((tmp_path / "results.json").read_text())
    assert found["failing"]["status"] == "failed"
    assert found["failing"]["found"]["before"] == 1
    assert found["failing"]["found"]["error"]["error"] == "ValueError: broken"
    assert found["counting"]["status"] == "done"
    assert list(found["counting"]["found"]) == ["found", "bad", "command", "after"]
    assert "ZeroDivisionError" in found["counting"]["found"]["bad"]["error"]
    assert "a command failed" in found["counting"]["found"]["command"]["error"]
    assert gpu_table.has_errors(found)

    run(tmp_path, *parts)
    assert (tmp_path / "runs").read_text() == "x"  # done before
    assert len(list(tmp_path.glob("failed-*"))) == 2  # not done before
    run(tmp_path, *parts, tiny=True)
    assert (tmp_path / "runs").read_text() == "xx"  # another setting
    assert list(run(tmp_path, part(counting), tiny=True, again=True)) == ["counting", "failing"]
    assert (tmp_path / "runs").read_text() == "xxx"


@FORKS
def test_a_part_is_stopped_and_one_without_time_is_not_begun(tmp_path):
    start = time.monotonic()
    long, short = part(failing, 50), part(counting, 50, least=0.01)
    found = run(tmp_path, long, part(hanging, 0.4), short, seconds=gpu_parts.MARGIN_S + 0.5)
    assert time.monotonic() - start < 20
    assert found["failing"] == {"status": "no time", "found": {}}
    assert found["hanging"]["status"].startswith("stopped")
    assert found["hanging"]["found"] == {"before": 1}
    assert found["counting"]["status"] == "no time"


@FORKS
def test_what_cannot_be_imported_costs_its_own_part(tmp_path):
    bad = Part(name="bad", what="", seconds=1, module="no_such_module", function="run")
    found = run(tmp_path, bad, part(counting))
    assert found["bad"]["found"]["error"]["error"].startswith("ModuleNotFoundError")
    assert found["counting"]["status"] == "done"


FINDS = {
    "ceilings": ["copy TB/s", "float16 TFLOP/s"],
    "compiling": ["compiled"],
    "convolution": ["ours, ms", "spconv_triton"],
    "operators": ["kernel maps", "attention", "convolution 3^3", "inverse convolution"],
    "networks": ["ptv3", "minkunet", "pointnext", "litept", "sonata", "utonia"],
    "volume-networks": ["DINO-Med3D, stage 1", "DINO-Med3D, stage 2"],
    "points-forward": ["ptv3", "minkunet", "pointnext", "litept"],
    "prediction": ["nnUNetv2_predict", "dinomed3d predict, auto"],
    "points-step": ["ptv3", "minkunet", "pointnext", "litept"],
    "volumes": ["tiny, stage 1", "tiny, stage 2"],
    "peers": ["ptv3, ours, ms", "minkunet, ours, ms"],
    "lifting": ["last, nearest", "views of a batch, 8 channels"],
    "volumes-compiled": ["tiny, stage 1"],
    "few-cases": ["skipped"],
}
"""Some of what each part finds."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [p.name for p in gpu.PARTS])
def test_trial_of_a_part(name, tmp_path, monkeypatch):
    """Each comes to its end without an error, and what it compares is equal."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of this process
    bench = gpu_parts.Bench(device=CPU, tiny=True, work=tmp_path)
    (chosen,) = [p for p in gpu.PARTS if p.name == name]
    chosen.run(bench)
    assert set(FINDS[name]) <= set(bench.found)
    assert not gpu_table.has_errors({name: {"status": "done", "found": bench.found}})
    unequal = [
        k for k, v in bench.found.items() if isinstance(v, dict) and not v.get("equal", True)
    ]
    assert unequal == []


@pytest.mark.parametrize(
    ("options", "named"), [(["--device", "cpu"], "--tiny"), (["--parts", "no"], "--parts")]
)
def test_refused_options(options, named, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    with pytest.raises(SystemExit) as end:
        gpu.main()
    assert end.value.code == 2
    assert named in capsys.readouterr().err


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda's functions with their own signatures, which do nothing but are written down."""
    called = []

    class Event:
        def __init__(self, enable_timing=False):
            assert enable_timing

        def record(self):
            called.append("record")

        def elapsed_time(self, end):
            assert called[-1] == "synchronize"  # an event that has not happened has no time
            return 3.0

    returned = {"max_memory_allocated": 3 * 2**30, "get_sync_debug_mode": 0}
    for name in (
        *returned, "synchronize", "empty_cache", "reset_peak_memory_stats", "set_sync_debug_mode"
    ):  # fmt: skip
        fake = create_autospec(getattr(torch.cuda, name))
        fake.side_effect = lambda *_, name=name: called.append(name) or returned.get(name)
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return called


def test_measured_on_cuda(cuda):
    gauge = gpu_device.Gauge(torch.device("cuda"))
    assert gauge.milliseconds(lambda: cuda.append("work"), warm=1, repeats=2) == 3.0
    once = ["synchronize", "record", "work", "record", "synchronize"]
    assert cuda == ["work", *once, *once]
    cuda.clear()
    assert gauge.peak_gib(lambda: cuda.append("work")) == 3.0
    assert cuda.index("reset_peak_memory_stats") < cuda.index("work")
    assert cuda[-2:] == ["synchronize", "max_memory_allocated"]


def test_waits_are_counted_where_our_code_is(cuda):
    text = f"import warnings\ndef ask(f):\n    f('{gpu_device.WAIT} (Triggered internally)')\n"
    namespace = {"__name__": "pointseg.ops.asks"}
    exec(text, namespace)
    gauge = gpu_device.Gauge(torch.device("cuda"))

    def work():
        for _ in range(2):
            namespace["ask"](warnings.warn)
        warnings.warn("something else", stacklevel=1)

    found = gauge.waits(work)
    assert found == {"total": 2, "places": [("pointseg/ops/asks.py:3", 2)]}
    assert cuda.count("set_sync_debug_mode") == 2
    torch.cuda.set_sync_debug_mode.assert_called_with(0)  # as before
    with pytest.raises(ZeroDivisionError):
        gauge.waits(lambda: 1 / 0)
    torch.cuda.set_sync_debug_mode.assert_called_with(0)
    assert gpu_device.Gauge(CPU).waits(lambda: None) is None


def test_launches_by_hand():
    def event(key, count, us=0.0, device=DeviceType.CUDA, note=False):
        return SimpleNamespace(
            key=key,
            count=count,
            self_device_time_total=us,
            device_type=device,
            is_user_annotation=note,
        )

    found = gpu_device.counted(
        [
            event("aten::mm", 4, device=DeviceType.CPU),
            event("cudaLaunchKernel", 5, device=DeviceType.CPU),
            event("cuLaunchKernelEx", 2, device=DeviceType.CPU),
            event("gemm", 4, 500.0),
            event("add", 3, 1500.0),
            event("Memcpy DtoH (Device -> Pinned)", 2, 10.0),
            event("Optimizer.step", 1, 9000.0, note=True),
        ]
    )
    assert found["launches"] == 7
    assert (found["kernels"], found["copies"], found["device ms"]) == (7, 2, 2.01)
    assert found["longest"][0] == ["add", 3, 1.5]


def test_difference_by_hand():
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])
    assert gpu_equal.difference([other], [one]) == pytest.approx(0.2)
    assert gpu_equal.difference([one * 0, one], [one * 0, one]) == 0.0
    nan = gpu_equal.difference([one * torch.nan], [one])
    assert not gpu_equal.within(nan, 1.0)
    with pytest.raises(ValueError, match="shapes"):
        gpu_equal.difference([one[:1]], [one])


@pytest.mark.parametrize("wrong", [None, "result", "gradient"])
def test_a_wrong_operator_is_seen(wrong):
    """Of a thousand numbers one is off by a hundredth, or the gradient of one is lost."""
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(0))

    def square(x, side):
        y = x * x
        if side.wanted or wrong is None:
            return y
        if wrong == "result":
            return torch.cat([y[:1] * 1.01 + 0.01, y[1:]])
        return torch.cat([y[:1].detach(), y[1:]])

    def case(side):
        return gpu_equal.differentiated(lambda x: square(x, side), side.of(numbers))

    assert gpu_operators.close(case, CPU)["equal"] is (wrong is None)


def test_reference_sees_the_same_numbers():
    number = torch.tensor([1.001])
    found, wanted = gpu_equal.both(lambda side: [side.of(number)], CPU, torch.bfloat16)
    assert (found[0].dtype, wanted[0].dtype) == (torch.bfloat16, torch.float32)
    assert found[0].item() == wanted[0].item() == 1.0


def results(**found):
    return {name.replace("_", "-"): {"status": "done", "found": f} for name, f in found.items()}


def ours(dice=0.9995, faster=4.5):
    return {"dinomed3d predict, auto": {"least Dice": dice, "times as fast": faster}}


@pytest.mark.parametrize(
    ("found", "what", "state"),
    [
        (results(operators={"a": {"equal": True}, "b": {"equal": True}}), "operator", "met"),
        (results(operators={"a": {"equal": True}, "b": {"error": "x"}}), "operator", "missed"),
        (results(operators={}), "operator", "not measured"),
        (results(convolution={"ours, ms": 0.13, "spconv, ms": 0.12}), "256 channels", "met"),
        (results(convolution={"ours, ms": 0.15, "spconv, ms": 0.12}), "256 channels", "missed"),
        (
            results(
                convolution={
                    "ours, ms": 0.12,
                    "ours, plain path, ms": 0.1,
                    "spconv": "not installed",
                    "spconv_triton, ms": 0.05,
                }
            ),
            "256 channels",
            "missed",
        ),
        (results(convolution={"ours, ms": 0.1}), "256 channels", "not measured"),
        (results(points_forward={"ptv3": {"float16, ms": 20.0}}), "20 ms", "met"),
        (
            results(points_forward={"ptv3": {"float16, ms": {"error": "x"}}}),
            "20 ms",
            "not measured",
        ),
        (results(points_forward={"ptv3": {"error": "x"}}), "20 ms", "not measured"),
        (results(prediction=ours()), "times as fast", "met"),
        (results(prediction=ours(faster=3.9)), "times as fast", "missed"),
        (results(prediction=ours(dice=0.998)), "Dice", "missed"),
        (results(volumes_compiled={"a": {"graphs": 1, "breaks": 0}}), "compile", "met"),
        (results(volumes_compiled={"a": {"graphs": 1, "breaks": 2}}), "compile", "missed"),
        (results(volumes_compiled={"a": "no time"}), "compile", "not measured"),
    ],
)
def test_aims(found, what, state):
    states = {aim.what: state for aim, state, _ in gpu_table.judged(found)}
    (key,) = [key for key in states if what in key]
    assert states[key] == state
    if state != "not measured":
        assert list(states.values()).count("not measured") >= len(states) - 2


def test_a_trial_meets_no_aim():
    found = results(prediction=ours())
    found["prediction"]["tiny"] = True
    assert {state for _, state, _ in gpu_table.judged(found)} == {"not measured"}


def test_the_table_has_errors_and_few_places():
    found = results(
        a={
            "b": {"error": "no | such\nkernel", "trace": "long"},
            "c": {"places": [["x.py:1", 3]] * 9},
        }
    )
    text = gpu_table.as_markdown(found)
    assert "| a | b | ERROR no / such kernel |" in text
    assert "| a | c | places x.py:1 x 3, x.py:1 x 3, x.py:1 x 3 |" in text
    assert "long" not in text
