"""The process that reads damaged inputs: native libraries may crash it, a limit holds its memory.

Lines on its output are JSON: what begins, and what must not have happened.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.kind import Finding, Kind, Refused, Result, check, damage_of

GIB = 2**30
LONGEST_MESSAGE = 5000
"""Letters of a sentence about a file."""
PLANTED = "planted"
"""Word for the kinds that do what must not be, to see whether it is noticed."""
SLOW_S = 5
"""Processor time that no input of this size may take."""
ALLOCATION = ("unable to allocate", "memoryerror", "bad_alloc", "can't allocate", "bad allocation")


def limit_memory(gib: float = 2.0) -> None:
    """Let this process take so much more memory than it has now; only Linux can say no."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + int(gib * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Inputs:
    """Damaged inputs of some kinds, each named by a kind and a seed."""

    def __init__(self, kinds: list[Kind], work: Path) -> None:
        self.kinds = {kind.name: kind for kind in kinds}
        self.work = work
        self.sound: dict[tuple[str, bool], Result] = {}
        for kind in kinds:
            (work / "sound" / kind.name).mkdir(parents=True)
            kind.write(work / "sound" / kind.name)
            for whole in (False, True):
                self.sound[kind.name, whole] = kind.read(work / "sound" / kind.name, whole)

    def try_one(self, name: str, seed: int) -> str | None:
        """Damage, read and judge one; returns what must not be, if anything."""
        kind, rng = self.kinds[name], random.Random(f"{name} {seed}")
        source = self.work / "sound" / name
        content = (source / kind.file).read_bytes()
        damage = damage_of(kind, rng, content)
        whole = seed % 8 == 0
        folder = self.work / "input"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        (folder / kind.file).write_bytes(damage.content)
        problem = judge(
            kind, lambda: kind.read(folder, whole), self.sound[name, whole], content, damage
        )
        return None if problem is None else f"{damage.how}: {problem}"


def judge(
    kind: Kind, read: Callable[[], Result], sound: Result, content: bytes, damage: Any
) -> str | None:
    """What is wrong with how an input ended; None: nothing."""
    try:
        check(kind, sound, read(), content, damage)
    except Finding as finding:
        return str(finding)
    except Refused as refused:
        return wrong_refusal(str(refused), Path(kind.file))
    except BaseException:
        return traceback.format_exc()
    return None


def wrong_refusal(message: str, file: Path) -> str | None:
    """What is wrong with a sentence about a file."""
    named = (*file.parts, file.name.split(".")[0])
    if not any(name in message for name in named):
        return f"its file is not named: {message}"
    if len(message) > LONGEST_MESSAGE:
        return f"{len(message)} letters: {message[:300]}"
    if "Traceback (most" in message or any(word in message.lower() for word in ALLOCATION):
        return f"no sentence about the file: {message}"
    return None


def all_kinds(work: Path, chosen: list[str]) -> list[Kind]:
    """The kinds of all modules, or those whose names contain one of the words."""
    if chosen == [PLANTED]:
        from tests.fuzz import planted

        return planted.kinds(work)
    from tests.fuzz import cameras, clouds, images, models

    made: list[Kind] = []
    for module in (images, clouds, models, cameras):
        folder = work / module.__name__.rpartition(".")[2]
        folder.mkdir()
        made += module.kinds(folder)
    return [kind for kind in made if not chosen or any(word in kind.name for word in chosen)]


def main() -> None:
    """Read inputs until all are done or the time is over.

    Arguments: first seed, number of seeds, seconds, number of inputs that are done already, then words
    that names of kinds contain.
    """
    first, count, done = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
    seconds = float(sys.argv[3])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not for the parent
    faulthandler.enable()
    warnings.simplefilter("ignore")

    def say(**what: Any) -> None:
        print(json.dumps(what), file=out, flush=True)

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BrokenPipeError):
        work = Path(folder)
        inputs = Inputs(all_kinds(work, sys.argv[5:]), work)
        limit_memory()
        end = time.monotonic() + seconds
        say(ready=sorted(inputs.kinds))
        todo = (
            (name, seed)
            for seed in range(first, first + count)
            for name, kind in inputs.kinds.items()
            if seed % kind.every == 0
        )
        for number, (name, seed) in enumerate(itertools.islice(todo, done, None)):
            if time.monotonic() > end:
                break
            say(kind=name, seed=seed)
            began = time.process_time()
            problem = inputs.try_one(name, seed)
            took = time.process_time() - began
            if problem is None and took > SLOW_S:
                problem = f"took {took:.1f} s of processor time"
            if problem is not None:
                say(kind=name, seed=seed, problem=problem)
            if number % 500 == 0:
                gc.collect()
        say(done=True)


if __name__ == "__main__":
    main()
