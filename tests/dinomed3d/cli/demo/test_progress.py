"""The time left that the demo tells is that of what was measured."""

from __future__ import annotations

from dinomed3d.cli.demo.progress import RoomsProgress, TrainingProgress, prediction_line


def epoch(number: int, stage: int, seconds: float) -> list[str]:
    """Lines of nnU-Net's output, with a time that nothing depends on."""
    messages = ("", f"Epoch {number} of 5, stage {stage} (what is trained)", "train_loss -0.512 ",
                "val_loss -0.4 ", f"Epoch time: {seconds} s ")  # fmt: skip
    return [f"2026-01-31 12:00:00.123456: {message}" for message in messages]


def test_epochs_have_a_line_each_and_stages_a_pace_of_their_own() -> None:
    progress = TrainingProgress(2, 3)
    output = [
        *epoch(0, 1, 1),
        *epoch(1, 1, 1),
        *epoch(2, 2, 30),
        *epoch(3, 2, 20),
        *epoch(4, 2, 20),
    ]
    assert [text for line in output if (text := progress.line(line))] == [
        "epoch 1/5, stage 1, loss -0.512, about 1 s of stage 1 left",
        "epoch 2/5, stage 1, loss -0.512",
        "epoch 3/5, stage 2, loss -0.512, about 60 s of stage 2 left",
        "epoch 4/5, stage 2, loss -0.512, about 25 s of stage 2 left",
        "epoch 5/5, stage 2, loss -0.512",
    ]


def test_the_pace_is_that_of_the_last_epochs() -> None:
    progress = TrainingProgress(0, 5)
    lines = [progress.line(line) for k in range(4) for line in epoch(k, 2, 100 if k == 0 else 10)]
    assert [line for line in lines if line][-1].endswith("about 10 s of stage 2 left")


def test_validation_counts_its_cases() -> None:
    progress = TrainingProgress(0, 1)
    output = [
        "2026-01-31 12:00:00.000001: This split has 9 training and 3 validation cases.",
        "2026-01-31 12:00:00.500000: predicting a",
        "2026-01-31 12:00:00.500001: a, shape torch.Size([1, 16, 64, 64]), rank 0",
        "2026-01-31 12:00:04.500000: predicting b",
        "2026-01-31 12:00:06.500000: predicting c",
    ]
    assert [progress.line(line) for line in output] == [
        None,
        "validation 1/3",
        None,
        "validation 2/3, about 8 s left",
        "validation 3/3, about 3 s left",
    ]


def test_progress_of_predicted_cases_is_passed_on_unchanged() -> None:
    said = "[1/4] phantom_012: 3.2 s, about 10 s left"
    assert prediction_line(f"{said}\n") == said
    assert prediction_line("4 cases found; 4 to predict") is None


def test_rooms_have_a_line_every_so_many_steps() -> None:
    progress = RoomsProgress(every=10)
    bar = "  4%|4   | {}/50 [00:12<01:{}, 17.94s/step, loss 3.910]"
    shown = [progress.line(bar.format(k, 60 - k)) for k in range(1, 24)]
    assert [line for line in shown if line] == ["step 10/50, 01:50 left", "step 20/50, 01:40 left"]
    assert progress.line(" 50%|5  | 45/50 [00:12<00:12, 1.9scene/s]") is None
