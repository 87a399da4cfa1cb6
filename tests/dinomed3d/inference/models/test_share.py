"""Packages on a stand-in of the hub: what is uploaded, what its card says, what is refused."""

from __future__ import annotations

import json
import zipfile
from statistics import fmean

import pytest
import yaml

from dinomed3d.cli.main import main
from dinomed3d.inference.models import package as packaging
from dinomed3d.inference.models.model import open_model
from dinomed3d.inference.models.package import package_model
from dinomed3d.inference.models.share import card_of
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.fake_models import ours, write_model
from tests.hub import TOKEN, hub  # noqa: F401

# of huggingface_hub, in its own code
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
PATIENT = "Maier_Anna"
LICENCE = "DINOv3 License\nas I received it\n"
NOWHERE = float("nan")
"""Dice of a label that is neither in the reference nor in the prediction."""


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def folder(tmp_path):
    """A model whose files name a patient wherever nnU-Net's do."""
    made = write_model(tmp_path / "T__P__3d_fullres", **ours())
    dataset = json.loads((made / "dataset.json").read_text())
    dataset |= {"training": [{"image": f"./imagesTr/{PATIENT}.nii.gz"}], "dataset": {PATIENT: {}}}
    (made / "dataset.json").write_text(json.dumps(dataset))
    for fold, scores in (("0", [0.8]), ("1", [0.6, 0.6, 0.6])):
        write_summary(made, fold, {"1": scores, "2": [NOWHERE] * len(scores)})
    return made


def write_summary(model, fold, dice):
    """nnU-Net's scores of a fold: Dice of each case, by label."""
    cases = [
        {
            "prediction_file": f"/home/{PATIENT}.nii.gz",
            "metrics": {key: {"Dice": score} for key, score in zip(dice, scores, strict=True)},
        }
        for scores in zip(*dice.values(), strict=True)
    ]
    finite = {key: [score for score in scores if score == score] for key, scores in dice.items()}
    mean = {key: {"Dice": fmean(scores) if scores else NOWHERE} for key, scores in finite.items()}
    (model / f"fold_{fold}" / "validation").mkdir(exist_ok=True)
    path = model / f"fold_{fold}" / "validation" / "summary.json"
    path.write_text(json.dumps({"mean": mean, "metric_per_case": cases}))


def front_matter(card: str) -> dict:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_upload_and_use(hub, logged_in, folder, tmp_path, capsys, caplog):  # noqa: F811
    out = tmp_path / "m.zip"
    assert main(["package", str(folder), "-o", str(out), "--push", "us/tiny", "--private"]) == 0
    printed = capsys.readouterr().out.splitlines()
    files, repository = hub.files("us/tiny"), hub.repositories["us/tiny"]
    assert printed == [str(out), f"hf:us/tiny@{repository.branches['main']}"]
    assert repository.private
    assert files["model.zip"] == out.read_bytes()
    assert "private: model.zip" in caplog.text
    assert "dataset, training" in caplog.text
    card = files["README.md"].decode()
    assert front_matter(card)["library_name"] == "dinomed3d"
    assert "license" not in front_matter(card)
    assert "hf:us/tiny" in card
    assert "| a | 0.650 |" in card, "the mean over all four cases"
    assert "not a medical device" in card
    assert main(["inspect", printed[1]]) == 0


def test_nothing_names_a_case(folder, tmp_path):
    package = package_model(folder, tmp_path / "m.zip")
    with zipfile.ZipFile(package) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert not any(PATIENT.encode() in content for content in contents)
    model = open_model(package)
    assert model.hash == open_model(folder).hash
    again = package_model(package, tmp_path / "again.zip")
    assert again.read_bytes() == package.read_bytes()
    one = open_model(package_model(package, tmp_path / "one.zip", folds=["1"]))
    assert one.manifest.validation is None, "the means are those of both folds"


def test_a_case_without_a_label_does_not_count_for_it(folder, tmp_path):
    write_summary(folder, "0", {"1": [0.2, NOWHERE, NOWHERE], "2": [NOWHERE, 0.5, 0.7]})
    write_summary(folder, "1", {"1": [0.9, 0.9], "2": [0.3, NOWHERE]})
    model = open_model(package_model(folder, tmp_path / "m.zip"))
    dice = {"a": round(2.0 / 3, 4), "b": 0.5}
    assert model.manifest.validation == {"folds": ["0", "1"], "cases": 5, "dice": dice}
    assert "fewer cases" in card_of(model, "hf:us/tiny").decode()


def test_labels_that_are_nowhere_have_no_scores(folder, tmp_path):
    for fold in ("0", "1"):
        write_summary(folder, fold, {"1": [NOWHERE], "2": [NOWHERE]})
    model = open_model(package_model(folder, tmp_path / "m.zip"))
    assert model.manifest.validation is None
    assert "None were packaged" in card_of(model, "hf:us/tiny").decode()


@pytest.mark.parametrize(
    "summary",
    [
        {},
        {"metric_per_case": [{}]},
        {"metric_per_case": [{"metrics": {"1": {}}}]},
        {"metric_per_case": 3},
    ],
)
def test_summaries_that_are_none(folder, tmp_path, summary):
    path = folder / "fold_1" / "validation" / "summary.json"
    path.write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"fold_1/validation/summary\.json"):
        package_model(folder, tmp_path / "m.zip")


