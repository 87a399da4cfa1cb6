"""What the demo shows of its commands while they run: one short line, with the time that is left."""

from __future__ import annotations

import re
from datetime import datetime

_TIMED = re.compile(r"^(\d{4}-\d\d-\d\d [\d:.]+):\s*")
_EPOCH = re.compile(r"Epoch (\d+)(?: of \d+, stage (\d))?")
_RECENT = 3
"""Epochs whose mean duration tells how long the next ones take."""


class TrainingProgress:
    """Turns nnU-Net's output of training and validation into one line per epoch and per validation case.

    Time left is estimated from epochs of the same stage: an epoch of stage I says nothing about
    those of stage II, which take longer.
    """

    def __init__(self, stage1_epochs: int, stage2_epochs: int) -> None:
        self._stages = (stage1_epochs, stage2_epochs)
        self._epoch = 0
        self._stage = 2
        self._loss = "?"
        self._seconds: list[float] = []
        self._cases = 0
        self._starts: list[datetime] = []

    def line(self, output: str) -> str | None:
        """Take a line of output.

        Returns:
            At the end of an epoch text such as "epoch 3/12, stage 2, loss -0.512, about 90 s of stage 2
            left", at the start of a validation case text such as "validation 2/3, about 8 s left"; else None.
        """
        time = _TIMED.match(output.strip())
        message = output.strip()[time.end() :] if time else output.strip()
        if found := _EPOCH.match(message):
            stage = int(found[2] or 2)
            if stage != self._stage:
                self._seconds.clear()
            self._epoch, self._stage = int(found[1]), stage
        elif found := re.match(r"train_loss (\S+)", message):
            self._loss = found[1]
        elif found := re.match(r"Epoch time: ([\d.]+) s", message):
            self._seconds.append(float(found[1]))
            return self._ended()
        elif found := re.match(r"This split has \d+ training and (\d+) validation", message):
            self._cases = int(found[1])
        elif time and message.startswith("predicting "):
            self._starts.append(datetime.fromisoformat(time[1]))
            return self._validating()
        return None

    def _ended(self) -> str:
        done, first, total = self._epoch + 1, self._stages[0], sum(self._stages)
        recent = self._seconds[-_RECENT:]
        left_s = sum(recent) / len(recent) * ((first if self._stage == 1 else total) - done)
        text = f"epoch {done}/{total}, stage {self._stage}, loss {self._loss}"
        return f"{text}, about {left_s:.0f} s of stage {self._stage} left" if left_s else text

    def _validating(self) -> str:
        number = len(self._starts)
        text = f"validation {number}/{max(number, self._cases)}"
        if number == 1 or number > self._cases:
            return text
        per_case_s = (self._starts[-1] - self._starts[0]).total_seconds() / (number - 1)
        return f"{text}, about {per_case_s * (self._cases - number + 1):.0f} s left"


def prediction_line(output: str) -> str | None:
    """The lines of `dinomed3d predict` that count its cases, as they are."""
    return output.strip() if re.match(r"\[\d+/\d+\] ", output) else None


class RoomsProgress:
    """Turns the bar of `pointseg-train` into a line every so many steps."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._shown = 0

    def line(self, output: str) -> str | None:
        """Take a state of the bar; gives text such as "step 20/50, 00:31 left" or None."""
        bars = re.findall(r"(\d+)/(\d+) \[[\d:]+<([\d:]+), [^\]]*step", output)
        for done, total, left in bars:
            if int(done) >= self._shown + self._every:
                self._shown = int(done)
                return f"step {done}/{total}, {left} left"
        return None
