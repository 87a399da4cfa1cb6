"""The verb `predict`: its options, what it prints in the end, and its exit code."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from dinomed3d.cli.progress.prediction import Progress
from dinomed3d.inference.cohort.spec import ENGINES, PRECISIONS, PROBABILITIES, PredictSpec
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import DEVICES
from dinomed3d.runtime.messages.counted import counted
from dinomed3d.runtime.messages.terminal_text import one_line

if TYPE_CHECKING:
    from dinomed3d.inference.cohort.outcome import Outcome

FAILED_BEFORE = 3
"""Exit code of a run in which only cases failed that had failed before."""

PERSONAL_DATA = (
    "Names of folders and files below IN, and names of DICOM series, become names of results. They stand in masks', "
    "records' and previews' file names, CASE.json (with paths, SeriesDescription and reasons), report.html, "
    "report.csv, run.json, and in what is printed. DICOM objects repeat the patient's and the study's tags "
    "(name, ID, birth date, sex, dates, UIDs), as an archive needs them. Previews, also inside report.html, show three "
    "slices of the scan. Masks repeat nothing but the geometry of the scan's header. Nothing is sent anywhere."
)
"""Which personal data a run writes where, for --help."""


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "predict",
        help="segment a folder of scans with a trained nnU-Net v2 model",
        example="dinomed3d predict -i scans -o masks -m model.zip",
        description="Writes, for every scan below IN, a mask on exactly its grid, a record and a preview, and a "
        "report of the run. A failed scan does not stop the run. The same command again continues a stopped "
        "run, and predicts what is new or changed.",
        epilog=f"Exit codes: 0 all cases are done; 1 some cases failed, listed at the end, or are not done yet; 2 "
        "nothing can be predicted, or the rest of the run could not be: the last line says why; "
        f"{FAILED_BEFORE} cases failed, but only such as had failed in an earlier run already, with the same files: "
        "a run every night need not report them again; 130 interrupted.",
    )
    _add_input(parser.add_argument_group("input, model and output"))
    _add_speed(parser.add_argument_group("speed and memory"))
    _add_results(parser.add_argument_group("results"))
    _add_machines(parser.add_argument_group("processes and machines"))
    _add_personal(parser.add_argument_group("personal data", PERSONAL_DATA))
    add_json(parser)
    parser.set_defaults(run=run)


def _add_input(group: Any) -> None:
    group.add_argument(
        "-i",
        dest="source",
        required=True,
        metavar="IN",
        help="folder tree of .nii .nii.gz .mha .nrrd and DICOM series (also in zips), or one file",
    )
    group.add_argument(
        "-o", dest="out", required=True, metavar="OUT", help="folder for masks and report.html"
    )
    group.add_argument(
        "-m",
        dest="model",
        required=True,
        metavar="MODEL",
        help="trained model: nnU-Net's folder, its exported zip, one made by 'dinomed3d package', or hf:owner/name for "
        "one that 'dinomed3d package --push' put on the Hugging Face hub (also hf:owner/name@revision)",
    )
    group.add_argument(
        "-f", dest="folds", nargs="+", metavar="FOLD", help="folds to average (default: all)"
    )
    group.add_argument(
        "--checkpoint",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="checkpoint file of each fold in a model folder (default: checkpoint_final.pth)",
    )
    group.add_argument(
        "--channels",
        nargs="+",
        metavar="NAME=PATTERN",
        help="which files are which channel, e.g. --channels 'T1=*t1*.nii.gz' 'FLAIR=*flair*' (default: "
        "nnU-Net's _0000 names, or sub-folders named after the channels)",
    )
    group.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="leave out files and folders of these names, e.g. --exclude '*_seg.nii.gz' segmentations "
        "(label images are left out by themselves and listed)",
    )
    group.add_argument(
        "--orientation",
        type=str.upper,
        metavar="XYZ",
        help="reorient every volume to these axes for the network, e.g. RAS, and the mask back "
        "(default: as stored, as nnU-Net does)",
    )


def _add_speed(group: Any) -> None:
    group.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where the network runs; auto: cuda if there is one, else cpu (default: auto)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: what the trainer uses on the device; bfloat16 is faster on CPUs with instructions for it, and less "
        "exact",
    )
    group.add_argument(
        "--step-size",
        type=float,
        default=0.5,
        metavar="FRACTION",
        help="distance of neighbouring windows as a fraction of the patch (default: 0.5)",
    )
    group.add_argument(
        "--no-mirroring",
        dest="mirroring",
        action="store_false",
        help="do not average mirrored copies: faster, a little less accurate",
    )
    group.add_argument(
        "--memory-limit",
        dest="memory_limit_gib",
        type=float,
        metavar="GIB",
        help="main memory for the predicting process (default: four fifths of what is free)",
    )

    group.add_argument(
        "--localizer",
        metavar="MODEL",
        help="a coarse model, such as the 3d_lowres of the same training, finds the region to predict; outside it is "
        "background (default: the whole volume is predicted)",
    )
    group.add_argument(
        "--localizer-margin",
        dest="localizer_margin_mm",
        type=float,
        default=20.0,
        metavar="MM",
        help="margin on each side of what the localizer labels, in mm (default: 20)",
    )


def _add_results(group: Any) -> None:
    group.add_argument(
        "--save-probabilities",
        nargs="?",
        const=PROBABILITIES[0],
        choices=PROBABILITIES,
        help="also the probabilities of all classes: npz, CASE.npz and CASE.pkl as nnUNetv2_predict writes them, for "
        "nnUNetv2_ensemble (the default); b2nd, CASE.b2nd: float16 (classes, z, y, x), compressed in chunks, much "
        "smaller and faster, to be read with blosc2",
    )
    group.add_argument(
        "--postprocessing",
        nargs="?",
        const="",
        metavar="FILE",
        help="apply nnU-Net's postprocessing to the masks: that of the model, or FILE, the postprocessing.json or .pkl "
        "that nnUNetv2_find_best_configuration wrote (default: masks as predicted, as nnUNetv2_predict writes them)",
    )
    group.add_argument(
        "--dicom-seg",
        action="store_true",
        help="also CASE.seg.dcm for DICOM input (needs highdicom, the extra 'dicom')",
    )
    group.add_argument(
        "--dicom-rtstruct",
        action="store_true",
        help="also CASE.rtstruct.dcm for DICOM input: contours of each label on the original slices, for planning "
        "systems; also for finished masks, which are not predicted again",
    )
    group.add_argument(
        "--statistics",
        action="store_true",
        help="also statistics.json, and columns in report.csv: volume (mm3, ml), mean and standard deviation of each "
        "channel for each label of each case; also for finished masks, which are not predicted again",
    )
    group.add_argument(
        "--split-labels",
        action="store_true",
        help="also CASE.labels/LABEL.nii.gz: a mask of 0 and 1 for each label and region; also for finished masks, "
        "which are not predicted again",
    )
    group.add_argument("--overwrite", action="store_true", help="predict all cases again")
    group.add_argument("--retry-failed", action="store_true", help="predict failed cases again")


def _add_machines(group: Any) -> None:
    group.add_argument(
        "--shard",
        metavar="I/N",
        help="only the I-th of N about equal parts, for N machines with one OUT; the last one reports all",
    )
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="process",
        help="process: in a child process, whose crash costs one case; threads: in this process; "
        "ray: on a Ray cluster (needs Ray, the extra 'ray') (default: process)",
    )
    group.add_argument(
        "--stall-minutes",
        type=float,
        default=30.0,
        metavar="MIN",
        help="give up a case that shows no sign of progress for so long (no window, no step; large scans are allowed "
        "more), so that the others go on; 0: never (default: 30)",
    )
    group.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes of the engine ray, each with the model in memory (default: 1)",
    )


def _add_personal(group: Any) -> None:
    group.add_argument(
        "--anonymous",
        action="store_true",
        help="report.html, report.csv, run.json and what is printed have pseudonyms in place of names, and leave out "
        "paths, file names and DICOM values; pseudonyms.csv in OUT, which must stay there, says which case is which. "
        "Other files keep their names (default: everything has names)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Predict, and print the result."""
    from dinomed3d.hub.local_model import VOLUME, local_model
    from dinomed3d.inference.cohort.run import predict
    from dinomed3d.inference.discovery.find_cases import parse_patterns
    from dinomed3d.inference.models.model import open_model

    options = vars(arguments)
    given = {
        field.name: options[field.name] for field in fields(PredictSpec) if field.name in options
    }
    given["folds"] = folds = None if arguments.folds is None else tuple(arguments.folds)
    given["exclude"] = tuple(arguments.exclude)
    given["model"] = str(path := local_model(arguments.model, VOLUME))
    if arguments.localizer is not None:
        given["localizer"] = str(local_model(arguments.localizer, VOLUME))
    if arguments.channels is not None:
        model = open_model(path, folds=folds, checkpoint=arguments.checkpoint)
        given["patterns"] = parse_patterns(arguments.channels, model.channels)
    if arguments.shard is not None:
        given["shard"] = parse_shard(arguments.shard)
    with json_alone(arguments.json), Progress() as progress:
        outcome = predict(PredictSpec(**given), progress)
    if arguments.json:
        print_json("dinomed3d-predict-1", {**asdict(outcome), "results": arguments.out})
    else:
        _print(outcome)
    before = outcome.failed_before
    if outcome.missing or len(before) < len(outcome.failed):
        return 1
    return FAILED_BEFORE if before else 0


def _print(outcome: Outcome) -> None:
    """Say how the run ended, and why cases failed."""
    before = outcome.failed_before
    earlier = f" ({len(before)} of them in an earlier run already)" if before else ""
    counts = f"{counted(len(outcome.done), 'case')} done, {len(outcome.failed)} failed{earlier}"
    print(one_line(f"{counts}; report: {outcome.report}"))
    for case, reason in outcome.failed.items():
        print(one_line(f"failed{' before' if case in before else ''}: {case}: {reason}"))


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` -> (2, 8).

    Raises:
        UserError: not of that form.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise UserError(f"--shard must be I/N, such as 1/4, got {text!r}")
    return int(number), int(count)
