"""Which sizes of blocks are taken."""

import contextlib
import logging

import pytest
import torch


class Event:
    """Counts launches as milliseconds."""

    launched: list = []

    def __init__(self, enable_timing):
        self.at = 0.0

    def record(self):
        self.at = sum(Event.launched)

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return end.at - self.at


def test_fastest_candidate_is_kept(monkeypatch, caplog):
    """Found once for a key, said once; what does not fit a device is passed over, and only that."""
    blocks = pytest.importorskip("pointseg.ops.convolution.triton_blocks")
    device = torch.device("cuda", 0)
    slow, fast, large = (blocks.Blocks((size, 16), 4, 3) for size in (64, 32, 128))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(blocks, "_chosen", {})
    launched = []

    def launch(taken):
        if taken is large:
            raise blocks.OutOfResources(300_000, 100_000, "shared memory")
        launched.append(taken)
        Event.launched.append({slow: 3.0, fast: 1.0}[taken])

    with caplog.at_level(logging.WARNING):
        blocks.fastest(launch, ("a",), [large, slow, fast], device)
        assert launched[-1] is fast and set(launched) == {slow, fast}
        tried = len(launched)
        blocks.fastest(launch, ("a",), [slow], device)
        assert launched[tried:] == [fast]
        blocks.fastest(launch, ("b",), [slow], device)
        assert launched[-1] is slow
    assert len(caplog.records) == 1 and "compiling" in caplog.text
    with pytest.raises(blocks.OutOfResources):
        blocks.fastest(launch, ("c",), [large], device)
