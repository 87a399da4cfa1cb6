"""The verb `predict`: its options, what it says while it works, and how it ends."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import Any

from dinomed3d.inference.cohort.events import CaseEnded, CaseProgress, CasesFound, Event
from dinomed3d.inference.cohort.spec import ENGINES, PRECISIONS
from dinomed3d.runtime.errors import UserError


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "predict",
        help="segment a folder of scans with any trained nnU-Net v2 model, and report",
        description="For every scan below IN a mask on exactly its grid, a record and a preview, and for the run "
        "a report. A scan that cannot be done costs only itself. The same command again goes on where "
        "it was stopped. Exit code 0: all done; 1: some cases failed, listed at the end; 2: nothing can be done.",
    )
    paths = parser.add_argument_group("what is predicted")
    paths.add_argument(
        "-i",
        dest="source",
        required=True,
        metavar="IN",
        help="folder tree of .nii .nii.gz .mha .nrrd and DICOM series (also in zips), or one file",
    )
    paths.add_argument(
        "-o",
        dest="out",
        required=True,
        metavar="OUT",
        help="folder for masks, records, report.html",
    )
    paths.add_argument(
        "-m",
        dest="model",
        required=True,
        metavar="MODEL",
        help="trained model: nnU-Net's folder, its exported zip, or one made by 'dinomed3d package'",
    )
    paths.add_argument(
        "-f",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        help="folds to average (default: all there are)",
    )
    paths.add_argument(
        "--checkpoint",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="of a model folder (default: checkpoint_final.pth)",
    )
    paths.add_argument(
        "--channels",
        nargs="+",
        metavar="NAME=PATTERN",
        help="which files are which channel, e.g. --channels 'T1=*t1*.nii.gz' 'FLAIR=*flair*'; without it "
        "nnU-Net's _0000 names, or sub-folders named after the channels",
    )
    paths.add_argument(
        "--orientation",
        metavar="XYZ",
        help="turn every volume to these axes for the network, e.g. RAS, and its mask back "
        "(default: as stored, as nnU-Net does)",
    )
    speed = parser.add_argument_group("speed and memory")
    speed.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where the network runs; auto takes cuda if there is one, else cpu (default: auto)",
    )
    speed.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: what the trainer uses on the device; on a CPU bfloat16 is faster and less exact",
    )
    speed.add_argument(
        "--step-size",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of a patch from one window to the next (default: 0.5)",
    )
    speed.add_argument(
        "--no-mirroring",
        action="store_true",
        help="do not average mirrored copies: faster, a little less accurate",
    )
    speed.add_argument(
        "--memory-limit",
        type=float,
        metavar="GIB",
        help="of main memory for the working process (default: four fifths of what is free)",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--save-probabilities",
        action="store_true",
        help="also CASE.b2nd: float16 (classes, z, y, x), compressed in chunks, to be read with blosc2",
    )
    results.add_argument(
        "--dicom-seg",
        action="store_true",
        help="also CASE.seg.dcm for DICOM input (needs the extra 'dicom')",
    )
    results.add_argument("--overwrite", action="store_true", help="do all cases again")
    results.add_argument("--retry-failed", action="store_true", help="try failed cases again")
    machines = parser.add_argument_group("processes and machines")
    machines.add_argument(
        "--shard",
        metavar="I/N",
        help="only the I-th of N about equal parts, for N machines with one OUT; the last has the whole report",
    )
    machines.add_argument(
        "--engine",
        choices=ENGINES,
        default="process",
        help="process: a second process works, and if it dies one case has failed; threads: all in this "
        "one; ray: a Ray cluster (needs the extra 'ray') (default: process)",
    )
    machines.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="of the engine ray, each with the model in its memory (default: 1)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Predict, and say what came of it."""
    from pathlib import Path

    from dinomed3d.inference.cohort.run import predict
    from dinomed3d.inference.cohort.spec import PredictSpec
    from dinomed3d.inference.discovery.find_cases import parse_patterns
    from dinomed3d.inference.models.model import open_model
    from dinomed3d.runtime.signals import end_gently

    folds = None if arguments.folds is None else tuple(arguments.folds)
    patterns = None
    if arguments.channels is not None:
        model = open_model(Path(arguments.model), folds=folds, checkpoint=arguments.checkpoint)
        patterns = parse_patterns(arguments.channels, model.channels)
    spec = PredictSpec(
        source=arguments.source,
        out=arguments.out,
        model=arguments.model,
        folds=folds,
        checkpoint=arguments.checkpoint,
        patterns=patterns,
        device=arguments.device,
        precision=arguments.precision,
        step_size=arguments.step_size,
        mirroring=not arguments.no_mirroring,
        orientation=None if arguments.orientation is None else arguments.orientation.upper(),
        memory_limit_gib=arguments.memory_limit,
        save_probabilities=arguments.save_probabilities,
        dicom_seg=arguments.dicom_seg,
        overwrite=arguments.overwrite,
        retry_failed=arguments.retry_failed,
        shard=parse_shard(arguments.shard),
        engine=arguments.engine,
        workers=arguments.workers,
    )
    end_gently()
    outcome = predict(spec, Progress())
    print(f"{len(outcome.done)} cases done, {len(outcome.failed)} failed; report: {outcome.report}")
    for case, reason in outcome.failed.items():
        print(f"failed: {case}: {reason}")
    return 1 if outcome.failed or outcome.missing else 0


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """`2/8` -> (2, 8).

    Raises:
        UserError: not of that form.
    """
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise UserError(f"--shard must be I/N, such as 1/4, got {text!r}")
    return int(number), int(count)


class Progress:
    """Shows the events of a run on stderr: a line per case, and the time that is left."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.total = self.ended = 0
        self.started = time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, event: Event) -> None:
        """Show an event; from any thread."""
        with self.lock:
            if isinstance(event, CasesFound):
                self._found(event)
            elif isinstance(event, CaseProgress) and self.live:
                counter = f"[{self.ended + 1}/{self.total}]"
                self._print(f"{counter} {event.case}: {event.fraction:.0%}", end="")
            elif isinstance(event, CaseEnded):
                self._ended(event)

    def _print(self, text: str, end: str = "\n") -> None:
        """Print one line, over a percentage that was shown before."""
        clear = "\r\x1b[K" if self.live else ""
        print(f"{clear}{text}", end=end, file=sys.stderr, flush=True)

    def _found(self, event: CasesFound) -> None:
        shard, work = event.shard, event.work
        self.total = len(work.todo)
        parts = [f"{len(shard.cases)} cases found", f"{self.total} to predict"]
        for cases, text in (
            (work.kept, "done earlier and verified"),
            (work.edited, "of them corrected by hand, kept as they are"),
            (work.failed, "failed earlier (--retry-failed predicts them again)"),
            (shard.rejected, "rejected"),
        ):
            parts += [f"{len(cases)} {text}"] if cases else []
        ignored = ", ".join(f"{count} {why}" for why, count in shard.ignored.items())
        self._print("; ".join([*parts, f"ignored: {ignored}"] if ignored else parts))
        for case, why in work.redone.items():
            self._print(f"again: {case}: {why}")

    def _ended(self, event: CaseEnded) -> None:
        self.ended += 1
        seconds = sum(event.seconds.values())
        result = f"{seconds:.1f} s" if event.reason is None else f"FAILED: {event.reason}"
        left_s = (time.monotonic() - self.started) / self.ended * (self.total - self.ended)
        left = f", about {duration(left_s)} left" if self.ended < self.total else ""
        self._print(f"[{self.ended}/{self.total}] {event.case}: {result}{left}")


def duration(seconds: float) -> str:
    """Seconds as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
