"""Raw datasets with one fault each: what `dinomed3d doctor -d` finds, and how bad it calls it."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinomed3d.cli.main import main
from dinomed3d.dataset import check, resources
from dinomed3d.dataset.check import check_dataset, dataset_folder
from dinomed3d.dataset.headers import read_header
from dinomed3d.dataset.voxels import look_at_all
from dinomed3d.runtime.errors import UserError
from tests.documented_keys import read_json

SHAPE = (6, 5, 4)
DESCRIPTION = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "core": 1, "rim": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def image(path, values, spacing=(1, 1, 2), origin=(0, 0, 0), flip=False):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    if flip:
        affine[:, 0] *= -1
    nib.save(nib.Nifti1Image(np.asarray(values), affine), path)


def noise(seed, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def label(kind=np.uint8):
    values = np.zeros(SHAPE, kind)
    values[1:3], values[3:5, 2:] = 1, 2
    return values


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A sound dataset of three cases and a test case, where nnU-Net looks for it."""
    folder = tmp_path / "raw" / "Dataset007_Tiny"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number, case in enumerate("abc"):
        for channel in range(2):
            image(folder / f"imagesTr/{case}_000{channel}.nii.gz", noise(10 * number + channel))
        image(folder / f"labelsTr/{case}.nii.gz", label())
    for channel in range(2):
        image(folder / f"imagesTs/t_000{channel}.nii.gz", noise(100 + channel))
    describe(folder)
    (tmp_path / "pre").mkdir()
    # nnU-Net reads its variables when it needs them
    for name, where in (("raw", "raw"), ("preprocessed", "pre"), ("results", "res")):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / where))
    return folder


def describe(folder, **changes):
    content = {k: v for k, v in (DESCRIPTION | changes).items() if v is not None}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def found(folder, **options):
    settings = {"processes": 1, "with_voxels": True, "progress": lambda *_: None} | options
    return list(check_dataset(folder, **settings))


def wrong(folder, **options):
    """Everything that is not fine, without the hint to plan."""
    return [f for f in found(folder, **options) if f.state != "ok" and f.says != "none yet"]


def test_a_sound_dataset_has_no_findings(dataset):
    assert wrong(dataset) == []
    topics = {finding.topic for finding in found(dataset)}
    assert topics >= {"dataset.json", "files", "geometry", "voxels", "labels", "duplicates"}
    assert topics >= {"memory", "disk", "plans"}


def change(name, **how):
    return lambda folder: image(folder / name, **({"values": noise(77)} | how))


def copy(source, *targets):
    def act(folder):
        for target in targets:
            shutil.copy(folder / source, folder / target)

    return act


def remove(name):
    return lambda folder: (folder / name).unlink()


def says(**changes):
    return lambda folder: describe(folder, **changes)


def with_value(value, kind=np.uint8):
    values = label(kind)
    values[0, 0, 0] = value
    return change("labelsTr/b.nii.gz", values=values)


def nan():
    values = noise(5)
    values[0, 0, :2] = np.nan, np.inf
    return values


