"""Models by name, from a stand-in of the hub."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest

from dinomed3d.hub import ask
from dinomed3d.hub import local_model as module
from dinomed3d.hub.local_model import CLOUD, VOLUME, WEIGHTS, local_model
from dinomed3d.hub.name import HubName, check_repository, hub_name
from dinomed3d.runtime.errors import UserError
from tests.hub import TOKEN, hub  # noqa: F401

REPOSITORY = "us/spleen"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.zip", None),
        ("./hf:us/spleen", None),
        ("hf:us/spleen", HubName("us/spleen")),
        ("hf://us/spleen", HubName("us/spleen")),
        (Path("hf:us/spleen@v1.0/old/a.zip"), HubName("us/spleen", "v1.0", "old/a.zip")),
        ("hf:us/my_model-2@refs/pr/1/a.zip", HubName("us/my_model-2", "refs/pr/1", "a.zip")),
    ],
)
def test_names(text, expected):
    assert hub_name(text) == expected
    assert expected is None or hub_name(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "hf:spleen",
            "hf:",
            "hf:us/",
            "hf:/",
            "hf:us/a b",
            "hf:us/a@",
            "hf:us/a@..",
            "hf:us/a--b",
        ),
        *("hf:us/../x", "hf:us/a/../b.zip", "hf:us/a//b", "hf:datasets/us/a", "hf:us/a.git"),
        *("hf:us/" + "a" * 100, "https://huggingface.co/us/a", "hf:us/a/b\\c.zip"),
    ],
)
def test_names_that_are_none(text):
    with pytest.raises(UserError, match="model h"):
        hub_name(text)


def test_what_is_no_text_is_no_name():
    with pytest.raises(UserError, match="hf:owner/name.*NoneType"):
        hub_name(None)


@pytest.mark.parametrize("text", ["spleen", "us/a@v1", "us/a/b.zip", "", "https://hf.co/us/a"])
def test_repositories_to_write_to(text):
    assert check_repository("us/a", "--push") == check_repository("hf:us/a", "--push") == "us/a"
    with pytest.raises(UserError, match="--push"):
        check_repository(text, "--push")


def test_paths_ask_nobody(hub):  # noqa: F811
    assert local_model("model.zip", VOLUME) == Path("model.zip")
    assert hub.asked == []


def test_second_use_needs_no_hub(hub, caplog):  # noqa: F811
    commit = hub.add(REPOSITORY, {"model.zip": b"one"})
    path = local_model(f"hf:{REPOSITORY}", VOLUME)
    assert path.read_bytes() == b"one"
    assert commit in caplog.text
    assert "0.0 MiB" in caplog.text
    gets = [asked for asked in hub.asked if asked.startswith("GET")]
    assert local_model(f"hf:{REPOSITORY}", VOLUME) == path
    assert [asked for asked in hub.asked if asked.startswith("GET")] == gets
    hub.asked.clear()
    assert local_model(f"hf:{REPOSITORY}@{commit}", VOLUME) == path
    assert hub.asked == [], "a commit never changes"
    hub.stop()
    caplog.clear()
    assert local_model(f"hf:{REPOSITORY}", VOLUME) == path
    assert "cannot be reached" in caplog.text
    assert commit in caplog.text
    with pytest.raises(UserError, match="not in the cache"):
        local_model("hf:us/other", VOLUME)


def test_a_hub_that_never_answers_is_given_up(hub, monkeypatch, caplog):  # noqa: F811
    hub.add(REPOSITORY, {"model.zip": b"one"})
    path = local_model(f"hf:{REPOSITORY}", VOLUME)
    never = threading.Event()
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **o: never.wait())
    monkeypatch.setattr(ask, "PATIENCE_S", 0.01)
    monkeypatch.setattr(ask, "LONGEST_S", 0.02)
    try:
        assert local_model(f"hf:{REPOSITORY}", VOLUME) == path
        assert "waiting" in caplog.text and "HF_HUB_OFFLINE=1" in caplog.text
        with pytest.raises(UserError, match="no answer"):
            local_model("hf:us/other", VOLUME)
    finally:
        never.set()


def test_offline(hub, monkeypatch):  # noqa: F811
    hub.add(REPOSITORY, {"model.zip": b"one"})
    path = local_model(f"hf:{REPOSITORY}", VOLUME)
    hub.asked.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert local_model(f"hf:{REPOSITORY}", VOLUME) == path
    for other in ("hf:us/other", f"hf:{REPOSITORY}@v2"):
        with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
            local_model(other, VOLUME)
    assert hub.asked == []


def test_revisions(hub):  # noqa: F811
    first = hub.add(REPOSITORY, {"model.zip": b"one"})
    hub.repositories[REPOSITORY].branches["v1"] = first
    second = hub.add(REPOSITORY, {"model.zip": b"two", "old/more.zip": b"three"})
    for name, expected in {
        "": b"two",
        "@v1": b"one",
        f"@{first}": b"one",
        f"@{second}": b"two",
        "@main/old/more.zip": b"three",
    }.items():
        assert local_model(f"hf:{REPOSITORY}{name}", VOLUME).read_bytes() == expected
    third = hub.add(REPOSITORY, {"model.zip": b"three"})
    assert third in local_model(f"hf:{REPOSITORY}", VOLUME).parts


@pytest.mark.parametrize("offline", [False, True])
def test_changed_bytes(hub, monkeypatch, offline):  # noqa: F811
    hub.add(REPOSITORY, {"model.zip": b"one"})
    path = local_model(f"hf:{REPOSITORY}", VOLUME)
    path.resolve().write_bytes(b"two")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(UserError, match="checksum") as caught:
        local_model(f"hf:{REPOSITORY}", VOLUME)
    assert str(path.resolve()) in str(caught.value)
    path.resolve().unlink()  # as the message says
    if not offline:
        assert local_model(f"hf:{REPOSITORY}", VOLUME).read_bytes() == b"one"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"checksum": "0" * 64}, "checksum"), ({"commit": "0" * 40}, "changed on the hub meanwhile")],
)
def test_other_bytes_than_the_hub_names(hub, monkeypatch, changes, words):  # noqa: F811
    hub.add(REPOSITORY, {"model.zip": b"one"})
    real = module._ask
    monkeypatch.setattr(module, "_ask", lambda *given: replace(real(*given), **changes))
    with pytest.raises(UserError, match=words):
        local_model(f"hf:{REPOSITORY}", VOLUME)


def test_a_cache_without_links(hub, monkeypatch):  # noqa: F811
    """As on Windows: offline nobody knows the checksum, and the copy is used."""
    hub.add(REPOSITORY, {"model.zip": b"one"})
    path = local_model(f"hf:{REPOSITORY}", VOLUME)
    path.unlink()
    path.write_bytes(b"one")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert local_model(f"hf:{REPOSITORY}", VOLUME) == path


def test_half_a_download_leaves_nothing(hub, monkeypatch):  # noqa: F811
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.add(REPOSITORY, {"model.zip": b"0123456789"})
    hub.cut = 4
    with pytest.raises(UserError, match="not finished"):
        local_model(f"hf:{REPOSITORY}", VOLUME)
    hub.cut = None
    assert local_model(f"hf:{REPOSITORY}", VOLUME).read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (module.LARGEST + 1, "64.0 GiB"),
        (module.LARGEST, "HF_HOME"),
        (module.GIB - module.SPARE + 1, "HF_HOME"),
    ],
)
def test_sizes_before_downloading(hub, monkeypatch, size, words):  # noqa: F811
    usage = type("Usage", (), {"free": module.GIB})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    hub.add(REPOSITORY, {"model.zip": b"one"})
    hub.claimed_size = size
    with pytest.raises(UserError, match=words):
        local_model(f"hf:{REPOSITORY}", VOLUME)
    assert all(asked.startswith("HEAD") for asked in hub.asked)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("hf:us/splene", VOLUME, "no such repository"),
        ("hf:us/private", VOLUME, "hf auth login"),
        ("hf:us/gated", VOLUME, "is gated"),
        ("hf:us/spleen@v9", VOLUME, "no revision 'v9'"),
        ("hf:us/spleen/b.zip", VOLUME, "hf:us/spleen/model.zip"),
        ("hf:us/spleen/B.ZIP", VOLUME, "hf:us/spleen/model.zip"),
        ("hf:us/rooms", VOLUME, "pointseg-predict"),
        ("hf:us/spleen", CLOUD, "dinomed3d predict"),
        ("hf:us/rooms/model.pt", VOLUME, "pointseg-predict"),
        ("hf:us/text", VOLUME, "config.json"),
        ("hf:us/text/config.json", VOLUME, r"\.zip"),
        ("hf:us/stock", VOLUME, "hf download"),
    ],
)
def test_refusals(hub, name, kind, words):  # noqa: F811
    hub.add("us/spleen", {"model.zip": b"one"})
    hub.add("us/rooms", {"model.pt": b"one"})
    hub.add("us/text", {"config.json": b"{}"})
    hub.add("us/stock", {"T__P__c/plans.json": b"{}"})
    hub.add("us/private", {"model.zip": b"one"}, private=True)
    hub.add("us/gated", {"model.zip": b"one"}, gated=True)
    with pytest.raises(UserError, match=words) as caught:
        local_model(name, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (503, "answers with status 503"),
        (429, "answers with status 429"),
        (403, "refuses it with status 403"),
    ],
)
def test_answers_without_a_reason(hub, status, words):  # noqa: F811
    hub.add(REPOSITORY, {"model.zip": b"one"})
    hub.status = status
    with pytest.raises(UserError, match=words):
        local_model(f"hf:{REPOSITORY}", VOLUME)


def test_a_private_model_with_a_token(hub, monkeypatch):  # noqa: F811
    hub.add("us/private", {"model.zip": b"one"}, private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert local_model("hf:us/private", VOLUME).read_bytes() == b"one"


def test_small_files_carry_the_checksum_of_git(hub):  # noqa: F811
    hub.add("us/weights", {"a.safetensors": b"one"})
    path = local_model("hf:us/weights/a.safetensors", WEIGHTS)
    path.resolve().write_bytes(b"two")
    with pytest.raises(UserError, match="checksum"):
        local_model("hf:us/weights/a.safetensors", WEIGHTS)
