"""Items are made on another thread, one ahead, and nothing else changes."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from pointseg.evaluation.one_ahead import one_ahead


def test_the_next_item_is_begun_while_the_present_one_is_used():
    begun = [threading.Event() for _ in range(4)]
    makers = set()

    def items():
        for number, event in enumerate(begun):
            makers.add(threading.current_thread())
            event.set()
            yield number

    seen = []
    for item in one_ahead(items()):
        if item < 3:
            assert begun[item + 1].wait(10)  # though this one is not done
        if item < 2:
            assert not begun[item + 2].is_set()  # one ahead, not more
        seen.append(item)
    assert seen == [0, 1, 2, 3] and list(one_ahead([])) == []
    assert len(makers) == 1 and threading.current_thread() not in makers


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise ValueError("the second")

    found = one_ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="the second"):
        next(found)


def test_closed_it_makes_no_more():
    made = []

    def items():
        for number in range(5):
            made.append(number)
            yield number

    before = threading.active_count()
    with closing(one_ahead(items())) as found:
        assert next(found) == 0
    assert made[:1] == [0] and len(made) <= 2 and threading.active_count() == before
