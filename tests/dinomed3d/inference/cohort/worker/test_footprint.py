"""Memory of the process, as measured."""

import time

import numpy as np

from dinomed3d.inference.cohort.worker.footprint import GIB, limit_bytes, measure, peak_resident


def test_measure_sees_what_was_taken_for_a_moment():
    def work():
        block = np.ones(300 * 2**20, np.uint8)
        time.sleep(0.5)  # on a busy machine the watching thread may wait long for its turn
        return block[0]

    footprint = measure(work)
    assert 200 * 2**20 < footprint.window < 450 * 2**20
    with peak_resident() as peak_gib:
        work()
    assert peak_gib() * GIB > footprint.base + 200 * 2**20


def test_without_a_limit_most_of_what_is_free():
    assert limit_bytes(2) == 2 * GIB
    assert 0 < limit_bytes(None) < 2**50
