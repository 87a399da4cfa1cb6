"""Runs console commands, nnU-Net's and ours, as a user would type them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dinomed3d.cli.doctor.folders import NNUNET_FOLDERS
from dinomed3d.runtime.errors import UserError

_POLL_S = 0.2
_PYTHON_ERROR = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit)\b")


@dataclass(frozen=True, kw_only=True)
class NnUNetCommands:
    """Runs nnU-Net's commands with one folder for all of its data."""

    root: Path
    """Holds ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables in addition to the caller's own."""

    def environment(self) -> dict[str, str]:
        """Return the commands' environment variables.

        ``DINOMED3D_*`` of the calling shell are left out: they belong to the caller's own work
        and would change what is run here.
        """
        ours = {k: v for k, v in os.environ.items() if not k.startswith("DINOMED3D_")}
        ours.update({name: str(self.root / name) for name in NNUNET_FOLDERS})
        ours["PYTHONUNBUFFERED"] = "1"  # so that the log can be followed
        ours.update(self.settings)
        return ours

    def run(
        self,
        command: str,
        arguments: Sequence[str],
        *,
        log: Path,
        watch: Callable[[str], None] | None = None,
    ) -> float:
        """Run one command to its end, with its output in a file.

        Args:
            command: name of the console script, such as ``nnUNetv2_train``.
            arguments: its arguments.
            log: file for its output; replaced.
            watch: called with every line of output, and every state of a progress bar, as it is written.

        Returns:
            Seconds it took.

        Raises:
            UserError: the command is not installed, or failed; names the log and quotes from it.
        """
        program = find_command(command)
        start = time.monotonic()
        # The output goes straight into the file and is read back from there: a pipe would stay
        # open, and we would wait, as long as any forgotten worker of the command lives.
        with log.open("wb") as sink, log.open(encoding="utf-8", errors="replace") as source:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                start_new_session=True,  # one group, so that its workers can be ended with it
            )
            try:
                pending = ""
                running = True
                while running:
                    running = process.poll() is None
                    # \r, with which a progress bar ends its states, is read as \n
                    *lines, pending = (pending + source.read()).split("\n")
                    if watch is not None:
                        for line in lines:
                            watch(line)
                    if running:
                        time.sleep(_POLL_S)
            finally:
                _end(process)
        if process.returncode != 0:
            raise UserError(
                f"{command} failed ({_exit_reason(process.returncode)}): "
                f"{last_error(log.read_text(encoding='utf-8', errors='replace'))} "
                f"-- its whole output is in '{log}'"
            )
        return time.monotonic() - start


def find_command(name: str) -> str:
    """The path of a console script: of this Python's environment, else on PATH.

    Raises:
        UserError: it is in neither.
    """
    here = Path(sys.executable).parent
    folders = [str(here), str(here / "Scripts"), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise UserError(
            f"command '{name}' is neither in '{here}' nor on PATH; "
            "install nnU-Net into this environment: pip install nnunetv2"
        )
    return found


def last_error(output: str) -> str:
    """The last Python error in a failed command's output, else its last line, else "no output"."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _PYTHON_ERROR.match(line)]
    # nnU-Net's main process only says that a worker died; the worker has said why before.
    reasons = [line for line in errors if "background worker" not in line.lower()]
    return (reasons or errors or lines or ["no output"])[-1]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the command if it still runs, and all workers that it left."""
    if hasattr(os, "killpg"):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def _exit_reason(code: int) -> str:
    if code == -9:
        return "killed, perhaps for lack of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
