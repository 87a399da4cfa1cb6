"""What a training does with signals is undone when it ends."""

from __future__ import annotations

import signal

import pytest

from pointseg.training.run.graceful_stop import GracefulStop


def test_a_handler_that_was_not_set_from_python_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python says None of it, and would refuse to set None."""
    given: list[object] = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: given.append(handler))
    with GracefulStop() as stop:
        assert given and all(handler == stop._request for handler in given)
        given.clear()
    assert not given
