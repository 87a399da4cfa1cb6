"""The examples for cron and systemd: who gets which message, by the exit code of `dinomed3d predict`."""

import configparser
import os
import subprocess

import pytest

from dinomed3d.cli.verbs.predict import FAILED_BEFORE
from tests import ROOT

NIGHTLY = ROOT / "examples" / "nightly"


@pytest.mark.skipif(os.name != "posix", reason="a shell script for cron")
@pytest.mark.parametrize(
    ("code", "mailed"), [(0, False), (FAILED_BEFORE, False), (1, True), (2, True), (130, True)]
)
def test_cron_mails_only_news(code, mailed, tmp_path):
    command = tmp_path / "dinomed3d"
    command.write_text(f'#!/bin/sh\necho "$@"; echo "why" >&2; exit {code}\n')
    command.chmod(0o755)
    (tmp_path / "flock").symlink_to("/bin/true")  # also where there is none
    settings = {"IN": "/in scans", "OUT": "/out", "MODEL": "/m.zip", "LOG": str(tmp_path / "log")}
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", NIGHTLY / "predict.sh"],
        env={**os.environ, **settings, "PATH": path},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == code and not ran.stderr
    assert ran.stdout.endswith("predict -i /in scans -o /out -m /m.zip\nwhy\n") == mailed
    assert bool(ran.stdout) == mailed


def test_systemd_takes_the_code_for_success():
    units = {}
    for ending in ("service", "timer"):
        units[ending] = configparser.ConfigParser(interpolation=None)
        text = (NIGHTLY / f"dinomed3d-predict.{ending}").read_text(encoding="utf-8")
        units[ending].read_string(text)
    service = units["service"]["Service"]
    assert service["SuccessExitStatus"].split() == [str(FAILED_BEFORE)]
    assert service["Type"] == "oneshot" and "/dinomed3d predict -i " in service["ExecStart"]
    assert units["timer"]["Timer"]["OnCalendar"]
