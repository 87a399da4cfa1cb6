"""What the wheel carries, and that nnU-Net's own look-ups find it after every kind of install."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SITE = Path(sysconfig.get_path("purelib"))
SHIMS = {
    # not in a subfolder: nnU-Net would import primus first, and timm would warn of torch.jit
    "nnunetv2/training/nnUNetTrainer/dinomed3d_trainer.py",
    "nnunetv2/experiment_planning/experiment_planners/dinomed3d_planner.py",
}
# Other classes are looked for first: that must pass our modules by without loading our packages.
LOOK_UP = """
import json, sys
from os.path import join
import nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find_trainer

def find_planner(name):
    folder = join(nnunetv2.__path__[0], "experiment_planning")
    return recursive_find_python_class(folder, name, "nnunetv2.experiment_planning")

found = {"nnunetv2": nnunetv2.__path__[0]}
find_trainer("nnUNetTrainer"), find_trainer("nnUNetTrainer_1epoch")
assert find_planner("nnUNetPlannerResEncL") is not None
found["ours"] = sorted({m.split(".")[0] for m in sys.modules} & {"dinomed3d", "planners"})
try:
    found["trainer"] = find_trainer("DinoMed3DTrainer").__module__
except RuntimeError:
    found["trainer"] = None
planner = find_planner("DinoMed3DPlanner")
found["planner"] = planner and planner.__module__
print(json.dumps(found))
"""


class Environment:
    """A virtual environment for nnU-Net and us, with all other packages of the one the tests run in."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=sys.platform != "win32")
        scheme = {"base": str(folder), "platbase": str(folder)}
        self.site = Path(sysconfig.get_path("purelib", "venv", scheme))
        self.python = (
            Path(sysconfig.get_path("scripts", "venv", scheme)) / Path(sys.executable).name
        )
        # The tests' environment comes last, without nnU-Net and us, which must not be found there.
        others = folder / "others"
        others.mkdir()
        for entry in SITE.iterdir():
            if not entry.name.startswith(("nnunetv2", "dinomed3d", "_editable_impl")):
                (others / entry.name).symlink_to(entry)
        (self.site / "zz_tests_environment.pth").write_text(f"{others}\n")

    def pip(self, *words: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        ran = subprocess.run([*pip, *words], capture_output=True, encoding="utf-8")
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def install(self, *words: str) -> None:
        self.pip("install", "--no-deps", "--no-index", "--no-build-isolation", *words)

    def run(self, code: str, *words: str) -> str:
        ran = subprocess.run(
            [str(self.python), "-W", "ignore", "-c", code, *words],
            cwd=self.site.parent,  # not the checkout, whose packages would be found in it
            capture_output=True,
            encoding="utf-8",
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


def copy_nnunet(folder: Path) -> None:
    spec = find_spec("nnunetv2")
    assert spec is not None
    assert spec.submodule_search_locations
    ours = shutil.ignore_patterns("__pycache__", *(Path(name).name for name in SHIMS))
    shutil.copytree(spec.submodule_search_locations[0], folder / "nnunetv2", ignore=ours)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree, copied, so that an editable install leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("dinomed3d", "planners", "pointseg"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    ran = subprocess.run(command, cwd=tree, capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_carries_packages_shims_command_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        commands = archive.read(f"{info}/entry_points.txt").decode()
    assert SHIMS <= names
    assert {"dinomed3d/__init__.py", "planners/__init__.py", "pointseg/__init__.py"} <= names
    assert {"dinomed3d/py.typed", "planners/py.typed", "pointseg/py.typed"} <= names
    assert "dinomed3d/cli/completion/paths.ps1" in names
    viewer = "dinomed3d/inference/viewer"
    parts = ("page/viewer.html", "page/viewer.js", "page/viewer.css", "niivue/niivue.umd.js")
    assert {f"{viewer}/{part}" for part in parts} <= names
    assert f"{info}/licenses/{viewer}/niivue/LICENSE" in names
    assert {name.split("/")[0] for name in names} == {
        "dinomed3d",
        "planners",
        "pointseg",
        "nnunetv2",
        info,
    }
    assert {name for name in names if name.startswith("nnunetv2/")} == SHIMS
    assert "dinomed3d = dinomed3d.cli.main:main" in commands
    assert f"{info}/licenses/LICENSE" in names


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["regular", "editable"])
def test_nnunet_finds_us_with_nothing_else_set(
    kind: str, wheel: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    environment = Environment(tmp_path / "env")
    copy_nnunet(environment.site)
    environment.install(*([str(wheel)] if kind == "regular" else ["-e", str(tree)]))
    home = environment.site / "nnunetv2"
    assert json.loads(environment.run(LOOK_UP)) == {
        "nnunetv2": str(home),
        "ours": [],
        "trainer": "dinomed3d.training.trainer",
        "planner": "planners.nnunet.planner",
    }
    where = "import dinomed3d, os; print(os.path.dirname(dinomed3d.__path__[0]))"
    from_where = environment.site if kind == "regular" else tree
    assert environment.run(where).strip() == str(from_where)

    environment.pip("uninstall", "--yes", "dinomed3d")
    assert not list(home.rglob("dinomed3d*.py")), "uninstalling takes our modules out of nnU-Net"


DOCTOR = """
from dinomed3d.cli.doctor.nnunet_lookups import nnunet
for finding in nnunet():
    print(finding.state, finding.topic, finding.says, finding.fix, sep="|")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_editable_nnunet_is_found_after_the_fixes_of_doctor(
    wheel: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setuptools")
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    clone = tmp_path / "clone"
    copy_nnunet(clone)
    (clone / "documentation").mkdir()  # as in nnU-Net's repository: not a lone package
    (clone / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "nnunetv2"\nversion = "2.8.1"\n'
        '[tool.setuptools.packages.find]\ninclude = ["nnunetv2*"]\n'
    )
    environment = Environment(tmp_path / "env")
    environment.install("-e", str(clone))
    environment.install(str(wheel))

    # Python asks the clone's own finder last, after our two modules' folder was found.
    assert "None" in environment.run("import nnunetv2; print(nnunetv2.__file__)")
    (hidden,) = environment.run(DOCTOR).splitlines()
    state, topic, says, fix = hidden.split("|")
    assert (state, topic) == ("error", "nnU-Net") and str(environment.site / "nnunetv2") in says
    command = fix.partition("pip install -e . ")[2].split()
    environment.install("-e", str(clone), *command)

    found = json.loads(environment.run(LOOK_UP))
    assert found["nnunetv2"] == str(clone / "nnunetv2") and found["trainer"] is None
    nnunet, trainer, planner = (line.split("|") for line in environment.run(DOCTOR).splitlines())
    assert nnunet[0] == "note" and str(clone) in nnunet[2]
    assert trainer[0] == "error" and planner[0] == "note" and "dinomed3d plan" in planner[3]
    setting, _, folder = trainer[3].removeprefix("export ").partition("=")
    for place in (folder.strip("'"), str(tree / "dinomed3d" / "shims")):
        monkeypatch.setenv(setting, place)
        *_, last = environment.run(
            LOOK_UP
        ).splitlines()  # after what nnU-Net says about the setting
        assert json.loads(last)["trainer"] == "dinomed3d.training.trainer"


THROUGH_ANOTHER = {"tensorboard": "torch.utils.tensorboard"}
WITH_TORCH = {"triton"}
"""What torch's own wheels bring where they use it, and is imported only if it is there."""
"""Packages that are imported by way of a module of another package."""


def imported_modules() -> set[str]:
    found = set()
    for package in ("dinomed3d", "planners", "pointseg"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module)
    return found


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in requirements}


def test_every_dependency_is_imported_and_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    hard, extras = declared(project["dependencies"]), project["optional-dependencies"]
    optional = declared(
        [
            line
            for name in ("completion", "dicom", "e57", "onnx", "ray", "view", "waymo")
            for line in extras[name]
        ]
    )
    modules = imported_modules()
    imported: set[str] = {name for name, module in THROUGH_ANOTHER.items() if module in modules}
    distributions = packages_distributions()
    for name in sorted({module.split(".")[0] for module in modules}):
        if name in sys.stdlib_module_names or name in ("dinomed3d", "planners", "pointseg"):
            continue
        owners = {owner.lower().replace("_", "-") for owner in distributions.get(name, [name])}
        assert owners & (hard | optional | WITH_TORCH), f"'{name}' is imported but not declared"
        imported |= owners
    assert hard <= imported


def test_nothing_that_is_packaged_is_ignored_by_git() -> None:
    """A file that only this checkout has would be missing in everyone else's."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout (a source archive), so there is nothing to compare with")
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    ours = ("dinomed3d/", "planners/", "pointseg/", "tests/", "examples/")
    hidden = [line for line in listed.stdout.splitlines() if line.startswith(ours)]
    assert [name for name in hidden if "__pycache__/" not in name] == []
