"""The training loop: it learns, writes what it promises, resumes exactly, and says what went wrong."""

from __future__ import annotations

import csv
import multiprocessing
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.loading.samples import Samples, join
from pointseg.models.checkpoint import read_checkpoint
from pointseg.models.trained_model import load_model
from pointseg.scene import IGNORE, Scene
from pointseg.segmenter import Segmenter
from pointseg.training import loop
from pointseg.training.run import logger
from pointseg.training.run.logger import TrainingLogger
from pointseg.training.run.scene_lists import SceneLists, resumed_lists
from pointseg.training.step import memory
from pointseg.training.step.batches import TrainingBatches
from pointseg.training.step.late_numbers import LateNumbers
from pointseg.training.step.mix3d import mix3d
from pointseg.training.step.schedule import Schedule
from pointseg.training.train import LAST, TrainResult, train
from tests.pointseg.tiny import CLASSES, RECIPE, Boxes, spec


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path)["model"]


def rows(folder: Path) -> list[dict[str, str]]:
    """What ``metrics.csv`` holds, but for times."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def same(one: Path, two: Path) -> bool:
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def bar_losses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bar says after each step."""
    seen: list[str] = []
    monkeypatch.setattr(
        logger.tqdm, "set_postfix_str", lambda bar, text, refresh: seen.append(text)
    )
    return seen


