"""What planning says about pretrained weights where no file of them is named."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from dinomed3d.lifting.dino import hub_repository, needs_licence
from dinomed3d.lifting.missing_weights import VOLUMES
from dinomed3d.networks import NetworkSpec
from planners.report.tables import WIDTH


def weights_note(networks: Mapping[str, NetworkSpec], environ: Mapping[str, str]) -> str:
    """Whose weights training will ask the hub for, and how to change that.

    Args:
        networks: of a plan's configurations, by name.
        environ: the process's environment.

    Returns:
        A paragraph; empty if weights or a model to start from are named, or no configuration has an encoder.
    """
    setting, start = (
        environ.get(f"DINOMED3D_{name}", "").strip() for name in ("WEIGHTS", "START_FROM")
    )
    if setting not in ("", "hub") or start not in ("", "none"):
        return ""
    used: dict[str, list[str]] = {}
    for name, spec in networks.items():
        if "encoder" in spec.components:
            used.setdefault(spec.encoder, []).append(name)
    if not used:
        return ""
    sources = "; ".join(
        f"{encoder} ({', '.join(names)}) from {hub_repository(encoder)}"
        for encoder, names in used.items()
    )
    text = (
        f"{'' if setting else 'DINOMED3D_WEIGHTS is not set. '}Training will download encoder weights from the "
        f"Hugging Face hub: {sources}. For a file that you have, set DINOMED3D_WEIGHTS=FILE and plan again."
    )
    if any(map(needs_licence, used)):
        text += (
            " DINOv3's licence must be accepted first; DINOv2 needs none: set "
            f"{VOLUMES.without_licence}, and plan again."
        )
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)
