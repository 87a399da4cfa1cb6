"""Size and structure of this repository, counted at one or more revisions.

    python examples/structure.py                    # the files as they are in this checkout
    python examples/structure.py be42035 HEAD       # two commits side by side, read from git
    python examples/structure.py --list HEAD        # and the long functions, circles and imports by name

Lines are physical lines of Python files, as `wc -l` counts them. A function's length is from `def` to its last line,
docstring included. A circle is a group of files that import each other, directly or around, anywhere in the file.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dinomed3d", "planners", "pointseg")
LONG_FUNCTION = 60
LONG_FILE = 350


def read_checkout() -> dict[str, str]:
    """Text of each Python file of the packages, tests and examples in this checkout, by path."""
    paths = sorted(
        path
        for folder in (*PACKAGES, "tests", "examples")
        for path in (ROOT / folder).rglob("*.py")
    )
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def read_revision(revision: str) -> dict[str, str]:
    """Text of each Python file of a commit, by path; nothing is checked out."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", revision))) as archive:
        members = [m for m in archive if m.isfile() and m.name.endswith(".py")]
        return {m.name: archive.extractfile(m).read().decode("utf-8") for m in members}


def git(*words: str) -> bytes:
    ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True)
    if ran.returncode:
        raise SystemExit(f"structure.py: git {words[0]}: {ran.stderr.decode().strip()}")
    return ran.stdout


@dataclass
class Structure:
    """What is counted of one tree."""

    lines: Counter[str] = field(default_factory=Counter)
    """Lines of Python in each folder, its subfolders included."""
    files: Counter[str] = field(default_factory=Counter)
    """Python files that lie directly in each folder."""
    lengths: list[int] = field(default_factory=list)
    """Lines of each file of the packages."""
    long_functions: list[tuple[int, str]] = field(default_factory=list)
    """Length, file and name of each function of the packages that is too long, longest first."""
    circles: list[list[str]] = field(default_factory=list)
    """Groups of package files that import each other."""
    cli_imports: list[str] = field(default_factory=list)
    """Imports of a `cli` module by a file that is in no `cli` folder."""


def measure(sources: dict[str, str]) -> Structure:
    found = Structure()
    for path, text in sources.items():
        parents = PurePosixPath(path).parents
        found.files[str(parents[0])] += 1
        for folder in parents:
            found.lines[str(folder)] += text.count("\n")
    packaged = {path: text for path, text in sources.items() if path.startswith(PACKAGES)}
    found.lengths = [text.count("\n") for text in packaged.values()]
    trees = {path: ast.parse(text) for path, text in packaged.items()}
    for path, tree in trees.items():
        found.long_functions += [
            (length, f"{path}:{name}") for name, length in functions(tree) if length > LONG_FUNCTION
        ]
    found.long_functions.sort(reverse=True)
    graph = {path: set(imports(path, tree, trees)) for path, tree in trees.items()}
    found.circles = circles(graph)
    found.cli_imports = sorted(
        f"{path} -> {target}"
        for path, targets in graph.items()
        for target in targets
        if "/cli/" in target and "/cli/" not in path
    )
    return found


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Qualified name and length of every function; one inside another is counted in both."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}".lstrip(".")
            if not isinstance(child, ast.ClassDef):
                yield name, (child.end_lineno or child.lineno) - child.lineno + 1
        yield from functions(child, name)


def imports(path: str, tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    """Files of the packages that a file imports, wherever in the file it does."""

    def file_of(module: str) -> str | None:
        stem = module.replace(".", "/")
        return next((f for f in (f"{stem}.py", f"{stem}/__init__.py") if f in known), None)

    parts = PurePosixPath(path).with_suffix("").parts
    for node in ast.walk(tree):
        targets: list[str | None] = []
        if isinstance(node, ast.Import):
            targets = [file_of(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative: one dot is the folder of this file
                module = ".".join([*parts[: -node.level], *filter(None, [module])])
            # `from a import b` is module a.b where there is one, else a name of a
            targets = [file_of(f"{module}.{alias.name}") or file_of(module) for alias in node.names]
        yield from (target for target in targets if target and target != path)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected groups of more than one file."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in graph[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    reached = {path: reachable(path) for path in graph}
    groups = {
        tuple(sorted(other for other in reached[path] if path in reached[other]))
        for path in graph
        if path in reached[path]
    }
    return [list(group) for group in sorted(groups)]


def table(columns: dict[str, Structure]) -> str:
    found = list(columns.values())
    rows: list[tuple[str, list[object]]] = [
        ("lines of the packages", [sum(s.lines[p] for p in PACKAGES) for s in found]),
        *((f"  {p}", [s.lines[p] for s in found]) for p in PACKAGES),
        ("lines of the tests", [s.lines["tests"] for s in found]),
        ("lines of the examples", [s.lines["examples"] for s in found]),
        ("files of the packages", [len(s.lengths) for s in found]),
        ("lines of a file, median", [round(median(s.lengths)) for s in found]),
        (f"files over {LONG_FILE} lines", [sum(n > LONG_FILE for n in s.lengths) for s in found]),
        (f"functions over {LONG_FUNCTION} lines", [len(s.long_functions) for s in found]),
        ("circles of files", [len(s.circles) for s in found]),
        ("imports of cli from outside", [len(s.cli_imports) for s in found]),
        ("", ["" for _ in found]),
        ("folder: files in it, lines with subfolders", ["" for _ in found]),
    ]
    folders = {f for s in found for f in s.lines if f.startswith(PACKAGES)}
    for folder in sorted(folders):
        cells = [f"{s.files[folder]}, {s.lines[folder]}" if s.lines[folder] else "-" for s in found]
        rows.append((f"  {folder}/", list(cells)))
    heads = list(columns)
    first = max(len(name) for name, _ in rows)
    widths = [max(len(h), *(len(str(r[i])) for _, r in rows)) for i, h in enumerate(heads)]
    lines = [[*heads], *(cells for _, cells in rows)]
    names = ["", *(name for name, _ in rows)]
    return "\n".join(
        (
            f"{name:<{first}}"
            + "".join(f"  {c!s:>{w}}" for c, w in zip(cells, widths, strict=True))
        ).rstrip()
        for name, cells in zip(names, lines, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("revisions", nargs="*", metavar="REV", help="commits; none: this checkout")
    parser.add_argument("--list", action="store_true", help="name what was counted, per revision")
    arguments = parser.parse_args()
    columns = {revision: measure(read_revision(revision)) for revision in arguments.revisions}
    columns = columns or {"checkout": measure(read_checkout())}
    print(table(columns))
    for name, found in columns.items() if arguments.list else ():
        print(f"\n{name}: functions over {LONG_FUNCTION} lines")
        print("\n".join(f"  {length:4d}  {function}" for length, function in found.long_functions))
        print(f"{name}: circles of files")
        print("\n".join(f"  {', '.join(group)}" for group in found.circles))
        print(f"{name}: imports of cli from outside")
        print("\n".join(f"  {line}" for line in found.cli_imports))


if __name__ == "__main__":
    main()
