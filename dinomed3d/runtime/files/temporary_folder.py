"""Temporary files where the system has no writable folder for them, as in locked-down containers."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import temp_path


def ensure_temporary_folder(results: Path) -> None:
    """If neither TMPDIR nor the system's own folders can be written, let temporary files lie among the results.

    This process, its libraries (PyTorch needs a folder when it is imported) and its children use it from then on.
    It is removed when the process ends, and after a kill by `remove_leftovers`.

    Args:
        results: folder or file that a command will write; a folder is made if need be.

    Raises:
        UserError: there cannot be files either.
    """
    try:
        tempfile.gettempdir()
        return
    except FileNotFoundError:
        pass
    is_file = bool(results.suffix) and not results.is_dir()
    folder = temp_path((results.parent if is_file else results) / "temporary").absolute()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{results}: cannot be written ({error.strerror or error}), and there is no other folder for temporary "
            "files: set TMPDIR to one"
        ) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tempfile.tempdir = str(folder)
    os.environ |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