def test_paths_of_a_training_are_cut(tmp_path):
    notes = ours()
    notes["dinomed3d"]["recipe"]["start_from"] = f"/data/{PATIENT}/fold_0"
    package = package_model(write_model(tmp_path / "m", folds=("0",), **notes), tmp_path / "m.zip")
    assert open_model(package).training["recipe"]["start_from"] == "fold_0"


def test_licence_of_dinov3(hub, logged_in, tmp_path, capsys):  # noqa: F811
    model = write_model(tmp_path / "m", folds=("0",), **ours(weights="hub"))
    words = ["package", str(model), "-o", str(tmp_path / "m.zip"), "--push", "us/tiny"]
    assert main(words) == 2
    assert "--licence" in capsys.readouterr().err
    assert "us/tiny" not in hub.repositories
    (tmp_path / "l.txt").write_text(LICENCE)
    assert main([*words, "--licence", str(tmp_path / "l.txt")]) == 0
    files = hub.files("us/tiny")
    assert files["LICENSE.txt"] == LICENCE.encode()
    head = front_matter(files["README.md"].decode())
    assert (head["license"], head["license_name"]) == ("other", "dinov3-license")
    assert head["license_link"] == "LICENSE.txt"


def test_card_of_hostile_names(tmp_path):
    labels = {"background": 0, "a|b\n# x": 1, "<img src=x>": 2}
    package = package_model(
        write_model(tmp_path / "m", folds=("0",), labels=labels), tmp_path / "m.zip"
    )
    card = card_of(open_model(package), "hf:us/tiny").decode()
    assert "| a\\|b \\# x | 1 |" in card
    assert "<img" not in card.replace("\\<img", "")


def test_cards(hub, logged_in, folder, tmp_path, capsys, caplog):  # noqa: F811
    package, card = package_model(folder, tmp_path / "m.zip"), tmp_path / "card.md"
    push = ["package", str(package), "--push", "us/tiny"]
    assert main(push) == 0
    made = hub.files("us/tiny")["README.md"]
    assert main(push) == 0
    assert "stays" not in caplog.text
    hub.add("us/tiny", {"README.md": made.replace(b"Segments", b"I say: segments")})
    assert main(push) == 0
    assert b"I say" in hub.files("us/tiny")["README.md"]
    hub.add("us/tiny", {"README.md": b"---\nlicense: mit\n---\nMy own words.\n"})
    assert main(push) == 0
    assert b"My own words" in hub.files("us/tiny")["README.md"]
    assert "stays" in caplog.text
    assert main(["package", str(package), "-o", str(tmp_path / "n.zip"), "--card", str(card)]) == 0
    card.write_text(card.read_text() + "Reviewed.\n")
    assert main([*push, "--card", str(card)]) == 0
    assert hub.files("us/tiny")["README.md"] == card.read_bytes()
    assert main(["package", str(package), "-o", str(tmp_path / "o.zip"), "--card", str(card)]) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "-o"),
        (["--push", "us/tiny", "--licence", "l.txt"], "--licence"),
        (["--push", "tiny"], "--push"),
        (["--private", "-o", "a.zip"], "--private"),
        (["--push", "us/public", "--private"], "is public"),
        (["--push", "them/tiny"], "may not write"),
    ],
)
def test_refusals(hub, logged_in, folder, tmp_path, monkeypatch, capsys, words, reason):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    package_model(folder, tmp_path / "m.zip")
    hub.add("us/public", {})
    assert main(["package", "m.zip", *words]) == 2
    assert reason in capsys.readouterr().err
    assert "PUT" not in " ".join(hub.asked)


def test_nobody_is_logged_in(hub, folder, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "m.zip"
    assert main(["package", str(folder), "-o", str(out), "--push", "us/tiny"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert not out.exists(), "known before the work"


def test_uploads_that_are_forbidden(hub, logged_in, folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    package = package_model(folder, tmp_path / "m.zip")
    hub.status = 401
    assert main(["package", str(package), "--push", "us/tiny"]) == 2
    assert "may not write" in capsys.readouterr().err
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["package", str(package), "--push", "us/tiny"]) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err and not hub.asked


def test_what_may_name_cases_is_not_uploaded(
    hub,  # noqa: F811
    logged_in,
    folder,
    tmp_path,
    monkeypatch,
    capsys,
):
    with monkeypatch.context() as before:
        before.setattr(packaging, "portable_dataset", dict)
        old = package_model(folder, tmp_path / "old.zip")
    for source in (folder, old):
        assert main(["package", str(source), "--push", "us/tiny"]) == 2
        assert "-o" in capsys.readouterr().err
    assert not hub.repositories


def test_another_file_arrives(hub, logged_in, folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    package = package_model(folder, tmp_path / "m.zip")
    monkeypatch.setattr("dinomed3d.hub.push._content", lambda file: b"others' bytes")
    assert main(["package", str(package), "--push", "us/tiny"]) == 2
    assert "model.zip is another file on the hub" in capsys.readouterr().err


def test_an_upload_that_breaks(hub, logged_in, folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    package = package_model(folder, tmp_path / "m.zip")
    hub.status = 500
    assert main(["package", str(package), "--push", "us/tiny"]) == 2
    error = capsys.readouterr().err
    assert f"dinomed3d package {package} --push us/tiny" in error
