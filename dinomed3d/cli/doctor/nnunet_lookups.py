"""Where nnU-Net is, and whether its own look-ups find our trainer and planner."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

import dinomed3d
from dinomed3d.cli.doctor.imports import REINSTALL, one_line_of
from dinomed3d.dataset.findings import Finding, State
from dinomed3d.runtime.commands.library_output import quiet
from dinomed3d.runtime.messages.extras import is_editable
from dinomed3d.runtime.messages.shell_words import set_variable

TRAINER = "DinoMed3DTrainer"
PLANNER = "DinoMed3DPlanner"
_TRAINERS = Path("training/nnUNetTrainer")
_PLANNERS = Path("experiment_planning/experiment_planners")
_HIDDEN = "in nnU-Net's folder: pip install -e . --config-settings editable_mode=compat"
"""Puts the clone itself on Python's path, where it comes before a folder that holds two modules only."""


def nnunet() -> Iterator[Finding]:
    """Where nnU-Net is, and whether its own look-ups find our trainer and planner."""
    try:
        import nnunetv2

        if nnunetv2.__file__ is None:
            # Python found the folder with our two modules before the finder of an editable clone.
            says = f"an editable clone is hidden by {' '.join(nnunetv2.__path__)}, which holds only our modules"
            yield Finding(topic="nnU-Net", says=says, state="error", fix=_HIDDEN)
            return
        with quiet():
            from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
            from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except Exception as error:  # whatever it is, nnU-Net's commands would fail with it
        fix = "reinstall it: pip install --force-reinstall 'nnunetv2>=2.8,<2.9'"
        yield Finding(
            topic="nnU-Net",
            says=f"cannot be imported: {one_line_of(error)}",
            state="error",
            fix=fix,
        )
        return
    home, clone = Path(nnunetv2.__path__[0]), is_editable("nnunetv2")
    if clone:
        says = f"{home}, an editable clone, into which our wheel cannot put modules"
        yield Finding(topic="nnU-Net", says=says, state="note")
    else:
        yield Finding(topic="nnU-Net", says=str(home))

    def find_planner() -> type | None:
        found: type | None = recursive_find_python_class(
            str(home / "experiment_planning"), PLANNER, "nnunetv2.experiment_planning"
        )
        return found

    yield _look_up(
        f"trainer {TRAINER}",
        lambda: recursive_find_trainer_class_by_name(TRAINER),
        present=(home / _TRAINERS / "dinomed3d_trainer.py").is_file(),
        fix=set_variable("nnUNet_extTrainer", _trainer_folder()) if clone else REINSTALL,
    )
    yield _look_up(
        f"planner {PLANNER}",
        find_planner,
        present=(home / _PLANNERS / "dinomed3d_planner.py").is_file(),
        fix="plan with 'dinomed3d plan -d DATASET'" if clone else REINSTALL,
        # Stock plans do without our planner, so a clone that does not find it can still train.
        state="note" if clone else "error",
    )


def _look_up(
    topic: str,
    find: Callable[[], type | None],
    *,
    present: bool,
    fix: str,
    state: State = "error",
) -> Finding:
    """Ask nnU-Net for a class.

    Args:
        topic: what it is.
        find: nnU-Net's look-up.
        present: whether our module is in the folder where nnU-Net looks.
        fix: what to do where nnU-Net does not find the class.
        state: how bad that is.
    """
    try:
        with quiet():
            found = find()
    except Exception as error:  # whatever it is, nnU-Net's commands would fail with it
        if present or not isinstance(error, RuntimeError):
            says = f"its import fails: {one_line_of(error)}"
            fix = "repair what the message names, then run this again"
            return Finding(topic=topic, says=says, state="error", fix=fix)
        found = None
    if found is None:
        return Finding(topic=topic, says="not found by nnU-Net", state=state, fix=fix)
    return Finding(topic=topic, says=f"found by nnU-Net, in {found.__module__}")


def _trainer_folder() -> Path:
    """The folder of the trainer's module: where the wheel put it, else in the source folder."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("dinomed3d") or []:
            if file.name == "dinomed3d_trainer.py":
                return Path(str(file.locate())).parent
    return Path(dinomed3d.__file__).parent / "shims"
