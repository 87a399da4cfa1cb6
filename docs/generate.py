"""What the documentation takes from the code when it is built: an mkdocs hook (see mkdocs.yml).

Each console command gets a page made from its own parser, below ``commands/``, each notebook of the examples one below
``notebooks/``. In the written pages a line

    <!-- fields MODULE:CLASS -->     becomes a table of a dataclass's fields: name, default, docstring
    <!-- include PATH -->            becomes a Markdown file of the repository
    <!-- code PATH -->               becomes a file of the repository as a code block

Nothing that is made is written into the repository, so no page can fall behind the code.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dinomed3d.runtime.commands.argument_parser import parser_of  # noqa: E402  (the checkout's, by the line above)

DIRECTIVE = re.compile(r"^<!-- (fields|include|code) (\S+) -->$", re.MULTILINE)
LANGUAGES = {".yaml": "yaml", ".json": "json", ".py": "python", ".txt": "text"}


def on_files(files: Any, config: Any) -> Any:
    """Add the command pages and the notebooks (called by mkdocs)."""
    from mkdocs.structure.files import File

    for path, text in command_pages().items():
        files.append(File.generated(config, path, content=text))
    for notebook in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        place = (str(ROOT / "examples"), config.site_dir, config.use_directory_urls)
        files.append(File(f"notebooks/{notebook.name}", *place))
    return files


on_files.mkdocs_priority = 100  # type: ignore[attr-defined]  # before mkdocs-jupyter looks for notebooks


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the directives of a page (called by mkdocs)."""
    return expand(markdown)


def expand(markdown: str) -> str:
    """A page with its directives replaced by what they name."""

    def made(match: re.Match[str]) -> str:
        kind, argument = match.groups()
        if kind == "fields":
            module, _, name = argument.partition(":")
            return field_table(getattr(importlib.import_module(module), name))
        path = ROOT / argument
        text = path.read_text(encoding="utf-8").rstrip()
        if kind == "include":
            return text
        return f"```{LANGUAGES.get(path.suffix, 'text')}\n{text}\n```"

    return DIRECTIVE.sub(made, markdown)


# ---- commands -------------------------------------------------------------------------------------


def command_pages() -> dict[str, str]:
    """Markdown of the page of every console command, and of every verb of `dinomed3d`, by its path."""
    pages, rows = {}, []
    for name, parser in parsers():
        path = f"{name.replace(' ', '-')}.md"
        pages[f"commands/{path}"] = command_page(name, parser)
        rows.append(f"| [`{name}`]({path}) | {plain(first_sentence(parser.description or ''))} |")
    head = (
        "# Commands\n\nEach page is made from the command's own parser: what `--help` prints.\n\n"
    )
    pages["commands/index.md"] = head + table("Command", "What it does") + "\n".join(rows) + "\n"
    return pages


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command as it is typed, and its parser; a command with verbs is followed by these."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    scripts = project.partition("[project.scripts]\n")[2].partition("\n[")[0]
    for command, module, function in re.findall(r'^([\w-]+) = "([\w.]+):(\w+)"', scripts, re.M):
        parser = parser_of(getattr(importlib.import_module(module), function))
        yield command, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((f"{command} {verb}", sub) for verb, sub in action.choices.items())


def command_page(name: str, parser: argparse.ArgumentParser) -> str:
    """Markdown of one command."""
    with mock.patch.dict("os.environ", {"COLUMNS": "100"}):
        usage = parser.format_usage().rstrip()
    parts = [f"# `{name}`", plain(parser.description or ""), f"```text\n{usage}\n```"]
    for group in parser._action_groups:
        shown = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        shown = [a for a in shown if not isinstance(a, argparse._HelpAction)]
        if not shown:
            continue
        title = group.title or "options"
        title = title[0].upper() + title[1:]
        head = "Option" if any(action.option_strings for action in shown) else "Argument"
        rows = [option_row(parser, action) for action in shown]
        parts.append(f"## {title}\n\n{table(head, 'Meaning')}" + "\n".join(rows))
    if parser.epilog:
        parts.append(plain(parser.epilog))
    if example := getattr(parser, "example", ""):
        parts.append(f"## Example\n\n```bash\n{example}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def option_row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """An option or argument as a row: how it is typed, and its help with the defaults filled in."""
    formatter = parser._get_formatter()
    if isinstance(action, argparse._SubParsersAction):
        verbs = [f"[`{verb}`](dinomed3d-{verb}.md)" for verb in action.choices]
        return f"| `{action.metavar or action.dest}` | one of {', '.join(verbs)} |"
    spelled = formatter._format_action_invocation(action)
    if action.option_strings and action.nargs != 0:
        value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
        spelled = f"{', '.join(action.option_strings)} {value}"
    text = formatter._expand_help(action) if action.help else ""
    if action.required and action.option_strings:
        text = f"(required) {text}"
    if "default" not in text and action.default not in (None, False, argparse.SUPPRESS, []):
        text += f" (default: {action.default})"
    return f"| `{spelled.replace('|', chr(92) + '|')}` | {plain(text.strip())} |"


# ---- settings -------------------------------------------------------------------------------------


def field_table(owner: type) -> str:
    """The fields of a dataclass as rows of name, default and docstring."""
    meanings, usual = docstrings(owner), defaults(owner)
    rows = [f"| `{name}` | {usual[name]} | {inline(meanings.get(name, ''))} |" for name in usual]
    return table("Field", "Default", "Meaning") + "\n".join(rows)


def docstrings(owner: type) -> dict[str, str]:
    """The string below each field of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(after.value, ast.Constant)
            found[field.target.id] = inspect.cleandoc(str(after.value.value))
    return found


def defaults(owner: type) -> dict[str, str]:
    """The default of each field as a table shows it."""
    found = {}
    for field in fields(owner):
        value = field.default
        if value is MISSING and field.default_factory is not MISSING:
            value = field.default_factory()
        if value is MISSING:
            found[field.name] = "must be given"
        elif is_dataclass(value):
            found[field.name] = f"`{type(value).__name__}`"
        elif isinstance(value, tuple):
            found[field.name] = f"`{', '.join(map(str, value))}`"
        else:
            found[field.name] = {"": "empty", "None": "none"}.get(str(value), f"`{value}`")
            if isinstance(value, bool):  # as JSON has it, which plans and --override take
                found[field.name] = f"`{str(value).lower()}`"
    return found


# ---- Markdown -------------------------------------------------------------------------------------


def table(*heads: str) -> str:
    """The first two lines of a Markdown table."""
    return f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}\n"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", re.sub(r"\s+", " ", text))


def inline(text: str) -> str:
    """A docstring on one line; what is in backquotes stays code."""
    parts = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    return "".join(
        f"`{part.strip('`')}`".replace("|", r"\|") if part.startswith("`") else plain(part)
        for part in parts
    )


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return re.split(r"(?<=[.;])\s", " ".join(text.split()), maxsplit=1)[0].rstrip(";")
