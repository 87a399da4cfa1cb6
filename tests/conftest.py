"""What all tests share: a tiny encoder in memory, and the folder of data next to the project."""

from __future__ import annotations

import gc
import os
import random
import signal
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

from dinomed3d.lifting import DinoEncoder, build_encoder
from tests import ROOT

SHARED = ROOT.parent / "shared"
"""Reference outputs and real data, next to the project's folder; never part of it."""
DEMANDED = "DINOMED3D_TESTS_NEED_SHARED"
"""Environment variable that `.ci/run` sets where the folder is: a test without its data then fails."""


def pytest_configure() -> None:
    """One thread: with tensors as small as here several mostly wait for each other."""
    torch.set_num_threads(1)


def pytest_report_header() -> str:
    """Say before the first test whether the tests marked 'data' run, and why not."""
    if SHARED.is_dir():
        return f"shared data: {SHARED}"
    return f"shared data: no folder {SHARED}; tests marked 'data' {_without_data()}"


def _without_data() -> str:
    demanded = os.environ.get(DEMANDED, "") not in ("", "0")
    return f"fail, because {DEMANDED} is set" if demanded else "are skipped"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
    # Files with slow tests first: at the end neither process waits minutes for the other.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin each test with the same random numbers and handlers, whichever tests ran before it in its process."""
    # a command that is called in this process leaves its own set
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random.seed(0)
    np.random.seed(0)  # libraries draw from it
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference outputs and data; without it a test is skipped, or fails if demanded."""
    if not SHARED.is_dir():
        reason = f"needs the folder {SHARED} (reference outputs, data)"
        if _without_data().startswith("fail"):
            pytest.fail(f"{reason}: {DEMANDED} is set")
        pytest.skip(reason)
    return SHARED


@pytest.fixture
def tiny_encoder() -> DinoEncoder:
    """A random DINOv3 of four blocks, two heads of 12 channels, frozen; made anew for each test."""
    torch.manual_seed(0)
    return build_encoder(
        "vit_small_patch16_dinov3",
        weights="none",
        embed_dim=24,
        depth=4,
        num_heads=2,
        init_values=1.0,
    )


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hugging Face hub that cannot be reached, and an empty cache, whatever this computer has in its own."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty_cache"))
