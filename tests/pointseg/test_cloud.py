"""Batches of clouds: rows of several clouds one after the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pointseg import Cloud, collate


def cloud(count: int, *, start: int = 0) -> Cloud:
    row = torch.arange(start, start + count)
    return Cloud(
        coord=row[:, None].expand(-1, 3).float(),
        grid_coord=row[:, None].expand(-1, 3),
        feat=row[:, None].float(),
        offset=torch.tensor([count]),
        segment=row,
    )


def test_joined_clouds_follow_each_other() -> None:
    both = collate([cloud(2), cloud(3, start=10)])
    assert both.feat[:, 0].tolist() == [0, 1, 10, 11, 12]
    assert both.offset.tolist() == [2, 5]
    assert both.counts.tolist() == [2, 3]
    assert both.batch.tolist() == [0, 0, 1, 1, 1]
    assert both.segment is not None and both.segment.tolist() == [0, 1, 10, 11, 12]
    assert both.image_coord is None


def test_batches_can_be_joined_again() -> None:
    both = collate([cloud(2), cloud(3)])
    three = collate([cloud(1), both, replace(both, image_offset=None)])
    assert three.offset.tolist() == [1, 3, 6, 8, 11]


def test_image_offsets_are_shifted_as_offsets_are() -> None:
    one = replace(cloud(5), image_offset=torch.tensor([2, 5]))
    both = collate([one, one])
    assert both.offset.tolist() == [5, 10]
    assert both.image_offset is not None and both.image_offset.tolist() == [2, 5, 7, 10]


def test_an_empty_cloud_in_a_batch_has_no_rows() -> None:
    both = collate([cloud(0), cloud(2)])
    assert both.batch.tolist() == [1, 1]


def test_joining_one_cloud_changes_nothing() -> None:
    one = cloud(3)
    joined = collate([one])
    assert torch.equal(joined.feat, one.feat) and torch.equal(joined.offset, one.offset)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: collate([]), "'clouds'"),
        (lambda: collate([cloud(2), replace(cloud(2), segment=None)]), "'segment'"),
        (lambda: replace(cloud(3), feat=torch.zeros(2, 1)), "'feat'"),
        (lambda: replace(cloud(3), offset=torch.tensor(3)), "'offset'"),
        (lambda: collate([torch.zeros(3, 6)]), "pointseg.Cloud.*got Tensor"),
        (lambda: replace(cloud(3), image_maps=torch.zeros(2, 2, 3, 4, 5)), "'image_maps'"),
    ],
)
def test_what_is_refused(call, named) -> None:
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize("name", ["offset", "image_offset"])
@pytest.mark.parametrize("ends", [[2], [4], [2, 1], [2, 1, 3], [-1, 3], [[1, 3]]])
def test_ends_that_are_no_cumulative_counts_are_refused(name, ends) -> None:
    with pytest.raises(ValueError, match=f"'{name}' must be "):
        replace(cloud(3), **{name: torch.tensor(ends)})
    assert len(replace(cloud(3), **{name: torch.tensor([0, 2, 2, 3])})) == 3


def test_ends_are_read_from_memory_alone(monkeypatch) -> None:
    """Not on a device, for which one would wait, nor where there are no values yet."""
    one = cloud(3).to("meta")
    assert replace(one, offset=torch.empty(2, device="meta")).offset.is_meta
    with FakeTensorMode():
        assert len(replace(cloud(3), offset=torch.tensor([1, 2]))) == 3
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert len(replace(cloud(3), offset=torch.tensor([1, 2]))) == 3


def test_copies_to_memory_are_complete_when_they_are_looked_at(monkeypatch) -> None:
    seen = []
    move = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda t, device, **how: seen.append(how) or move(t, device, **how)
    )
    cloud(3).to("meta")
    cloud(3).to(torch.device("cpu"))
    assert [how["non_blocking"] for how in seen] == [True] * 5 + [False] * 5


def test_images_of_each_sample_are_joined_and_counted():
    one = replace(cloud(3), images=torch.zeros(1, 2, 3, 4, 5, dtype=torch.uint8))
    two = replace(cloud(2), images=torch.ones(1, 2, 3, 4, 5, dtype=torch.uint8))
    made = collate([one, two])
    assert made.images is not None and made.images[:, 0, 0, 0, 0].tolist() == [0, 1]
