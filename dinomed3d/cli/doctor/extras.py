"""What only some people need: extras, and readers of compressed clouds."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dinomed3d.cli.doctor.imports import import_error
from dinomed3d.dataset.findings import Finding
from dinomed3d.runtime.messages.extras import how_to_install

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PURPOSES = {
    "completion": "completion of commands in a shell",
    "dicom": "DICOM segmentations and structure sets",
    "e57": "E57 clouds",
    "hub": "models of the Hugging Face hub",
    "onnx": "dinomed3d export to ONNX",
    "ray": "prediction on a Ray cluster",
    "view": "pointseg-view in a browser",
    "waymo": "preparing the Waymo Open Dataset",
}
"""What each extra is for."""
OF_DEVELOPERS = ("test", "docs")
"""Extras that no user needs."""


def extras() -> Iterator[Finding]:
    """Which extras are installed and can be imported, and how to install the others."""
    from packaging.requirements import Requirement

    try:
        names = importlib.metadata.metadata("dinomed3d").get_all("Provides-Extra") or []
        requirements = [
            Requirement(text) for text in importlib.metadata.requires("dinomed3d") or []
        ]
    except importlib.metadata.PackageNotFoundError:
        return
    for extra in sorted(set(names) - {*OF_DEVELOPERS}):
        wanted = [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
        wanted = [r for r in wanted if not r.marker.evaluate({"extra": ""})]  # type: ignore[union-attr]
        yield _extra(extra, wanted)


def _extra(extra: str, wanted: list[Requirement]) -> Finding:
    topic, purpose = f"extra {extra}", PURPOSES.get(extra, "")
    needed = f", for {purpose}" if purpose else ""
    versions = []
    for requirement in wanted:
        name = requirement.name
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            says = f"{name} is not installed{needed}"
            return Finding(topic=topic, says=says, state="note", fix=how_to_install(extra))
        if not requirement.specifier.contains(version, prereleases=True):
            says = f"{name} {version}, but it needs {requirement.specifier}"
            return Finding(topic=topic, says=says, state="error", fix=how_to_install(extra))
        if reason := import_error(name):
            fix = f"reinstall it: pip install --force-reinstall '{requirement.name}{requirement.specifier}'"
            says = f"{name} {version} cannot be imported: {reason}"
            return Finding(topic=topic, says=says, state="error", fix=fix)
        versions.append(f"{name} {version}")
    return Finding(topic=topic, says=f"{', '.join(versions)}{needed}")


def cloud_files() -> Iterator[Finding]:
    """Whether compressed LAS files can be read and written."""
    for name, fix in (("laspy", "laspy[lazrs]>=2.5"), ("lazrs", "laspy[lazrs]>=2.5")):
        what = "LAS files" if name == "laspy" else "LAZ files"
        install = f"pip install --force-reinstall '{fix}'"
        if reason := import_error(name):
            says = f"cannot be imported, for {what}: {reason}"
            yield Finding(topic=name, says=says, state="error", fix=install)
        else:
            yield Finding(topic=name, says=f"{importlib.metadata.version(name)}, for {what}")
