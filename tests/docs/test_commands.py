"""Commands in the pages are accepted by the parsers of the programs that they name."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import distribution
from unittest import mock

import pytest

from tests.docs.pages import Block, blocks
from tests.docs.test_docs import parsers, settings

OURS = ("dinomed3d", "pointseg-")
OTHERS = {
    # of the shell and the system
    "cd", "export", "python", "py", "pip", "cp", "sh", "head", "sudo", "systemctl", "mkdir", "setx", "crontab",
    "git", "jq", "docker", "storescu", "srun", "echo", "hf", "cat", "ls",
    "Add-Content", "Remove-Item",
    # of this repository's own checks
    "pytest", "ruff", "mypy", "mkdocs", ".ci/run",
}  # fmt: skip
"""Programs whose options nobody checks here."""


def lines(found: Block) -> Iterator[str]:
    """Commands of a block, each on one line, without comments."""
    end = "`\n" if found.language == "powershell" else "\\\n"
    for line in found.text.replace(end, " ").splitlines():
        if found.language == "cron":
            line = " ".join(line.split()[5:]) if re.match(r"[\d*]", line) else ""
        code = re.sub(r"(^|\s)#.*| > \S+", "", line)
        code = re.sub(r"\$\([^()]*\)", "VALUE", code)
        yield from (part.strip() for part in re.split(r"&&|;|\|", code) if part.strip())


def commands(found: Block) -> Iterator[list[str]]:
    """Words of each command, without variables before it."""
    for line in lines(found):
        if found.language == "powershell" and re.match(r"\$env:|if |}|\.venv", line):
            continue
        words = shlex.split(line.replace("\\", "/") if found.language == "powershell" else line)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            del words[0]
        if words:
            yield words


def inner(words: list[str]) -> list[str]:
    """What runs in a container or on the nodes of a cluster."""
    if words[0] == "docker" and words[1] == "run":
        image = next(i for i, word in enumerate(words) if word in ("dinomed3d", "dinomed3d:cuda"))
        if "--entrypoint" in words:
            return [words[words.index("--entrypoint") + 1], *words[image + 1 :]]
        return ["dinomed3d", *words[image + 1 :]]
    if "torchrun" in words:
        module = words.index("-m") + 1
        return [words[module].replace("pointseg.cli.", "pointseg-"), *words[module + 1 :]]
    return words


class Parsed(BaseException):
    """Carries a parser out of the command that was about to use it."""


def parser_of(main: Callable[[], object]) -> argparse.ArgumentParser:
    """The parser of a command of nnU-Net, which is stopped where it begins to parse."""

    def stop(self, *_: object) -> None:
        raise Parsed(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        with pytest.raises(Parsed) as stopped:
            main()
    return stopped.value.args[0]


def parse(words: list[str]):
    """Give a command's words to its own parser, which exits where it does not take them."""
    name = words[0]
    if name.startswith("nnUNetv2_"):
        (entry,) = (e for e in distribution("nnunetv2").entry_points if e.name == name)
        given = ["1" if word == "X" else word for word in words[1:]]  # the number of a dataset
        return parser_of(entry.load()).parse_args(given)
    if name.startswith(OURS):
        return parsers()[name].parse_args(words[1:])
    assert name in OTHERS, f"{name}: no program that these pages use"
    return None


def check_recipe(arguments) -> None:
    """Apply --override as a training does."""
    from pointseg.config.presets import images_of, recipe_for
    from pointseg.config.serialization import override

    size = arguments.model_size or "full"
    recipe = recipe_for(arguments.dataset, arguments.backbone, size, arguments.tune)
    if getattr(arguments, "images", True):
        recipe = replace(recipe, images=images_of(recipe, arguments.encoder))
    override(recipe, arguments.override)


@pytest.mark.parametrize(
    "found",
    [b for b in blocks() if b.language in ("bash", "powershell", "cron")],
    ids=lambda b: b.place,
)
def test_commands_are_accepted(found):
    for words in commands(found):
        words = inner(words)
        try:
            arguments = parse(words)
        except SystemExit as error:
            raise AssertionError(f"{found.place}: {shlex.join(words)}") from error
        if getattr(arguments, "override", None):
            check_recipe(arguments)


def test_variables_of_powershell_exist():
    known = {
        "nnUNet_raw",
        "nnUNet_preprocessed",
        "nnUNet_results",
        "nnUNet_extTrainer",
        "OMP_NUM_THREADS",
        *settings(),
    }
    for found in blocks():
        assert set(re.findall(r"\$env:(\w+) =", found.text)) - known == set(), found.place
