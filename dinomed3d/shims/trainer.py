"""Where nnU-Net finds ``DinoMed3DTrainer``.

The wheel copies this file into nnU-Net's trainer folder, and ``nnUNet_extTrainer`` may name the
folder it lies in. nnU-Net asks every module in such a folder for the class it looks for, whichever
that is, so the trainer is imported only when it is asked for by name.
"""

from __future__ import annotations


def __getattr__(name: str) -> type:
    if name != "DinoMed3DTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from dinomed3d.training.trainer import DinoMed3DTrainer
    except AttributeError as error:
        # hasattr() would swallow it, and nnU-Net would then say that there is no such trainer.
        raise ImportError(f"importing DinoMed3DTrainer failed: {error}") from error
    return DinoMed3DTrainer
