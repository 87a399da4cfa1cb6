"""Log of a training run: ``metrics.csv``, TensorBoard, a progress bar and ``curves.png``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dinomed3d.runtime.files.atomic_files import new_file

EVERY = 10
"""Steps that one training row averages over."""


class TrainingLogger:
    """Collects rows of numbers; only the main process writes files."""

    def __init__(
        self, folder: Path, *, main: bool, losses: Sequence[str], scores: Sequence[str]
    ) -> None:
        """Start without rows.

        Args:
            folder: of the run.
            main: whether this process writes.
            losses: names of the components of the loss.
            scores: names of the validation scores.
        """
        self.folder, self.main = folder, main
        self.columns = ("loss", *losses, "lr", "points", "seconds")
        self.scores = tuple(scores)
        self.rows: list[dict[str, Any]] = []
        self._recent: list[Mapping[str, float]] = []
        self._board: Any = None
        self._purge: int | None = None
        """The first step that TensorBoard is to forget, which an interrupted run may have logged."""
        if main:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def _file(self) -> Path:
        return self.folder / "metrics.csv"

    def state(self) -> dict[str, Any]:
        """Everything that was logged, for a run that is resumed."""
        return {"rows": list(self.rows), "recent": [dict(numbers) for numbers in self._recent]}

    def restore(self, state: Mapping[str, Any] | None, step: int) -> None:
        """Go on as the run that was interrupted after ``step``; later steps will be logged again.

        Args:
            state: what :meth:`state` returned; None: not known, as in older checkpoints. The rows up to ``step`` are
                then those of ``metrics.csv``.
            step: steps that were done.
        """
        self._purge = step + 1
        if state is not None:
            self.rows, self._recent = list(state["rows"]), list(state["recent"])
        elif self.main and self._file.is_file():
            with self._file.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [dict(row) for row in rows if int(row["step"]) <= step]

    def training(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log losses, learning rate, points and seconds of one step."""
        self._recent.append(numbers)
        if step % EVERY == 0:
            self._flush(step)

    def validation(
        self, step: int, values: Mapping[str, float], details: Mapping[str, float]
    ) -> None:
        """Log a round of validation and rewrite all files; details go to TensorBoard only."""
        if self._recent:
            self._flush(step)
        values = {name: float(value) for name, value in values.items()}
        if self.rows and int(self.rows[-1]["step"]) == step:
            self.rows[-1].update(values)
        else:
            self.rows.append({"step": step, **values})
        self._show(step, {**values, **details})
        if self.main:
            name = self.scores[0]
            tqdm.write(f"step {step}: {name} {values[name]:.4f}", file=sys.stderr)
            self.write()

    def write(self) -> None:
        """Write ``metrics.csv`` and ``curves.png`` atomically."""
        if not self.main:
            return
        fields = ["step", *self.columns, *self.scores]
        with new_file(self._file) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=fields, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        from pointseg.pictures.training_curves import draw_curves  # imports matplotlib

        draw_curves(self.rows, self.folder / "curves.png")

    @contextmanager
    def progress(self, done: int, steps: int) -> Iterator[Progress]:
        """A progress bar on stderr."""
        with tqdm(
            total=steps, initial=done, unit="step", file=sys.stderr, disable=not self.main,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log is no terminal
        ) as bar:  # fmt: skip
            yield Progress(bar)

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._board is not None:
            self._board.close()

    def _flush(self, step: int) -> None:
        count = len(self._recent)
        means = {name: sum(n[name] for n in self._recent) / count for name in self._recent[0]}
        self.rows.append({"step": step, **{name: means[name] for name in self.columns}})
        self._show(step, {f"train/{name}": value for name, value in means.items()})
        self._recent = []

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        if not self.main:
            return
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


class Progress:
    """The progress bar, with the loss of the last step; the curves show it smoothed."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def update(self, loss: float) -> None:
        """Count a step."""
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update()
