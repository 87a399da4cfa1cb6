"""State of one case in a worker; an error in it does not affect other cases."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.outputs.output_errors import ends_run
from dinomed3d.inference.cohort.worker.memory_need import MemoryNeed
from dinomed3d.inference.io.image import Volume
from dinomed3d.inference.io.orientation import Reorientation
from dinomed3d.inference.nnunet.preprocess import Prepared
from dinomed3d.inference.nnunet.probabilities import ProbabilityFile
from dinomed3d.inference.nnunet.region import Region
from dinomed3d.inference.nnunet.segment import Segmentation
from dinomed3d.runtime.files.atomic_files import WriteError
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory

INTERRUPTED = "interrupted"
"""Reason of a case that was not begun because the run ends."""
_WRITING = ("network", "write")
"""Steps that write into the output folder; scans are not read in them."""


@dataclass
class CaseTask:
    """A case with everything that was made of it so far."""

    case: Case
    """What to predict."""
    on_step: Callable[[str, bool], None] = lambda step, ended: None
    """Receives the name of each step when it begins, and again, with True, when it has ended."""
    notes: list[str] = field(default_factory=list)
    """What was done to its mask, one line each."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each finished step."""
    reason: str | None = None
    """Why it failed, once it has."""
    trace: str | None = None
    """Traceback of an unexpected error."""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    """Its files as they were before they were read."""
    need: MemoryNeed | None = None
    """Memory that is reserved for it."""
    volume: Volume | None = None
    """The scan as stored."""
    spacing: tuple[float, float, float] | None = None
    """Voxel spacing (z, y, x) in the numbers that the model was trained with."""
    reorientation: Reorientation | None = None
    """How the volume was reoriented for the model."""
    prepared: Prepared | None = None
    """The network's input; of a cascade that of the first model, then that of the second."""
    first_splits: int = 1
    """Number of row ranges in which the first model of a cascade predicts."""
    localizer_splits: int = 1
    """Number of row ranges in which the localizer predicts."""
    region: Region | None = None
    """The part that was predicted, where a localizer has found one."""
    is_cut: bool = False
    """Whether the mask reaches a side of the region within the volume."""
    segmentation: Segmentation | None = None
    """The mask on the stored grid."""
    probabilities: ProbabilityFile | None = None
    """The open file of probabilities."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; an error in it becomes this case's reason and is not raised."""
        start = time.monotonic()
        self.on_step(name, False)
        try:
            yield
        except CaseError as error:
            self.reason = str(error)
        except OSError as error:
            # a full or read-only disk is no fault of this case: it ends the run, and the case is
            # predicted again by the next one
            if name in _WRITING and ends_run(error):
                raise
            if isinstance(error, WriteError):  # says which file, and why
                self.reason = str(error)
            else:
                self._fail(name, error)
        except Exception as error:  # whatever it is, the other cases go on
            self._fail(name, error)
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.on_step(name, True)

    def _fail(self, name: str, error: Exception) -> None:
        """Take an error that nobody has explained as the reason; called while it is handled."""
        kind = type(error).__name__
        if ran_out_of_memory(error):
            self.reason = (
                f"out of memory in step '{name}' ({kind}); lower --memory-limit so that the volume is "
                "predicted in more parts, or use a machine with more memory"
            )
            return
        first = (str(error).strip() or "no message").splitlines()[0]
        self.reason = f"unexpected {kind} in step '{name}': {first}"
        self.trace = traceback.format_exc()
