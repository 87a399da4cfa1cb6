"""Torch's threads stand back, and are there again, whoever else is doing the same."""

from __future__ import annotations

import threading

import pytest
import torch

from dinomed3d.runtime.hardware.threads import single_threaded


@pytest.fixture(autouse=True)
def three_threads():
    """As many for every test here."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_one_thread_within_and_as_many_as_before_afterwards():
    with pytest.raises(KeyboardInterrupt), single_threaded() as others:
        assert (others, torch.get_num_threads()) == (3, 1)
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3


def test_one_that_begins_while_another_is_within_and_ends_after_it_leaves_no_single_thread():
    first_is_over, found = threading.Event(), []

    def second():
        with single_threaded() as others:
            found.append((others, torch.get_num_threads()))
            within.set()
            assert first_is_over.wait(20)
        found.append(torch.get_num_threads())

    within = threading.Event()
    thread = threading.Thread(
        target=second
    )  # uses torch for the first time while the other is within
    with single_threaded():
        thread.start()
        assert within.wait(20)
    first_is_over.set()
    thread.join()
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [(3, 1), 3, 3] and torch.get_num_threads() == 3
