"""Pieces of work in threads of their own: order, settings put back, errors, forks."""

import os
import threading

import pytest
import torch

from pointseg.ops.hardware.threads import count_threads, for_each


@pytest.fixture
def two_threads():
    """As many, and one again afterwards, as all tests have."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    if count_threads() < 2:
        pytest.skip("torch's threads are not OpenMP's here")
    yield
    torch.set_num_threads(before)


def test_results_are_in_order(two_threads):
    assert for_each(lambda n: n * n, range(7)) == [0, 1, 4, 9, 16, 25, 36]
    assert for_each(lambda n: n, []) == []


def test_each_thread_works_alone_and_all_at_once(two_threads):
    together = threading.Barrier(2, timeout=20)  # passes only if both are there

    def work(number):
        together.wait()
        return torch.get_num_threads(), threading.get_ident()

    (first, here), (second, there) = for_each(work, range(2))
    assert first == second == 1
    assert len({here, there, threading.get_ident()}) == 3
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("count", [1, 5])
def test_no_gradients_are_recorded_and_modes_are_kept(two_threads, count):
    weight = torch.ones(2, requires_grad=True)
    assert not any(for_each(lambda n: (n * weight).requires_grad, range(count)))
    with torch.inference_mode():
        assert all(for_each(lambda n: (n * weight).is_inference(), range(count)))
    assert torch.is_grad_enabled()


def test_errors_are_raised_and_the_settings_put_back(two_threads):
    def work(number):
        if number == 3:
            raise RuntimeError("the third")
        return number

    with pytest.raises(RuntimeError, match="the third"):
        for_each(work, range(5))
    assert torch.get_num_threads() == 2
    assert for_each(work, range(3)) == [0, 1, 2]


def test_work_within_work(two_threads):
    assert for_each(lambda n: sum(for_each(lambda m: n * m, range(3))), range(3)) == [0, 3, 6]
    assert torch.get_num_threads() == 2


def test_one_thread_does_all_itself():
    assert torch.get_num_threads() == 1
    assert set(for_each(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork(two_threads):
    for_each(abs, range(4))  # the parent has its threads
    child = os.fork()
    if child == 0:
        os._exit(0 if for_each(abs, range(4)) == [0, 1, 2, 3] else 1)
    assert os.waitpid(child, 0)[1] == 0
