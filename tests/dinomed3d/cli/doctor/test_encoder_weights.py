"""What doctor says of the encoder and its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from dinomed3d.cli.doctor.encoder_weights import _unknown_variables, encoder_weights


@pytest.mark.parametrize(
    ("setting", "state", "says"),
    [
        ("none", "note", "random numbers"),
        ("absent.pth", "error", "no such file"),
        ("cut.pth", "error", "truncated"),
        ("cut.safetensors", "error", "cannot be read"),
        ("good.safetensors", "ok", "1 tensors"),
    ],
)
def test_doctor_looks_at_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, state: str, says: str
) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    monkeypatch.chdir(tmp_path)
    save_file({"norm.weight": np.ones(4, np.float32)}, "good.safetensors")
    Path("cut.safetensors").write_bytes(Path("good.safetensors").read_bytes()[:30])
    Path("cut.pth").write_bytes(b"PK\x03\x04 and no more")
    monkeypatch.setenv("DINOMED3D_WEIGHTS", setting)
    monkeypatch.delenv("DINOMED3D_ENCODER", raising=False)
    *_, weights = encoder_weights(unset="note")
    assert (weights.state, weights.topic) == (state, "weights")
    assert says in weights.says


def test_doctor_knows_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("DINOMED3D_WEIGHTS", "DINOMED3D_ENCODER"):
        monkeypatch.delenv(name, raising=False)
    *_, absent = encoder_weights(unset="note")
    assert absent.state == "note" and "training only" in absent.says
    assert list(encoder_weights(unset="error"))[-1].state == "error"
    with monkeypatch.context() as context:
        context.setenv("DINOMED3D_WEIGHTS", "hub")  # asked for, and not there
        assert list(encoder_weights(unset="note"))[-1].state == "error"
    assert absent.says.startswith("hub: timm/vit_small_patch16_dinov3")
    assert "DINOMED3D_WEIGHTS=FILE" in absent.fix
    assert "DINOMED3D_ENCODER=vit_small_patch14_dinov2" in absent.fix  # needs no licence

    repository = absent.says.split("hub: ")[1].split(",")[0]
    cache = tmp_path / f"models--{repository.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "snapshots" / "abc" / "model.safetensors").write_bytes(b"weights")
    *_, present = encoder_weights(unset="error")
    assert present.text() == f"[ok]    weights: hub: {repository}, in the cache"


def test_doctor_refuses_an_unknown_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINOMED3D_TESTS_NEED_SHARED", raising=False)  # of the tests themselves
    monkeypatch.setenv("DINOMED3D_ENCODER", "vit_enormous")
    (finding,) = encoder_weights(unset="note")
    assert finding.state == "error"
    assert "vit_enormous" in finding.says
    assert "vit_small_patch16_dinov3" in finding.fix


def test_a_variable_that_nothing_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINOMED3D_TESTS_NEED_SHARED", raising=False)  # of the tests themselves
    monkeypatch.setenv("DINOMED3D_WEIGTHS", "none")
    (finding,) = _unknown_variables()
    assert finding.state == "error" and "did you mean DINOMED3D_WEIGHTS?" in finding.says
