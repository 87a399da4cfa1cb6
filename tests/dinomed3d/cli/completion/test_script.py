"""`dinomed3d completion`: what bash offers after Tab, and that the other shells read their scripts."""

from __future__ import annotations

import argparse
import builtins
import shutil
import subprocess
from pathlib import Path

import pytest

from dinomed3d.cli.completion.script import completion_script
from dinomed3d.cli.main import VERBS, main
from dinomed3d.cli.verbs.completion import SHELLS

ASK = """
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\).*/\\1/')" "$1" "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    pytest.importorskip("shtab", reason="the extra 'completion' is not installed")
    path = tmp_path_factory.mktemp("completion") / "script.bash"
    path.write_text(completion_script("bash"), encoding="utf-8", newline="\n")
    (path.parent / "model.zip").touch()
    (path.parent / "cases").mkdir()
    return path


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("dinomed3d ", {Path(verb.__file__).stem for verb in VERBS}, set()),
        ("dinomed3d predict --dev", {"--device"}, {"--folds"}),
        ("dinomed3d predict --device ", {"auto", "cpu", "cuda", "mps"}, {"model.zip"}),
        ("dinomed3d predict -m mo", {"model.zip"}, {"cases"}),
        ("dinomed3d predict -i ", {"cases"}, set()),
        ("pointseg-train --dataset scan", {"scannet", "scannet200"}, {"folder"}),
        ("pointseg-train --encoder vit_small", {"vit_small_patch14_dinov2"}, set()),
        ("pointseg-prepare --dataset x --out ", {"cases"}, {"model.zip"}),
    ],
)
def test_bash_offers(line: str, offered: set[str], not_offered: set[str], script: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", ASK, "ask", str(script), *line.split(" ")],
        cwd=script.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    found = set(done.stdout.split())
    assert offered <= found and not not_offered & found, done.stderr


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell in ("zsh", "fish")])
def test_other_shells_read_their_script(shell: str, script: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = script.with_suffix(f".{shell}")
    path.write_text(completion_script(shell), encoding="utf-8")
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_zsh_reads_the_script_of_each_command_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shtab", reason="the extra 'completion' is not installed")
    commands = [argparse.ArgumentParser(prog=name) for name in ("one", "two")]
    monkeypatch.setitem(completion_script.__globals__, "_parsers", lambda: commands)
    script = completion_script("zsh")
    assert script.startswith("(( $+functions[compdef] ))") and script.count('eval "$(cat') == 2


def test_powershell_quotes_paths_with_blanks() -> None:
    pytest.importorskip("shtab", reason="the extra 'completion' is not installed")
    script = completion_script("powershell")
    named = "function _shtab_powershell_compgen_files"
    ours = script.rindex(named)
    assert script.count(named) > 1 and "_dinomed3d_paths $WordToComplete $true" in script[ours:]
    # a word that begins with a quote is the one being typed, in each command's script
    assert script.count("-eq (_dinomed3d_bare $wordToComplete)") == script.count("Register-Arg")
    if shutil.which("pwsh") is None:
        return
    asked = {"a b": "'a b'", "it's": "'it''s'", "a.zip": "a.zip", "$x": "'$x'"}
    words = ", ".join("'" + word.replace("'", "''") + "'" for word in asked)
    command = f"{script}\n{words} | ForEach-Object {{ _dinomed3d_quoted $_ }}"
    done = subprocess.run(
        ["pwsh", "-NoProfile", "-Command", "-"], input=command, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[: len(asked)] == list(asked.values()), done.stderr


def test_without_shtab_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def refuse(name: str, *words: object, **more: object) -> object:
        if name == "shtab":
            raise ImportError(name)
        return real(name, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["completion", "bash"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "[completion]" in printed.err
