"""A command ends on SIGTERM as on Ctrl-C; the processes that it forks end at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import ROOT

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


@POSIX
def test_a_signal_is_an_interrupt():
    ran = python(
        "import os, signal, time\n"
        "from dinomed3d.runtime.commands.signals import end_gently\n"
        "end_gently()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(30)\n"
        "except KeyboardInterrupt:\n"
        "    print('cleaned up')\n"
    )
    assert ran.stdout == "cleaned up\n", ran.stderr


@POSIX
def test_a_forked_process_has_the_handlers_of_the_system_from_its_first_moment():
    ran = python(
        "import os, signal\n"
        "from dinomed3d.runtime.commands.signals import end_gently\n"
        "end_gently()\n"
        "os.register_at_fork(after_in_child=lambda: print(signal.getsignal(signal.SIGTERM).name, flush=True))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(signal.getsignal(signal.SIGTERM).__name__)\n"
    )
    assert ran.stdout == "SIG_DFL\n_interrupt\n", ran.stderr


@POSIX
def test_pools_that_end_at_once_do_not_wait_for_their_processes():
    ran = python(
        "import multiprocessing\n"
        "from dinomed3d.runtime.commands.signals import end_gently\n"
        "end_gently()\n"
        "for _ in range(50):\n"
        "    with multiprocessing.get_context('fork').Pool(4):\n"
        "        pass\n"
        "print('done')\n"
    )
    assert ran.stdout == "done\n", ran.stderr


@POSIX
def test_a_handler_that_was_set_since_stays():
    ran = python(
        "import os, signal\n"
        "from dinomed3d.runtime.commands.signals import end_gently\n"
        "end_gently()\n"
        "def finish_the_step(number, frame):\n"
        "    pass\n"
        "signal.signal(signal.SIGTERM, finish_the_step)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(signal.getsignal(signal.SIGTERM).__name__)\n"
    )
    assert ran.stdout == "finish_the_step\n", ran.stderr


@POSIX
def test_handlers_of_a_library_are_taken_back():
    ran = python(
        "import signal, threading\n"
        "from dinomed3d.runtime.commands.signals import kept_handlers\n"
        "def start():\n"
        "    with kept_handlers():\n"
        "        if threading.current_thread() is threading.main_thread():\n"
        "            signal.signal(signal.SIGTERM, print)\n"
        "            signal.signal(signal.SIGHUP, print)\n"
        "            raise OSError\n"
        "    print('another thread has none')\n"
        "signal.signal(signal.SIGTERM, max)\n"
        "try:\n"
        "    start()\n"
        "except OSError:\n"
        "    print(signal.getsignal(signal.SIGTERM).__name__, signal.getsignal(signal.SIGHUP).name)\n"
        "thread = threading.Thread(target=start)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert ran.stdout == "max SIG_DFL\nanother thread has none\n", ran.stderr
