"""Which scenes a step sees."""

from __future__ import annotations

import pytest

from pointseg.training.step.schedule import Batches, Schedule


def scenes_of(schedule: Schedule, steps: range) -> list[int]:
    return [
        scene
        for step in steps
        for part in range(schedule.accumulate)
        for device in range(schedule.devices)
        for _, scene in schedule.items(step, device, part)
    ]


def test_every_scene_once_per_epoch_though_no_epoch_ends_with_a_batch() -> None:
    schedule = Schedule(scenes=5, batch_size=3, seed=0)
    seen = scenes_of(schedule, range(5))  # three epochs
    assert [sorted(seen[k : k + 5]) for k in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert seen[:5] != seen[5:10] or seen[5:10] != seen[10:15]


def test_numbers_count_on() -> None:
    schedule = Schedule(scenes=5, batch_size=3, seed=0)
    assert [n for n, _ in schedule.items(2, 0, 0)] == [6, 7, 8]


def test_devices_and_parts_share_a_step() -> None:
    whole = Schedule(scenes=7, batch_size=4, seed=3)
    shared = Schedule(scenes=7, batch_size=4, seed=3, devices=2, accumulate=2)
    assert scenes_of(whole, range(6)) == scenes_of(shared, range(6))
    assert len(shared.items(0, 1, 1)) == 1


def test_seeds_differ() -> None:
    one, two = (Schedule(scenes=50, batch_size=10, seed=seed) for seed in (0, 1))
    assert scenes_of(one, range(5)) != scenes_of(two, range(5))


def test_steps_cover_the_epochs() -> None:
    assert Schedule(scenes=5, batch_size=3, seed=0).steps(3) == 5
    assert Schedule(scenes=5, batch_size=3, seed=0).steps(2) == 4  # the last one goes on
    assert Schedule(scenes=1201, batch_size=12, seed=0).steps(800) == 80_067


def test_a_run_taken_up_later_sees_what_it_would_have_seen() -> None:
    schedule = Schedule(scenes=5, batch_size=4, seed=0, accumulate=2)
    whole = list(Batches(schedule, start=0, stop=6))
    rest = list(Batches(schedule, start=4, stop=6))
    assert whole[8:] == rest and len(whole) == len(Batches(schedule, start=0, stop=6))


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="batch_size=4: .* 3 x 1"):
        Schedule(scenes=5, batch_size=4, seed=0, devices=3)


def test_no_scenes() -> None:
    with pytest.raises(ValueError, match="'scenes' must be >= 1"):
        Schedule(scenes=0, batch_size=4, seed=0)