BAD = {
    "wrong way round": (
        says(labels={"0": "background", "1": "core"}),
        "error",
        "dataset.json",
        "way",
    ),
    "no background": (says(labels={"Background": 0, "core": 1}), "error", "dataset.json", "'Back"),
    "gap": (says(labels={"background": 0, "core": 1, "rim": 3}), "error", "dataset.json", "gaps"),
    "half": (says(labels={"background": 0, "core": 1.5}), "error", "dataset.json", '"core"'),
    "one number": (
        says(labels={"background": 0, "core": 1, "rim": 2, "ring": 2}),
        "error",
        "dataset.json",
        "rim and ring have one number",
    ),
    "label as an image": (
        lambda folder: (folder / "labelsTr/c.nii.gz").rename(folder / "labelsTr/c_0000.nii.gz"),
        "error",
        "files",
        r"c \(is it c_0000",
    ),
    "test channel": (remove("imagesTs/t_0001.nii.gz"), "note", "files", r"t \(1 file\)"),
    "ignore": (
        says(labels={"background": 0, "core": 2, "ignore": 1, "rim": 3}),
        "error",
        "dataset.json",
        "highest",
    ),
    "regions": (says(labels={"background": 0, "all": [1, 2]}), "error", "dataset.json", "regions"),
    "channels": (says(channel_names={"T1": "0", "FLAIR": "1"}), "error", "dataset.json", "way"),
    "numbers": (says(channel_names={"1": "a", "2": "b"}), "error", "dataset.json", "1, 2"),
    "key": (says(numTraining=None), "error", "dataset.json", "no numTraining"),
    "number": (says(numTraining=4), "error", "dataset.json", "there are 3"),
    "dot": (says(file_ending="nii.gz"), "error", "dataset.json", "dot"),
    "channel": (remove("imagesTr/b_0001.nii.gz"), "error", "files", r"1 case .*: b \(no b_0001"),
    "label": (remove("labelsTr/c.nii.gz"), "error", "files", "labelsTr: c"),
    "image": (copy("labelsTr/a.nii.gz", "labelsTr/d.nii.gz"), "note", "files", "no image.*: d"),
    "third": (
        copy("imagesTr/a_0000.nii.gz", "imagesTr/a_0002.nii.gz"),
        "error",
        "files",
        "a_0002",
    ),
    "name": (copy("imagesTr/a_0000.nii.gz", "imagesTr/e.nii.gz"), "error", "files", "imagesTr/e"),
    "mac": (copy("imagesTr/a_0000.nii.gz", "imagesTr/._a_0000.nii.gz"), "error", "files", r"\._a"),
    "ending": (copy("dataset.json", "imagesTr/a_0000.mha"), "note", "files", "a_0000.mha"),
    "shape": (
        change("labelsTr/b.nii.gz", values=label()[:5]),
        "error",
        "geometry",
        r"b \(b.nii.gz has 5 x 5 x 4 voxels, the first has 6 x 5 x 4",
    ),
    "spacing": (
        change("imagesTr/b_0001.nii.gz", spacing=(1, 1, 2.5)),
        "error",
        "geometry",
        "b_0001.nii.gz has voxels of 1 x 1 x 2.5",
    ),
    "origin": (
        change("labelsTr/b.nii.gz", values=label(), origin=(0, 0, 3)),
        "error",
        "geometry",
        "b.nii.gz lies up to 3 mm off",
    ),
    "mirrored": (
        change("labelsTr/b.nii.gz", values=label(), flip=True),
        "error",
        "geometry",
        "10 mm off",
    ),
    "rounded": (
        change("labelsTr/b.nii.gz", values=label(), origin=(0.1, 0, 0)),
        "note",
        "geometry",
        "0.1 mm off",
    ),
    "4d": (
        change("imagesTr/b_0000.nii.gz", values=noise(1, (*SHAPE, 2)), spacing=(1, 1, 2, 1)[:3]),
        "error",
        "geometry",
        "6 x 5 x 4 x 2",
    ),
    "nan": (
        change("imagesTr/b_0001.nii.gz", values=nan()),
        "error",
        "voxels",
        r"b_0001.nii.gz: .* 1 are NaN",
    ),
    "one value": (
        change("imagesTr/b_0000.nii.gz", values=np.zeros(SHAPE, np.int16)),
        "error",
        "voxels",
        "b_0000.nii.gz: 0",
    ),
    "value": (with_value(7), "error", "labels", r"b \(7\)"),
    "negative": (with_value(-1, np.int16), "error", "labels", r"b \(-1\)"),
    "fraction": (with_value(0.5, np.float32), "error", "labels", r"whole numbers.*b \(0.5\)"),
    "nothing": (
        change("labelsTr/b.nii.gz", values=np.zeros(SHAPE, np.uint8)),
        "note",
        "labels",
        "foreground: b",
    ),
    "never": (
        says(labels={"background": 0, "core": 1, "rim": 2, "fat": 3}),
        "note",
        "labels",
        "no case has 3 fat",
    ),
    "in test": (
        lambda folder: [
            copy(f"imagesTr/b_000{c}.nii.gz", f"imagesTs/t_000{c}.nii.gz")(folder) for c in (0, 1)
        ],
        "error",
        "duplicates",
        r"t \(as b\)",
    ),
    "twice": (
        lambda folder: [
            copy(f"imagesTr/a_000{c}.nii.gz", f"imagesTr/c_000{c}.nii.gz")(folder) for c in (0, 1)
        ],
        "note",
        "duplicates",
        r"c \(as a\)",
    ),
    "same name": (
        lambda folder: [
            (folder / f"imagesTs/t_000{c}.nii.gz").rename(folder / f"imagesTs/a_000{c}.nii.gz")
            for c in (0, 1)
        ],
        "note",
        "duplicates",
        "training case, .*: a",
    ),
    "two channels": (
        copy("imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"),
        "note",
        "duplicates",
        "two channels: a",
    ),
    "micron": (
        lambda folder: [
            image(path, nib.load(path).get_fdata(), spacing=(1000, 1000, 2000))
            for path in [*folder.glob("imagesTr/a_*"), folder / "labelsTr/a.nii.gz"]
        ],
        "error",
        "geometry",
        "a .1000 x 1000 x 2000 mm",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_one_fault_is_one_finding(dataset, fault):
    act, state, topic, text = BAD[fault]
    act(dataset)
    findings = [f for f in wrong(dataset) if f.topic not in ("memory", "disk")]
    assert [(f.state, f.topic) for f in findings][:1] == [(state, topic)], findings
    assert re.search(text, findings[0].says) and findings[0].fix
    allowed = {"labels", "voxels", "files", "dataset.json", topic}  # what follows from the fault
    assert len(findings) == 1 or {f.topic for f in findings} <= allowed, findings


def test_where_no_case_is_complete_the_rest_is_still_said(dataset):
    shutil.rmtree(dataset / "labelsTr")
    assert [(f.topic, f.cases) for f in wrong(dataset)] == [("files", 3)]


def test_a_test_case_of_the_same_name_has_its_own_header(dataset):
    for channel in range(2):
        image(dataset / f"imagesTs/a_000{channel}.nii.gz", noise(channel, (9, 9, 9)))
    assert [f.topic for f in wrong(dataset)] == ["duplicates"]
    (memory,) = (f for f in found(dataset) if f.topic == "memory")
    assert "9 x 9 x 9" not in memory.says


def test_a_damaged_file_costs_only_itself(dataset):
    path = dataset / "imagesTr/b_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    (dataset / "labelsTr/c.nii.gz").write_bytes(b"no image")
    findings = wrong(dataset)
    assert [(f.topic, f.cases, "c" in f.says) for f in findings][0] == ("geometry", 1, True)
    assert next(f for f in findings if f.topic == "voxels").cases == 2


def test_labels_the_wrong_way_round_are_compared_all_the_same(dataset):
    describe(dataset, labels={"0": "background", "1": "core", "2": "rim"})
    with_value(7)(dataset)
    assert [(f.topic, f.cases) for f in wrong(dataset)] == [("dataset.json", 0), ("labels", 1)]


def test_processes_share_the_memory(dataset, monkeypatch):
    asked = []
    monkeypatch.setattr(
        check.voxels, "look_at_all", lambda tasks, processes, show: asked.append(processes) or []
    )
    voxel_bytes = 6 * 5 * 4 * (2 * check.READ_BYTES + check.LABEL_BYTES)
    for cases, expected in ((0.5, 1), (3, 3), (20, 8)):
        free = int(2 * cases * voxel_bytes)
        monkeypatch.setattr(check, "free_bytes", lambda free=free: free)
        found(dataset, processes=8)
        assert asked[-1] == expected


def test_headers_alone_read_no_voxels(dataset):
    change("imagesTr/b_0001.nii.gz", values=nan())(dataset)
    assert wrong(dataset, with_voxels=False) == []


def test_several_processes_say_the_same(dataset, monkeypatch):
    with_value(7)(dataset)
    alone = wrong(dataset)
    monkeypatch.setattr("dinomed3d.dataset.voxels.SMALL_BYTES", 1)
    seen = []
    monkeypatch.setattr("dinomed3d.dataset.voxels.ProcessPoolExecutor", Threads)
    assert wrong(dataset, processes=2, progress=lambda *state: seen.append(state)) == alone
    assert sorted(done for _, done, total in seen if total == 3) == [1, 2, 3]


def Threads(processes, mp_context):
    """A pool of threads in place of one of processes, which take seconds to start."""
    from concurrent.futures import ThreadPoolExecutor

    assert processes == 2
    return ThreadPoolExecutor(1)


def test_memory_and_disk_by_arithmetic(dataset, monkeypatch):
    image(dataset / "imagesTr/b_0000.nii.gz", noise(1), spacing=(4, 4, 8))
    heads = {"b": read_header(dataset / "imagesTr/b_0000.nii.gz")}
    after = 6 * 4 * 5 * 4 * 4 * 4  # voxels at 1 x 1 x 2 mm
    need = 4 * 2 * (120 + after) + 24 * after
    asked = {"channels": 2, "preprocessed": dataset, "spacing_mm": (1, 1, 2)}
    for free, state in ((need - 1, "error"), (need, "note"), (4 * need, "ok")):
        monkeypatch.setattr(resources, "free_bytes", lambda free=free: free)
        memory, disk = resources.check_resources(heads, **asked)
        assert (memory.state, memory.topic) == (state, "memory")
    assert "24 x 20 x 16 at 1 x 1 x 2 mm" in memory.says and "-np" not in memory.fix
    for free, state in ((after * 9 - 1, "error"), (after * 9, "ok")):
        usage = shutil._ntuple_diskusage(0, 0, free)
        monkeypatch.setattr(resources.shutil, "disk_usage", lambda _, usage=usage: usage)
        _, disk = resources.check_resources(heads, **asked)
        assert (disk.state, disk.topic) == (state, "disk")


def test_the_usual_spacing_is_that_of_nnunets_rule():
    thin = np.array([[1.0, 1, 1], [1, 2, 1.2], [1, 1, 3]])
    assert resources.usual_spacing(thin).tolist() == [1, 1, 1.2]
    thick = np.array([[1.0, 1, n] for n in range(4, 15)])
    assert resources.usual_spacing(thick).tolist() == [1, 1, 5]  # 10th percentile, not the median


def plan(folder, cases, **files):
    home = folder.parents[1] / "pre" / folder.name
    home.mkdir(exist_ok=True)
    for name, content in files.items():
        (home / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (home / "data").mkdir(exist_ok=True)
    for case in cases:
        (home / "data" / f"{case}.pkl").touch()
    return home


def test_plans_splits_and_fingerprint(dataset, monkeypatch):
    configurations = {
        "3d_fullres": {"data_identifier": "data", "spacing": [2, 1, 1]},
        "2d": {"data_identifier": "other"},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres"},
    }
    mine = {"configurations": configurations, "transpose_backward": [0, 1, 2]}

    def about_plans(cases, **files):
        plan(dataset, cases, **files)
        found = [f for f in wrong(dataset, with_voxels=False) if f.topic == "plans"]
        return [(f.state, re.sub(r" \(.*", "", f.says)) for f in found], found

    monkeypatch.setattr("dinomed3d.dataset.plans.check_preprocessed", lambda *_: None)
    said, findings = about_plans("", MyPlans=mine)
    assert [state for state, _ in said] == ["error"] and "training would end at once" in said[0][1]
    assert findings[0].fix.startswith(
        "nnUNetv2_preprocess -d 7 -plans_name MyPlans -c 3d_fullres 2d"
    )
    said, _ = about_plans("ab")
    assert ("error", "MyPlans 3d_fullres: 2 of 3 cases are preprocessed") in said
    said, _ = about_plans("abc")
    assert said == [("note", "MyPlans: 2d not preprocessed")]
    said, _ = about_plans("", dataset_fingerprint={"spacings": [[1, 1, 1]] * 2})
    assert said[0] == ("error", "the fingerprint is of 2 cases, and there are 3")
    folds = [{"train": ["a", "b"], "val": ["b", "x"]}]
    said, _ = about_plans("", splits_final=folds, dataset_fingerprint={})
    assert [s for s in said if s[1].startswith("splits")] == [
        ("error", "splits_final.json names cases that are not in imagesTr: 1"),
        ("error", "splits_final.json has cases in training and validation of one fold: 1"),
        ("note", "splits_final.json leaves cases out: 1"),
    ]


def test_colours_of_one_file_are_channels(dataset):
    from PIL import Image

    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        shutil.rmtree(dataset / folder)
        (dataset / folder).mkdir()
    for number, case in enumerate("abc"):
        picture = np.random.default_rng(number).integers(0, 255, (8, 9, 3)).astype(np.uint8)
        Image.fromarray(picture).save(dataset / f"imagesTr/{case}_0000.png")
        Image.fromarray(picture[..., 0] // 100).save(dataset / f"labelsTr/{case}.png")
    describe(dataset, channel_names={"0": "R", "1": "G", "2": "B"}, file_ending=".png")
    assert wrong(dataset) == []
    shutil.copy(dataset / "imagesTr/a_0000.png", dataset / "imagesTr/b_0000.png")
    assert [(f.topic, f.state) for f in wrong(dataset)] == [("duplicates", "note")]


@pytest.mark.parametrize(
    "listed",
    [
        "AMOS22",
        ["a"],
        {"a": "b"},
        {"a": {"images": "x.nii.gz", "label": "y.nii.gz"}},
        {"a": {"images": ["x.nii.gz"], "label": 3}},
        {"a": {"images": ["x.nii.gz"]}},
    ],
)
def test_an_entry_dataset_that_lists_no_cases_is_refused(dataset, listed, capsys):
    describe(dataset, dataset=listed)
    assert main(["doctor", "-d", str(dataset)]) == 2
    assert '"dataset" must map the name of each case' in capsys.readouterr().err


def test_cases_listed_in_dataset_json(dataset):
    listed = {
        case: {
            "images": [f"imagesTr/{case}_000{channel}.nii.gz" for channel in range(2)],
            "label": f"labelsTr/{case}.nii.gz",
        }
        for case in "abc"
    }
    describe(dataset, dataset=listed)
    assert wrong(dataset) == []
    describe(dataset, dataset=listed | {"c": listed["c"] | {"label": "labelsTr/q.nii.gz"}})
    assert "labelsTr/q.nii.gz" in wrong(dataset)[0].says


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "dataset.json").unlink(), "dataset.json"),
        (lambda folder: (folder / "dataset.json").write_text("{"), "no valid JSON"),
        (lambda folder: shutil.rmtree(folder / "imagesTr"), "imagesTr has no files"),
        (lambda folder: describe(folder, file_ending=".nrrd"), "6 files, such as a_0000.nii.gz"),
        (
            lambda folder: (folder / "dataset.json").write_text(
                json.dumps(DESCRIPTION), encoding="utf-8-sig"
            ),
            "BOM",  # nnU-Net does not read it either
        ),
    ],
)
def test_what_is_no_dataset_is_refused(dataset, spoil, message, capsys):
    spoil(dataset)
    assert main(["doctor", "-d", str(dataset)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("dinomed3d doctor: ") and message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [(["--headers-only"], "-d"), (["-d", "7", "--processes", "0"], "--processes")],
)
def test_options_that_mean_nothing_are_refused(dataset, words, names, capsys):
    assert main(["doctor", *words]) == 2
    assert names in capsys.readouterr().err


def test_the_command_names_a_dataset_by_number_name_or_folder(dataset, monkeypatch, capsys):
    for name in ("7", "Dataset007_Tiny", str(dataset)):
        assert dataset_folder(name) == dataset
    for absent in ("8", "Dataset008_None", "x"):
        with pytest.raises(UserError, match=absent):
            dataset_folder(absent)
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "none")
    (dataset.parents[1] / "res").mkdir()
    with_value(7)(dataset)
    assert main(["doctor", "-d", "7", "--processes", "1"]) == 1
    out = capsys.readouterr().out
    lines, table = out.split("\n\n")
    assert any(line.startswith("[error] labels: 1 case ") for line in lines.splitlines())
    rows = dict(re.split(r"  +", row, maxsplit=1) for row in table.splitlines())
    assert rows["labels"] == "1 error" and rows["geometry"] == "ok" and "weights" in rows
    assert main(["doctor", "-d", "7", "--processes", "1", "--json"]) == 1
    found = read_json(capsys.readouterr().out)["findings"]
    said = [line for line in lines.splitlines() if line.startswith("[")]
    assert [f"[{one['state']}]".ljust(8) + one["topic"] for one in found] == [
        line.split(":")[0] for line in said
    ]
    assert [one["cases"] for one in found if one["topic"] == "labels"] == [1]
    with_value(0)(dataset)
    assert main(["doctor", "-d", "7"]) == 0


def test_a_process_that_dies_costs_its_case(dataset):
    class Dead:
        def result(self):
            raise RuntimeError("died")

    from dinomed3d.dataset.files import RawCase
    from dinomed3d.dataset.voxels import Task, _result

    task = Task(RawCase("a", (Path("a"),), None), object, (), 1)
    assert "--processes 1" in _result(Dead(), task).faults[0].detail
    assert list(look_at_all([], 4, lambda done: None)) == []
