"""The scenes of a run, and which of them a resumed one may lack: those that could not be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dinomed3d.runtime.errors import UserError

Scene = tuple[str, str]
"""Split and name."""
NAMED = 5
"""Scenes, at most, that a message names."""


@dataclass(frozen=True)
class SceneLists:
    """The scenes of a run in their order, as it was started, and those that are no longer there."""

    training: tuple[Scene, ...]
    """Scenes to train on."""
    validation: tuple[Scene, ...]
    """Scenes to validate on."""
    gone: tuple[Scene, ...] = ()
    """Those of them that could not be used and were removed, or left out, since."""

    def state(self) -> dict[str, Any]:
        """What a resumed run must know of them."""
        names = [[list(scene) for scene in scenes] for scenes in (self.training, self.validation)]
        digest = hashlib.sha256(json.dumps(names).encode("utf-8", "surrogateescape"))
        return {
            "scenes": digest.hexdigest(),
            "scene_names": names,
            "gone_scenes": [list(scene) for scene in self.gone],
        }

    def used_in_training(self) -> list[Scene]:
        """The scenes to train on; the place of one that is gone is taken by the next, so all others keep theirs."""
        gone, there = set(self.gone), []
        following = next(scene for scene in self.training if scene not in gone)
        for scene in reversed(self.training):
            following = following if scene in gone else scene
            there.append(following)
        return there[::-1]

    def used_in_validation(self) -> list[Scene]:
        """The scenes to validate on."""
        return [scene for scene in self.validation if scene not in set(self.gone)]


def resumed_lists(
    state: Mapping[str, Any], now: SceneLists, unusable: Collection[Scene], dataset: str
) -> SceneLists:
    """The scenes of a run that is resumed.

    Args:
        state: of the run, with what :meth:`SceneLists.state` returned.
        now: scenes that the dataset has now, without those that it leaves out.
        unusable: scenes that the dataset leaves out, and those that ended the run.
        dataset: its name, for messages.

    Returns:
        The scenes of the run; those that are gone were unusable.

    Raises:
        UserError: the dataset has other scenes, or lacks some that could be used.
    """
    if "scene_names" not in state:  # of an older checkpoint
        if state.get("scenes", now.state()["scenes"]) != now.state()["scenes"]:
            raise _others(dataset, "other scenes than when the run was started")
        return now
    training, validation = (
        tuple((split, name) for split, name in scenes) for scenes in state["scene_names"]
    )
    before, there = {*training, *validation}, {*now.training, *now.validation}
    gone = [scene for scene in dict.fromkeys((*training, *validation)) if scene not in there]
    known = {*unusable, *((split, name) for split, name in state.get("gone_scenes", ()))}
    missing = [scene for scene in gone if scene not in known]
    new = [scene for scene in (*now.training, *now.validation) if scene not in before]
    problems = [
        f"{what} ({_named(scenes)})"
        for what, scenes in (("fewer scenes", missing), ("new scenes", new))
        if scenes
    ]
    if problems:
        raise _others(dataset, " and ".join(problems))
    lists = SceneLists(training, validation, tuple(gone))
    left = [[s for s in scenes if s not in gone] for scenes in (training, validation)]
    if left != [list(now.training), list(now.validation)]:
        raise _others(dataset, "its scenes in another order")
    if not all(left):
        raise _others(dataset, "no usable scenes left in a split of the run")
    return lists


def _named(scenes: Sequence[Scene]) -> str:
    more = f" and {len(scenes) - NAMED} more" if len(scenes) > NAMED else ""
    return ", ".join("/".join(scene) for scene in scenes[:NAMED]) + more


def _others(dataset: str, problem: str) -> UserError:
    return UserError(
        f"--resume: {dataset} has {problem}, so the trajectory would not be the same: put back what was there, or "
        "start a new run, perhaps with --init from its best.pt or last.pt"
    )
