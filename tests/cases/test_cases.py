"""Every input of the table: how its command ends, and what it says of which file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cases.rows import ROWS, Row
from tests.cases.run_rows import run, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def parameters() -> list[object]:
    return [pytest.param(row, id=row.name) for row in ROWS if not row.elsewhere]


@pytest.mark.parametrize("row", parameters())
@pytest.mark.filterwarnings("ignore")
def test_a_row_of_the_table(row: Row, shared: Path, models: Path, tmp_path: Path) -> None:
    code, said = run(row, shared / "cases", models, tmp_path)
    assert code == row.code, said
    for pattern in row.said:
        assert re.search(pattern, said, re.MULTILINE), (pattern, said)
    for pattern in ("Traceback", *row.unsaid):
        assert not re.search(pattern, said, re.MULTILINE), (pattern, said)


def test_the_table_is_whole(shared: Path) -> None:
    cases = shared / "cases"
    folders = {
        f"{part}/{one.name}" for part in ("medical", "points") for one in (cases / part).iterdir()
    }
    files = {one.name for one in (cases / "files").iterdir()}
    text = " ".join([row.folder + " " + " ".join(row.copied) for row in ROWS])
    assert [name for name in sorted(folders | files) if name not in text] == []


def test_rows_that_are_tested_elsewhere_name_a_test_that_is_there() -> None:
    for row in ROWS:
        file, _, name = row.elsewhere.partition("::")
        if row.elsewhere:
            content = (Path(__file__).parents[2] / file).read_text(encoding="utf-8")
            assert f"def {name}(" in content, row.elsewhere
