"""The verb `doctor`: checks the installation, or a raw dataset, each error with a fix."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from dinomed3d.dataset.findings import Finding, table
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.terminal_text import lines_of


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "doctor",
        help="check the installation, or with -d a raw dataset",
        example="dinomed3d doctor -d 17",
        description="Prints versions, devices, whether nnU-Net's own look-ups find our trainer and planner, which "
        "weights are configured, nnU-Net's three folders and their free space, readers of clouds, CUDA kernels, shared "
        "memory, and which extras can be used; each problem with what to do next. With -d it looks a raw dataset over "
        "instead: dataset.json, missing and surplus files, geometry of images, channels and labels, values of images "
        "and labels, copies, memory and disk of preprocessing, plans, weights, devices; and prints a table at the end.",
        epilog="Exit codes: 0 no errors; 1 there are errors; 2 there is no such dataset, or nothing in it. Weights and "
        "folders of nnU-Net that are not set are notes, since only planning and training need them; with -d they "
        "are errors.",
    )
    parser.add_argument(
        "-d", dest="dataset", metavar="DATASET", help="number, name or folder of a raw dataset"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that read voxels, each with one case in memory (default: one per core, at most 8)",
    )
    parser.add_argument(
        "--headers-only", action="store_true", help="with -d: read no voxels, only headers"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, and print the findings."""
    from dinomed3d.cli.doctor.installation import check_installation

    findings: list[Finding] = []
    if arguments.dataset is None:
        if arguments.headers_only:
            raise UserError("--headers-only is for a dataset: name it with -d")
        checks: Iterator[Finding] = check_installation()
    else:
        checks = _dataset(arguments)
    with json_alone(arguments.json):
        for finding in checks:
            if not arguments.json:
                print(lines_of(finding.text()), flush=True)
            findings.append(finding)
    if arguments.json:
        print_json("dinomed3d-doctor-1", {"findings": findings})
    elif arguments.dataset is not None:
        print(f"\n{table(findings)}")
    return 1 if any(finding.state == "error" for finding in findings) else 0


def _dataset(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Look a dataset over, and what its training needs of this machine.

    Raises:
        UserError: there is no such dataset, or nothing in it, or a wrong number of processes.
    """
    from dinomed3d.cli.doctor.installation import check_for_training
    from dinomed3d.cli.progress.dataset import DatasetProgress
    from dinomed3d.runtime.commands.library_output import quiet

    if arguments.processes < 1:
        raise UserError(f"--processes must be 1 or more, got {arguments.processes}")
    with quiet():  # nnU-Net says which of its folders are not set; so do we
        from dinomed3d.dataset.check import check_dataset, dataset_folder
    folder = dataset_folder(arguments.dataset)
    yield Finding(topic="dataset", says=str(folder))
    yield from check_dataset(
        folder,
        processes=arguments.processes,
        with_voxels=not arguments.headers_only,
        progress=DatasetProgress(),
    )
    yield from check_for_training()
