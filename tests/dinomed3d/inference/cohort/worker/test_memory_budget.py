"""Who may work at the same time."""

import threading
import time

from dinomed3d.inference.cohort.worker.memory_budget import MemoryBudget


def test_budget_lets_in_what_fits_and_one_alone_always():
    budget = MemoryBudget(10)
    budget.acquire(99)
    waiter = threading.Thread(target=budget.acquire, args=(5,))
    waiter.start()
    time.sleep(0.05)
    assert waiter.is_alive() and budget.used == 99
    budget.release(99)
    waiter.join(5)
    budget.acquire(5)
    assert budget.used == 10
    late = []

    def wait():
        try:
            budget.acquire(1)
        except InterruptedError:
            late.append("closed")

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.05)
    budget.close()
    waiter.join(5)
    assert late == ["closed"]