def test_steps_are_said_before_the_first_and_the_bar_shows_each_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, said = bar_losses(monkeypatch), []
    losses: list[float] = []
    log = TrainingLogger.training
    monkeypatch.setattr(
        TrainingLogger,
        "training",
        lambda self, step, numbers: losses.append(numbers["loss"]) or log(self, step, numbers),
    )
    train(spec(tmp_path, recipe=replace(RECIPE, epochs=1), log=said.append))
    assert seen == [f"loss {loss:.3f}" for loss in losses] and len(set(seen)) > 1
    steps, few = said[-2:]
    assert steps.startswith(f"{len(seen)} optimizer steps: 5 scenes, 1 times, 2 in each step")
    assert f"only {len(seen)} optimizer steps" in few and "epochs" in few


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that nobody disturbed."""
    return train(spec(tmp_path_factory.mktemp("whole")))


def test_a_run_leaves_what_it_promises(whole: TrainResult) -> None:
    folder = whole.last.parent
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["5", "10"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[1]["val_voxel_miou"]) <= whole.score
    assert (folder / "curves.png").stat().st_size > 5000
    assert list((folder / "tensorboard").iterdir())
    assert whole.steps == 10
    assert not list(folder.glob(".*"))


def test_its_model_can_be_used_without_the_run(whole: TrainResult) -> None:
    before = torch.get_rng_state()
    model, trained = load_model(whole.best, "cpu")
    assert torch.equal(torch.get_rng_state(), before)  # the program's random numbers are left alone
    assert isinstance(model, Segmenter) and not model.training
    assert trained.recipe == RECIPE and trained.needs == ("color",)
    assert trained.classes == CLASSES and trained.classes.colors.tolist() == CLASSES.colors.tolist()
    assert len(trained.sha256) == 64
    assert "training" not in read_checkpoint(whole.best)


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    still = replace(RECIPE, epochs=24, mix3d=0.0, augmentation=RECIPE.augmentation.none())
    assert train(spec(tmp_path, recipe=still)).score > 0.9


@pytest.mark.parametrize("at", [3, 5, 9])
def test_an_interrupted_run_ends_where_it_would_have(
    at: int, whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.TrainingLoop._step

    def interrupted(run: Any, batches: Any) -> dict[str, float]:
        if run.step == at - 1:
            signal.raise_signal(signal.SIGINT)  # in the middle of a step, which is done first
        return step(run, batches)

    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(loop.TrainingLoop, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(spec(tmp_path, log=said.append))
    assert said[-1].startswith(f"stopped after step {at} of 10;") and "--resume" in said[-1]
    assert read_checkpoint(tmp_path / LAST)["training"]["step"] == at
    torch.rand(7)  # what happened meanwhile does not matter
    result = train(spec(tmp_path, resume=True, log=said.append))
    assert any(line.startswith(f"the run goes on after step {at} of 10") for line in said)
    assert same(result.last, whole.last) and same(result.best, whole.best)
    assert result.score == whole.score
    assert rows(tmp_path) == rows(whole.last.parent)


@pytest.mark.parametrize("name", ["validation", "write"])
def test_a_run_that_was_killed_logs_what_it_would_have(
    name: str, whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise SystemExit  # after the state was saved, before the rows are

    with monkeypatch.context() as patched:
        patched.setattr(TrainingLogger, name, killed)
        with pytest.raises(SystemExit):
            train(spec(tmp_path))
    assert not (tmp_path / "metrics.csv").exists()
    train(spec(tmp_path, resume=True))
    assert rows(tmp_path) == rows(whole.last.parent)


def test_asked_twice_it_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(run: Any, batches: Any) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still here")

    before, closed = signal.getsignal(signal.SIGINT), []
    monkeypatch.setattr(loop.TrainingLoop, "_step", interrupted)
    monkeypatch.setattr(TrainingLogger, "close", lambda logger: closed.append(logger))
    with pytest.raises(KeyboardInterrupt):
        train(spec(tmp_path))
    assert signal.getsignal(signal.SIGINT) is before and len(closed) == 1
    assert not (tmp_path / LAST).exists()


def test_batches_are_mixed_by_seed_step_device_and_number() -> None:
    samples = Samples(Boxes(), RECIPE, training=True, seed=3)
    schedule = Schedule(scenes=5, batch_size=8, seed=3, devices=2, accumulate=2)
    batches = TrainingBatches(samples, schedule, mix3d=1.0, seed=3, device=1)
    made = batches[(4, 1)]
    joined = join([samples[item] for item in schedule.items(4, 1, 1)])
    assert isinstance(made, Cloud) and isinstance(joined, Cloud)
    expected = mix3d(joined, 1.0, np.random.default_rng([3, 1, 4, 1, 1]))
    assert torch.equal(made.coord, expected.coord) and torch.equal(made.offset, expected.offset)
    assert len(made.offset) == 1 and len(made) < len(joined)


def test_workers_change_nothing(whole: TrainResult, tmp_path: Path) -> None:
    assert same(train(spec(tmp_path, workers=1)).last, whole.last)


def test_seeds_change_the_run(whole: TrainResult, tmp_path: Path) -> None:
    assert not same(train(spec(tmp_path, seed=1)).last, whole.last)


def test_parts_of_a_batch_see_the_same_scenes(tmp_path: Path) -> None:
    recipe = replace(RECIPE, mix3d=0.0, epochs=1)
    result = train(spec(tmp_path, recipe=recipe, accumulate_grad_batches=2))
    assert result.steps == 3


def test_bfloat16(tmp_path: Path) -> None:
    result = train(spec(tmp_path, recipe=replace(RECIPE, epochs=1), precision="bfloat16"))
    assert {value.dtype for value in weights(result.last).values()} == {torch.float32, torch.int64}


def test_class_weights_are_part_of_a_run(tmp_path: Path) -> None:
    recipe = replace(RECIPE, class_weights="auto", epochs=1)
    result = train(spec(tmp_path, recipe=recipe))
    kept = read_checkpoint(result.last)["training"]["weights"]
    assert kept[1] > kept[0] > 0


def test_what_cannot_be_resumed(whole: TrainResult) -> None:
    folder = whole.last.parent
    with pytest.raises(UserError, match="with another recipe"):
        train(spec(folder, resume=True, recipe=replace(RECIPE, epochs=5)))
    with pytest.raises(UserError, match="started with seed 0, not 3"):
        train(spec(folder, resume=True, seed=3))
    with pytest.raises(UserError, match="started with accumulate_grad_batches 1, not 2"):
        train(spec(folder, resume=True, accumulate_grad_batches=2))


def test_another_precision_is_said(whole: TrainResult, tmp_path: Path) -> None:
    said: list[str] = []
    shutil.copytree(whole.last.parent, tmp_path / "run")
    train(spec(tmp_path / "run", resume=True, precision="bfloat16", log=said.append))
    assert any("goes on in bfloat16" in line and "float32" in line for line in said)
    said.clear()
    train(spec(tmp_path / "run", resume=True, log=said.append))  # of the same precision
    assert not any("goes on in" in line for line in said)


def test_older_checkpoints_that_do_not_say_their_precision_go_on(
    whole: TrainResult, tmp_path: Path
) -> None:
    content = read_checkpoint(whole.last)
    del content["training"]["precision"]
    torch.save(content, tmp_path / LAST)
    said: list[str] = []
    train(spec(tmp_path, resume=True, precision="bfloat16", log=said.append))
    assert not any("goes on in" in line for line in said)


def test_other_meanings_of_labels_are_another_run(whole: TrainResult) -> None:
    class Described(Boxes):
        meaning_of_labels = "('label', {0: 1, 1: 0})"

    with pytest.raises(UserError, match="--resume: .* with other 'label' or 'labels'"):
        train(spec(whole.last.parent, resume=True, dataset=Described()))


def test_other_scenes_are_another_run(whole: TrainResult) -> None:
    for count, named in (
        (4, r"fewer scenes \(train/train4\)"),
        (6, r"new scenes \(train/train5\)"),
    ):
        with pytest.raises(UserError, match=f"--resume: boxes has {named}"):
            train(spec(whole.last.parent, resume=True, dataset=Boxes(count=count)))


@pytest.mark.parametrize("at", [5, 10])
def test_a_validation_scene_too_large_costs_no_training(
    at: int, whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Segmenter.forward
    calls = iter(range(100))

    def out_of_memory(model: Segmenter, cloud: Any) -> torch.Tensor:
        # two scenes a round
        if not model.training and next(calls) >= 2 * (at // 5 - 1):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(model, cloud)

    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "forward", out_of_memory)
        with pytest.raises(
            UserError, match=r"the \d+ voxels of a whole validation scene; the run is"
        ):
            train(spec(tmp_path))
    assert read_checkpoint(tmp_path / LAST)["training"]["step"] == at
    result = train(spec(tmp_path, resume=True))
    assert same(result.last, whole.last) and same(result.best, whole.best)
    assert result.score == whole.score


def test_a_finished_run_resumed_stays_as_it_is(whole: TrainResult) -> None:
    before = whole.last.read_bytes()
    assert train(spec(whole.last.parent, resume=True)).score == whole.score
    assert whole.last.read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_scene_that_cannot_be_read_is_named(workers: int, tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(
        UserError, match="^train3: is truncated; copy it again; .*--resume$"
    ) as error:
        train(spec(tmp_path, dataset=Boxes(broken=("train3",)), workers=workers))
    # although the error holds on to all that was there: a worker that is left keeps the program from ending
    assert error.tb is not None and set(multiprocessing.active_children()) == before


def test_a_run_goes_on_without_the_scenes_that_ended_it(tmp_path: Path) -> None:
    """A scene of training ends it after a step, one of validation then; the first step is not done again."""
    said: list[str] = []
    for without, broken in ((), "train3"), (("train3",), "val1"):
        with pytest.raises(UserError, match=f"^{broken}: is truncated"):
            dataset = Boxes(broken=(broken,), without=without)
            train(spec(tmp_path, dataset=dataset, resume=bool(without), log=said.append))
        assert read_checkpoint(tmp_path / LAST)["training"]["step"] == (5 if without else 1)
    with pytest.raises(UserError, match=r"fewer scenes \(train/train2\)"):
        train(spec(tmp_path, dataset=Boxes(without=("train2", "train3", "val1")), resume=True))
    result = train(spec(tmp_path, dataset=Boxes(without=("train3", "val1")), resume=True))
    assert result.steps == 10 and [row["step"] for row in rows(tmp_path)] == ["5", "10"]
    assert any("without train/train3;" in line for line in said)


def test_the_place_of_a_scene_that_is_gone_is_taken_by_the_next() -> None:
    a, b, c, d, v = (("train", name) for name in "abcdv")
    lists = SceneLists((a, b, c, d), (v,), gone=(a, c, d))
    assert lists.used_in_training() == [b, b, b, b]
    assert replace(lists, gone=(b,)).used_in_training() == [a, c, c, d]
    state = SceneLists((a, b, c), (v,)).state()
    found = resumed_lists(state, SceneLists((a, c), (v,)), [b, d], "boxes")
    assert found == SceneLists((a, b, c), (v,), gone=(b,))
    assert resumed_lists(found.state(), SceneLists((a, c), (v,)), [], "boxes") == found
    for now in (SceneLists((c, a), (v,)), SceneLists((a, c), ()), SceneLists((a, c, d), (v,))):
        with pytest.raises(UserError, match="--resume: boxes has"):
            resumed_lists(state, now, [b], "boxes")


def test_workers_end_with_a_validation_that_fails(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match="^val1: is truncated") as error:
        train(spec(tmp_path, dataset=Boxes(broken=("val1",)), workers=1))
    assert error.tb is not None and set(multiprocessing.active_children()) == before


def test_a_feature_that_scenes_lack(tmp_path: Path) -> None:
    recipe = replace(RECIPE, features=("color", "normal"))
    with pytest.raises(UserError, match=r"scene train\d: lacks normal, .* features="):
        train(spec(tmp_path, recipe=recipe))


def late_by(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let numbers be read late, as on a device that computes while the host goes on."""
    begin = LateNumbers.__init__

    def late(numbers: LateNumbers, device: torch.device) -> None:
        begin(numbers, device)
        numbers.late = steps

    monkeypatch.setattr(LateNumbers, "__init__", late)


