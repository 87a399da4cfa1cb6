"""Where nnU-Net finds ``DinoMed3DPlanner``.

The wheel copies this file into nnU-Net's planner folder. nnU-Net asks every module there for the
class it looks for, whichever that is, so the planner is imported only when it is asked for by name.
"""

from __future__ import annotations


def __getattr__(name: str) -> type:
    if name != "DinoMed3DPlanner":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from planners.nnunet import DinoMed3DPlanner
    except AttributeError as error:
        # hasattr() would swallow it, and nnU-Net would then say that there is no such planner.
        raise ImportError(f"importing DinoMed3DPlanner failed: {error}") from error
    return DinoMed3DPlanner
