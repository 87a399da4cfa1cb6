"""All checks of an installation, in the order in which they are printed."""

from __future__ import annotations

from collections.abc import Iterator

from dinomed3d.cli.doctor.devices import devices, triton
from dinomed3d.cli.doctor.encoder_weights import encoder_weights
from dinomed3d.cli.doctor.extras import cloud_files, extras
from dinomed3d.cli.doctor.folders import (
    NNUNET_FOLDERS,
    nnunet_folder,
    shared_memory,
    temporary_folder,
)
from dinomed3d.cli.doctor.nnunet_lookups import nnunet
from dinomed3d.cli.doctor.versions import versions
from dinomed3d.dataset.findings import Finding


def check_installation() -> Iterator[Finding]:
    """Check versions, devices, nnU-Net's look-ups, weights, folders, memory and extras, in this order.

    What only training needs may be unset on a machine that predicts; what is set must be right.
    """
    yield from versions()
    yield from cloud_files()
    yield from devices()
    yield from triton()
    yield from nnunet()
    yield from encoder_weights(unset="note")
    yield from (nnunet_folder(name, unset="note") for name in NNUNET_FOLDERS)
    yield temporary_folder()
    yield from shared_memory()
    yield from extras()


def check_for_training() -> Iterator[Finding]:
    """Check what the training on a dataset needs of this machine: weights, devices, folders."""
    yield from encoder_weights(unset="error")
    yield from devices()
    yield from (nnunet_folder(name, unset="error") for name in NNUNET_FOLDERS)
