"""Number formats that a device computes."""

import pytest
import torch

import dinomed3d.runtime.hardware.device as module
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import check_precision


@pytest.mark.parametrize(
    ("name", "kind", "native", "instead"),
    [
        ("float32", "cpu", False, None),
        ("bfloat16", "cpu", True, None),
        ("bfloat16", "cpu", False, "use float32"),
        ("float16", "cpu", True, "use float32 or bfloat16"),
        ("float16", "cpu", False, "use float32"),
        ("float16", "cpu:0", False, "use float32"),
        ("float16", "cuda", False, None),
        ("bfloat16", "cuda", False, None),
    ],
)
def test_formats_without_instructions_are_refused_on_cpus(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, native: bool, instead: str | None
) -> None:
    monkeypatch.setattr(module, "has_native_bfloat16", lambda kind: native)
    if instead is None:
        check_precision(name, kind)
        return
    with pytest.raises(UserError) as refused:
        check_precision(name, kind, "--precision")
    assert str(refused.value).startswith(f"--precision {name}: this CPU has no instructions")
    assert str(refused.value).endswith(instead)


def test_where_torch_does_not_tell_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    check_precision("bfloat16", "cpu")
