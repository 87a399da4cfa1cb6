"""Runs the parts of `gpu.py`, each in a process of its own: an error on the device ends one part, not the others.

The processes are forked from one that has imported everything and not touched the device, so that they start at
once. A part writes what it finds to WORK/parts/NAME.json entry by entry: of one that fails, or that is stopped at
the end of its time, what it found until then is kept.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_device import Gauge, Work

MARGIN_S = 2.0
"""Left of the whole time for writing results."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a part is given."""

    device: torch.device
    tiny: bool
    """Whether everything is made so small that a CPU needs a second for it."""
    work: Path
    """Folder for scans, models and results."""
    data: Path | None = None
    """A raw dataset of nnU-Net for the benchmark with few cases."""
    weights: Path | None = None
    """Weights of DINOv2 ViT-S for it."""
    ends: float = float("inf")
    """When the part is stopped, on the clock of `time.monotonic`."""
    file: Path | None = None
    """Where its findings are written; None: nowhere."""
    found: dict[str, Any] = field(default_factory=dict)
    """Its findings."""

    @property
    def gauge(self) -> Gauge:
        """For the device."""
        return Gauge(self.device)

    @property
    def size(self) -> str:
        """Of the networks that are timed: as published, or tiny."""
        return "tiny" if self.tiny else "full"

    @property
    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.ends - time.monotonic()

    def note(self, name: str, value: Any) -> None:
        """Keep a finding and write it."""
        self.found[name] = value
        print(f"    {name}: {json.dumps(value, default=str)[:300]}", flush=True)
        if self.file is not None:
            write(self.file, {"status": "unfinished", "found": self.found})

    def attempt(self, name: str, work: Callable[[], Any]) -> None:
        """Keep what `work` returns, or its error; the part goes on with what is next."""
        self.note(name, attempted(work))
        self.gauge.free()

    def details(self, work: Work) -> dict[str, Any]:
        """Memory, launches and waits of `work`, each on its own, so that one that fails leaves the others."""
        if self.tiny:
            return {}
        gauge = self.gauge
        kinds = {"GiB": gauge.peak_gib, "launches": gauge.launches, "waits": gauge.waits}
        return {name: attempted(partial(kind, work)) for name, kind in kinds.items()}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the benchmark."""

    name: str
    what: str
    """For the table of parts."""
    seconds: float
    """That it is expected to take on one H200; it gets twice as many, and is not begun with fewer left."""
    module: str
    """What it is in; imported before it begins, so that one that cannot be costs this part alone."""
    function: str
    """Its name there; it takes a Bench."""
    least: float = 0.0
    """Seconds that must be left, if it can do with fewer than `seconds`."""

    def run(self, bench: Bench) -> None:
        """Run it in this process."""
        getattr(importlib.import_module(self.module), self.function)(bench)


def attempted(work: Callable[[], Any]) -> Any:
    """What `work` returns, or its error as a finding."""
    try:
        return work()
    except (Exception, SystemExit) as error:  # commands that fail end with the latter
        return failure(error)


def failure(error: BaseException) -> dict[str, str]:
    """An error as a finding."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return {"error": f"{type(error).__name__}: {error}"[:600], "trace": "".join(lines)[-2000:]}


def write(file: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old content or the new one."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    os.replace(part, file)


def run_parts(
    parts: Sequence[Part],
    bench: Bench,
    *,
    seconds: float,
    again: bool,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Run parts in their order and keep WORK/results.json up to date.

    Args:
        parts: those that were asked for.
        bench: device and folders.
        seconds: for all of them.
        again: whether parts that are done are run again.
        report: is given the content of results.json after each part.

    Returns:
        The content of results.json: for each part its status, seconds and findings.
    """
    end = time.monotonic() + seconds
    folder = bench.work / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for part in parts:
        attempted(partial(importlib.import_module, part.module))  # forked processes then have it
    for part in parts:
        file = folder / f"{part.name}.json"
        left = end - time.monotonic() - MARGIN_S
        if not again and file.exists() and _matches(json.loads(file.read_text()), bench):
            print(f"{part.name}: done before", flush=True)
        elif left < min(part.seconds, part.least or part.seconds) and not bench.tiny:
            print(f"{part.name}: not begun, {left:.0f} s left", flush=True)
            if not file.exists():
                write(file, {"status": "no time", "found": {}})
        else:
            print(f"{part.name}: {part.what}", flush=True)
            start = time.monotonic()
            status = _in_process(part, bench, file, limit=min(left, 2 * part.seconds + 10))
            content = json.loads(file.read_text()) if file.exists() else {"found": {}}
            content |= {"status": status, "seconds": round(time.monotonic() - start, 1)}
            write(file, content | _setting(bench))
            print(f"{part.name}: {status}, {content['seconds']} s", flush=True)
        found = results(bench.work, [p.name for p in parts])
        write(bench.work / "results.json", found)
        report(found)
    return found


def results(work: Path, names: Sequence[str]) -> dict[str, Any]:
    """What the parts' files hold, parts of earlier calls included."""
    folder = work / "parts"
    order = [*names, *sorted({p.stem for p in folder.glob("*.json")} - set(names))]
    files = {name: folder / f"{name}.json" for name in order}
    return {n: json.loads(f.read_text()) for n, f in files.items() if f.exists()}


def _setting(bench: Bench) -> dict[str, Any]:
    return {"on": bench.device.type, "tiny": bench.tiny}


def _matches(content: dict[str, Any], bench: Bench) -> bool:
    setting = _setting(bench)
    return content["status"] == "done" and {k: content.get(k) for k in setting} == setting


def _in_process(part: Part, bench: Bench, file: Path, *, limit: float) -> str:
    """Run a part in a process of its own group, which is ended with all that it started."""
    file.unlink(missing_ok=True)
    forks = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if forks else "spawn")
    ends = time.monotonic() + limit
    process = context.Process(target=_work, args=(part, bench, file, ends))
    process.start()
    process.join(limit)
    stopped = process.is_alive()
    _end(process)
    if stopped:
        return f"stopped after {limit:.0f} s"
    if process.exitcode == 0:
        return "done"
    return "failed" if process.exitcode == 1 else f"ended by itself ({process.exitcode})"


def _end(process: Any) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # of the group: commands that it left behind, too
    except (AttributeError, ProcessLookupError, PermissionError):
        process.kill()
    process.join()


def _work(part: Part, bench: Bench, file: Path, ends: float) -> None:
    """In the process of a part."""
    if hasattr(os, "setsid"):
        os.setsid()
    bench = Bench(**{**vars(bench), "ends": ends, "file": file, "found": {}})
    try:
        part.run(bench)
    except (Exception, SystemExit) as error:
        bench.note("error", failure(error))
        raise SystemExit(1) from error
