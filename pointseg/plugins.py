"""Classes of the user's own in place of a built-in backbone or dataset, named ``package.module:Class``.

A plug-in is code: it is imported when a person names it (an option, an argument), never because a file does.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dinomed3d.runtime.errors import UserError

PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
FORM = "package.module:Class"
"""How a plug-in is named."""


class PluginError(UserError):
    """A plug-in that cannot be imported, does not fit its protocol, or failed."""


def is_plugin(name: str) -> bool:
    """Whether a name is that of a plug-in, and not of something built in."""
    return PATTERN.fullmatch(name) is not None


def import_class(name: str) -> type[Any]:
    """The class that a person named; modules of the current folder are found, as with ``python -m``.

    Raises:
        PluginError: not of the form ``package.module:Class``; no such module or class; the module's own error.
    """
    if not is_plugin(name):
        raise PluginError(f"{name!r}: a plug-in is named {FORM}")
    module_name, _, class_name = name.partition(":")
    _find_modules_of_current_folder()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and _is_in(module_name, error.name):
            raise PluginError(
                f"{name}: there is no module {error.name}; install it, put its folder on PYTHONPATH, or run the "
                f"command in the folder that holds it (the current folder is {Path.cwd()})"
            ) from error
        raise PluginError(f"{name}: importing {module_name} failed: {what(error)}") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if _is_defined_in(value, module_name)]
        raise PluginError(
            f"{name}: {module_name} ({module.__file__}) has no class {class_name}; it has: "
            f"{', '.join(classes) or 'none'}"
        )
    return found


@contextmanager
def errors_of(name: str, doing: str) -> Iterator[None]:
    """Whatever a plug-in raises, as one line that names it; the error itself stays as the cause.

    Errors of the user (``UserError``) and a lack of memory pass as they are.

    Args:
        name: of the plug-in.
        doing: what is called, such as ``load('train', 'a')``.

    Raises:
        PluginError: any other error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory

        if ran_out_of_memory(error):
            raise
        raise PluginError(f"{name}: {doing} failed: {what(error)}") from error


def what(error: BaseException) -> str:
    """An error in words: its type, message and the line that raised it."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        place = f" ({os.path.basename(frame.f_code.co_filename)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{place}"


def parameters_of(kind: type[Any], name: str) -> list[inspect.Parameter]:
    """Parameters of a plug-in's constructor.

    Raises:
        PluginError: they cannot be found out.
    """
    try:
        return list(inspect.signature(kind).parameters.values())
    except (ValueError, TypeError) as error:
        raise PluginError(f"{name}: must have a constructor in Python: {error}") from error


def require_methods(kind: type[Any], name: str, methods: Sequence[str], protocol: str) -> None:
    """Refuse a class without some methods.

    Raises:
        PluginError: one is missing; the message names them and the protocol.
    """
    missing = [f"{each}()" for each in methods if not callable(getattr(kind, each, None))]
    if missing:
        raise PluginError(
            f"{name}: lacks {', '.join(missing)}; it must have what {protocol} describes"
        )


def _find_modules_of_current_folder() -> None:
    """Put the current folder on the path of modules, where ``python -m`` has it."""
    here = os.getcwd()
    if getattr(sys.flags, "safe_path", False) or {"", here} & set(sys.path):
        return  # Python's option -P says that it is not wanted
    sys.path.insert(0, here)


def _is_in(module: str, missing: str | None) -> bool:
    """Whether what is missing is the module itself or a package around it."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _is_defined_in(value: Any, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module
