"""The documentation names what is there: files, names in them, commands, options and settings."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from functools import cache
from types import ModuleType

import pytest
import yaml

from dinomed3d.lifting import MODELS
from tests import ROOT
from tests.docs.pages import DOCS, PAGES, WRITTEN, named

PATH = re.compile(r"`((?:dinomed3d|planners|pointseg|examples|tests|docs)/[\w./]*)`")
NAMES = re.compile(r"`([\w/]+\.py)`:((?:,? `\w+`)+)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9_-]+")
FUZZ = ROOT / "tests" / "fuzz" / "test_fuzz.py"
"""Its variables stand in CONTRIBUTING.md."""
SCRIPT = ROOT / "examples" / "benchmarks" / "few_cases.py"
"""A script of the examples that pages call with its options."""
FOREIGN = {
    # nnU-Net's
    "-tr", "-pl", "-pretrained_weights", "-gpu_memory_target", "-num_gpus", "-device", "--c", "--npz",
    "--save_probabilities",
    # of docker, git, pip, DCMTK and the tools of this repository
    "-t", "-v", "--build-arg", "--rm", "--read-only", "--tmpfs", "--network", "--cap-drop", "--security-opt",
    "--user", "--gpus", "--shm-size", "--entrypoint", "-e",
    # of SLURM and torchrun
    "--array", "--gres", "--cpus-per-task", "--mem", "--time", "--requeue", "--nodes", "--ntasks-per-node",
    "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-id", "--rdzv-endpoint",
    "--check", "--config-settings", "-aec", "--list", "--strict", "--force-reinstall", "-m", "-n0",
    # of systemctl
    "--now",
}  # fmt: skip


@cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def parsers() -> dict:
    return dict(generator().parsers())


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_files_and_names_in_them_exist(page):
    text = page.read_text(encoding="utf-8")
    missing = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    for file, names in NAMES.findall(text):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        defined = {getattr(node, "name", None) for node in ast.walk(tree)}
        missing += [f"{file}: {n}" for n in re.findall(r"\w+", names) if n not in defined]
    assert missing == []


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_options_and_variables_exist(page):
    text = page.read_text(encoding="utf-8")
    spans = re.findall(r"`[^`\n]+`", text) + re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    known = {
        option
        for parser in parsers().values()
        for action in parser._actions
        for option in action.option_strings
    }
    known |= set(re.findall(r'add_argument\(\s*"(--[\w-]+)', SCRIPT.read_text(encoding="utf-8")))
    options = {option for span in spans for option in OPTION.findall(span)}
    assert options - known - FOREIGN == set()
    variables = set(re.findall(r"DINOMED3D_\w+", text)) - set(settings())
    tests_own = set(re.findall(r"DINOMED3D_FUZZ_\w+", FUZZ.read_text(encoding="utf-8")))
    assert variables - tests_own == set()


def test_every_command_has_a_page():
    pages = generator().command_pages()
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {page for page in pages if page not in navigation} == set()
    assert set(re.findall(r"commands/[\w-]+\.md", navigation)) == set(pages)
    for name, parser in parsers().items():
        page = pages[f"commands/{name.replace(' ', '-')}.md"]
        long = {o for a in parser._actions for o in a.option_strings if o.startswith("--")}
        assert {option for option in long - {"--help"} if option not in page} == set()


def test_every_written_page_is_in_the_navigation():
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = set(re.findall(r"[\w/-]+\.md", str(navigation)))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} - listed == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_directives_are_filled(page):
    filled = generator().expand(page.read_text(encoding="utf-8"))
    assert "<!-- " not in filled
    assert re.findall(r"^\| `(\w+)` \| [^|]+ \|  \|$", filled, re.MULTILINE) == []
    for module in re.findall(r"^::: ([\w.]+)$", filled, re.MULTILINE):
        assert importlib.util.find_spec(module) is not None


def settings() -> dict[str, str]:
    """Environment variables and their defaults, as text."""
    from dinomed3d.networks import NetworkSpec
    from dinomed3d.training.settings.environment import RECIPE_VARIABLES, SPEC_VARIABLES
    from dinomed3d.training.settings.recipe import Recipe

    owners = ((Recipe(), RECIPE_VARIABLES), (NetworkSpec(), SPEC_VARIABLES))
    values = {v: getattr(owner, name) for owner, names in owners for v, name in names.items()}
    return {v: ",".join(x) if isinstance(x, tuple) else str(x) for v, x in values.items()}


def test_settings_page_explains_every_variable():
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(DINOMED3D_\w+)` \| .{10,} \| `([^`]+)`", text, re.MULTILINE)
    assert dict(rows) == settings()


def test_settings_page_lists_every_encoder_and_no_other():
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`vit_[^|]*) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(MODELS)


def test_readme_is_short_and_tells_the_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
    assert max(map(len, lines)) <= 120
    assert "pip install . && dinomed3d demo" in lines
    assert 'pip install -e ".[test]" && pytest' in lines


def test_citation_file_is_valid():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    for reference in [found, *found["references"]]:
        assert all({"name"} == a.keys() or "family-names" in a for a in reference["authors"])


def test_every_command_ends_its_help_with_an_example_that_it_takes():
    for name, parser in generator().parsers():
        words = shlex.split(re.split(r" (?:>|&&) ", parser.example)[0])
        assert words[: len(name.split())] == name.split(), f"{name}: {parser.example!r}"
        if "--help" not in words:
            assert parser.parse_args(words[len(name.split()) :]), name
        assert parser.format_help().endswith(f"\nexample:\n  {parser.example}\n")
