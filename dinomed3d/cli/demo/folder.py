"""The demo's folder: what the demo may use and empty, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dinomed3d import __version__
from dinomed3d.cli.doctor.folders import NNUNET_FOLDERS
from dinomed3d.runtime.errors import UserError

_MARKER = ".dinomed3d_demo"
_CHILDREN = (
    *NNUNET_FOLDERS,
    "predictions",
    "logs",
    "summary.json",
    "overlay.png",
    "pointseg",
    _MARKER,
)
"""Everything that the demo writes into its folder; it deletes nothing else there."""


def prepare_folder(out: Path, *, overwrite: bool) -> Path:
    """Make the demo's folder, empty of earlier demos, and mark it as ours.

    Args:
        out: may be missing, empty, or hold an earlier demo.
        overwrite: remove an earlier demo; files that are not the demo's stay.

    Returns:
        The folder's absolute path.

    Raises:
        UserError: ``out`` is a file, cannot be written, holds an earlier demo that may not be
            replaced, or holds something that is not a demo.
    """
    out = out.expanduser().resolve()
    try:
        if out.exists() and not out.is_dir():
            raise UserError(f"--out '{out}' is a file; name a folder")
        if (out / _MARKER).is_file():
            if not overwrite:
                raise UserError(
                    f"'{out}' holds an earlier demo; add --overwrite to replace it, "
                    "or name another folder with --out"
                )
            for child in (out / name for name in _CHILDREN if name != _MARKER):
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child)
                else:
                    child.unlink(missing_ok=True)
        elif out.exists() and any(out.iterdir()):
            raise UserError(
                f"'{out}' is not empty and holds no earlier demo; name another folder with --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        # Marked before anything else, so that an interrupted demo is known as one.
        (out / _MARKER).write_text(json.dumps({"dinomed3d": __version__}) + "\n")
        for name in (*NNUNET_FOLDERS, "logs"):
            (out / name).mkdir()
    except OSError as error:
        raise UserError(f"--out '{out}' cannot be used: {error}") from error
    return out