def test_numbers_that_are_read_late_are_the_same(
    whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_by(monkeypatch, 1)
    shown = train(spec(tmp_path))
    rows = []
    for result in (whole, shown):
        with (result.last.parent / "metrics.csv").open(newline="") as file:
            rows.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert rows[0] == rows[1] and same(whole.last, shown.last)


@pytest.mark.parametrize(("late", "at"), [(0, 1), (1, 1), (1, 4)])
def test_a_loss_that_is_not_finite(
    late: int, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = loop.TrainingLoop._losses
    begun, products = set(), set()
    matmul = torch.backends.cuda.matmul
    followed = getattr(matmul, "fp32_precision", None)

    def broken(run: Any, output: Any, cloud: Any) -> dict[str, torch.Tensor]:
        found = losses(run, output, cloud)
        begun.add(run.step)
        products.add(matmul.allow_tf32)
        return (
            {key: value * float("nan") for key, value in found.items()} if run.step == at else found
        )

    late_by(monkeypatch, late)
    monkeypatch.setattr(loop.TrainingLoop, "_losses", broken)
    with pytest.raises(UserError, match=f"step {at}: the loss is nan; lower the learning rate"):
        train(spec(tmp_path))
    assert products == {True} and not matmul.allow_tf32
    assert getattr(matmul, "fp32_precision", None) == followed
    # the fifth step is followed by a checkpoint, which must not have its weights
    assert max(begun) == (at + late if at < 4 else at)
    assert not (tmp_path / LAST).exists()


@pytest.mark.parametrize("late", [0, 1])
def test_a_gradient_that_is_not_finite(
    late: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = loop.TrainingLoop._losses

    def broken(run: Any, output: torch.Tensor, cloud: Any) -> dict[str, torch.Tensor]:
        found = losses(run, output, cloud)
        if run.step == 2:  # adds nothing to the loss, NaN to its gradient
            found["loss"] = found["loss"] + (output * 0).square().sum().sqrt()
        return found

    late_by(monkeypatch, late)
    monkeypatch.setattr(loop.TrainingLoop, "_losses", broken)
    clipped = replace(RECIPE, optimizer=replace(RECIPE.optimizer, clip_norm=1.0))
    with pytest.raises(UserError, match="step 2: the norm of the gradient is nan"):
        train(spec(tmp_path, recipe=clipped))


def test_nothing_to_weigh(tmp_path: Path) -> None:
    class Floors(Boxes):
        def load(self, split: str, scene: str) -> Scene:
            found = super().load(split, scene)
            return found.with_fields(segment=np.zeros(len(found), np.int32))

    with pytest.raises(UserError, match="--class-weights sqrt: .* two classes or more"):
        train(spec(tmp_path, dataset=Floors(), recipe=replace(RECIPE, class_weights="sqrt")))


@dataclass(frozen=True)
class Relabelled(Boxes):
    """Boxes with other labels in some scenes: ``now`` in place of ``before``, or of all."""

    of: tuple[str, ...] = ()
    before: int | None = None
    now: int = IGNORE

    def load(self, split: str, scene: str) -> Scene:
        found = super().load(split, scene)
        if not scene.startswith(self.of):
            return found
        labels = found["segment"]
        replaced = np.ones(len(labels), bool) if self.before is None else labels == self.before
        return found.with_fields(segment=np.where(replaced, np.int32(self.now), labels))


def test_validation_clouds_without_labels_end_the_run_and_what_it_learned_is_kept(
    tmp_path: Path,
) -> None:
    recipe = replace(RECIPE, epochs=1, evaluations=1)
    with pytest.raises(UserError, match="no point of the validation clouds"):
        train(spec(tmp_path, recipe=recipe, dataset=Relabelled(of=("val",))))
    assert read_checkpoint(tmp_path / LAST)["training"]["step"] == 3
    assert not (tmp_path / "best.pt").exists()
    assert train(spec(tmp_path, recipe=recipe, resume=True)).score > 0  # the labels are there now


@pytest.mark.parametrize(("evaluations", "steps"), [(2, 3), (4, 2)])
def test_training_clouds_without_labels_end_the_run_before_anything_is_replaced(
    evaluations: int, steps: int, tmp_path: Path
) -> None:
    """After the first epoch, or before the first validation where that is earlier."""
    recipe, said = replace(RECIPE, evaluations=evaluations), list[str]()
    run = spec(tmp_path, recipe=recipe, dataset=Relabelled(of=("train",)), log=said.append)
    with pytest.raises(UserError, match=f"no point of the training clouds .* {steps} steps"):
        train(run)
    assert not (tmp_path / LAST).exists() and not (tmp_path / "best.pt").exists()


def test_classes_of_which_the_first_epoch_shows_nothing_are_named(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = replace(RECIPE, epochs=1, evaluations=1)
    dataset = Relabelled(of=("train",), before=1)
    train(spec(tmp_path, recipe=recipe, dataset=dataset, log=said.append))
    (line,) = [line for line in said if "first epoch" in line]
    assert "box" in line and "floor" not in line


def test_a_resumed_run_counts_labels_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen before is not known, so that validations before the end of an epoch decide nothing."""
    recipe = replace(RECIPE, evaluations=5)
    dataset = Relabelled(of=("train",))
    step = loop.TrainingLoop._step

    def stopped(run: Any, batches: Any) -> None:
        run.stop.requested = True
        step(run, batches)

    with monkeypatch.context() as patched:
        patched.setattr(loop.TrainingLoop, "_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(spec(tmp_path, recipe=recipe))
    with pytest.raises(UserError, match="no point of the training clouds .* 3 steps"):
        train(spec(tmp_path, recipe=recipe, dataset=dataset, resume=True))


def test_memory_that_may_not_suffice_is_warned_of_once_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 400_000)
    said: list[str] = []
    recipe = replace(RECIPE, epochs=1, mix3d=0.0)
    assert train(spec(tmp_path, recipe=recipe, log=said.append)).steps == 3  # and yet it fitted
    advice = "--accumulate-grad-batches 2 or --override max_points="
    assert len([text for text in said if advice in text]) == 1


def test_memory_that_does_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = loop.TrainingLoop._losses

    def out_of_memory(run: Any, output: Any, cloud: Any) -> dict[str, torch.Tensor]:
        if run.step == 2:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"
            )
        return losses(run, output, cloud)

    monkeypatch.setattr(loop.TrainingLoop, "_losses", out_of_memory)
    with pytest.raises(UserError, match=r"out of memory with \d+ voxels .*max_points=\d+"):
        train(spec(tmp_path))
