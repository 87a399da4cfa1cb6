"""Versions of Python, of the package and of what it needs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

import dinomed3d
from dinomed3d.dataset.findings import Finding

PACKAGES = ("torch", "nnunetv2", "timm", "monai", "SimpleITK", "torchio", "safetensors")
"""Packages without which volumes can neither be trained on nor predicted."""


def versions() -> Iterator[Finding]:
    """Which versions there are, and whether they are those that the package needs."""
    from packaging.requirements import Requirement

    yield Finding(topic="python", says=f"{platform.python_version()} on {platform.platform()}")
    try:
        requirements = importlib.metadata.requires("dinomed3d") or []
        yield Finding(topic="dinomed3d", says=importlib.metadata.version("dinomed3d"))
    except importlib.metadata.PackageNotFoundError:
        requirements = []
        says = f"{dinomed3d.__version__}, run from its source folder and not installed"
        yield Finding(
            topic="dinomed3d", says=says, state="error", fix="in that folder: pip install ."
        )
    wanted = {r.name.lower(): r for r in map(Requirement, requirements) if r.marker is None}
    for name in PACKAGES:
        requirement = wanted.get(name.lower())
        install = f"pip install '{requirement or name}'"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(topic=name, says="not installed", state="error", fix=install)
            continue
        if requirement is None or requirement.specifier.contains(version, prereleases=True):
            yield Finding(topic=name, says=version)
        else:
            says = f"{version}, but dinomed3d needs {requirement.specifier}"
            yield Finding(topic=name, says=says, state="error", fix=install)
