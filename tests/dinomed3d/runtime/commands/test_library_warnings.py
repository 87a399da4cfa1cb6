"""What a library's warning about its own code costs: nothing on the terminal, and no other warning."""

import ast
import warnings

import pytest

from dinomed3d.runtime.commands.library_warnings import importing_timm
from tests.test_architecture import SOURCES, TREES

JIT = "`torch.jit.interface` is deprecated. Please use `torch.compile` instead."


def warn(text, category, module):
    warnings.warn_explicit(text, category, "file.py", 1, module=module)


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
def test_only_this_warning_and_only_during_the_import(category):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with importing_timm():
            warn(JIT, category, "torch.jit._script")
            for text, module in ((JIT, "mine"), ("something else", "torch.jit._script")):
                with pytest.raises(category):
                    warn(text, category, module)
        with pytest.raises(category):
            warn(JIT, category, "torch.jit._script")


def test_timm_is_imported_nowhere_else():
    quiet, all_of_them = set(), set()
    for path, tree in TREES.items():
        if "timm" not in SOURCES[path]:
            continue
        for node in ast.walk(tree):
            inside = isinstance(node, ast.With) and "importing_timm" in ast.dump(node.items[0])
            for one in ast.walk(node) if inside else ():
                quiet |= {(path, one.lineno)} if isinstance(one, ast.Import) else set()
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "timm" for name in names):
                all_of_them.add((path, node.lineno))
    assert all_of_them and all_of_them == quiet
