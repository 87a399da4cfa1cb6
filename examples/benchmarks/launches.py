"""What a forward pass of the point networks asks of a GPU, counted on a CPU: launches, waits and bytes.

The networks take the ways that they take on CUDA (`pointseg.ops.hardware.pieces.decided_for`) on tensors of the CPU,
and every operation that reaches torch's dispatcher is looked at:

- a launch is an operation that is neither a view nor an allocation. Some of them are several kernels (a sort, a
  convolution of cuDNN), so the device's own count is higher;
- a wait is one whose result the host needs before it goes on: `item`, `tolist`, a boolean index, `nonzero`,
  `unique`, `bincount`, `repeat_interleave` without its output size, and blocking copies between host and device;
- bytes are what launches read and write, each tensor once; of what is read through an index, as much as comes out.

The second pass is counted, so that tables that are kept for good are there. Nothing here is a time.

    python examples/benchmarks/launches.py

`--tiny` counts small networks on a few points; `--places 10` says where most waits and launches are.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sparse_convolution import CHANNELS, cloud_of
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pointseg.backbones import build_backbone
from pointseg.backbones.interface.features import Backbone
from pointseg.cloud import Cloud
from pointseg.ops.hardware.pieces import decided_for

NETWORKS = ("ptv3", "minkunet", "pointnext", "litept", "sonata")
SMALL: dict[str, dict[str, Any]] = {
    "ptv3": {
        "enc_depths": (1, 1), "enc_channels": (16, 32), "enc_num_head": (2, 4), "stride": (2,),
        "enc_patch_size": (64, 64), "dec_depths": (1,), "dec_channels": (16,), "dec_num_head": (2,),
        "dec_patch_size": (64,),
    },
    "minkunet": {"channels": (8,) * 4, "layers": (1,) * 4, "base_channels": 8},
    "pointnext": {"width": 8, "blocks": (1, 1), "strides": (4, 4)},
    "litept": {
        "enc_depths": (1, 1), "enc_channels": (12, 24), "enc_num_head": (2, 4), "stride": (2,),
        "enc_patch_size": (64, 64), "enc_conv": (True, False), "enc_attn": (False, True),
        "enc_rope_freq": (100.0, 100.0), "dec_depths": (0,), "dec_channels": (12,), "dec_num_head": (2,),
        "dec_patch_size": (64,), "dec_conv": (False,), "dec_attn": (False,), "dec_rope_freq": (100.0,),
    },
    "sonata": {
        "enc_depths": (1, 1), "enc_channels": (16, 32), "enc_num_head": (2, 4), "stride": (2,),
        "enc_patch_size": (64, 64),
    },
}  # fmt: skip
"""Settings of small networks, for ``--tiny`` and tests."""

FREE = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh",
}  # fmt: skip
"""Operations that launch nothing, in addition to views."""
WAITS = {
    "_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "equal",
}  # fmt: skip
GATHERS = {"index_select", "index", "gather", "embedding"}
COPIES = {"tolist", "cpu", "numpy", "new_tensor"}


@dataclass
class Counts:
    """What has been counted."""

    launches: int = 0
    waits: int = 0
    bytes: int = 0
    by_wait: collections.Counter[str] = field(default_factory=collections.Counter)
    """Waits by the name of the operation."""
    by_place: collections.Counter[str] = field(default_factory=collections.Counter)
    """Waits by file and line of ours."""
    launched: collections.Counter[str] = field(default_factory=collections.Counter)
    """Launches by file and line of ours."""

    def wait(self, name: str) -> None:
        """Count one."""
        self.waits += 1
        self.by_wait[name] += 1
        self.by_place[f"{_place()} {name}"] += 1


class _Operations(TorchDispatchMode):
    """Looks at what reaches the dispatcher."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in WAITS or _reads_mask(name, args) or _counts_rows(name, kwargs):
            self.counts.wait(name)
        if name not in FREE and name != "_local_scalar_dense" and not _is_view(func):
            self.counts.launches += 1
            self.counts.launched[f"{_place()} {name}"] += 1
            self.counts.bytes += _moved(name, args, out)
        return out


class _HostCopies(TorchFunctionMode):
    """Looks at copies between host and device, which on a CPU alone do not reach the dispatcher."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        made = name in ("tensor", "as_tensor") and kwargs.get("device") is not None
        moved = name == "to" and _names_device(args[1:], kwargs) and not kwargs.get("non_blocking")
        if name in COPIES or made or moved:
            self.counts.wait(name)
        return func(*args, **kwargs)


def _names_device(args: Any, kwargs: dict[str, Any]) -> bool:
    return "device" in kwargs or any(isinstance(value, torch.device | str) for value in args)


def _reads_mask(name: str, args: Any) -> bool:
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])


def _counts_rows(name: str, kwargs: dict[str, Any] | None) -> bool:
    return name == "repeat_interleave" and (kwargs or {}).get("output_size") is None


def _is_view(func: Any) -> bool:
    results = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in results)


def _moved(name: str, args: Any, out: Any) -> int:
    def size(values: Any) -> int:
        return sum(v.nbytes for v in tree_leaves(values) if isinstance(v, Tensor))

    return 2 * size(out) + size(args[1:]) if name in GATHERS else size(args) + size(out)


def _place() -> str:
    """The innermost line of the package that runs, without its operators' callers."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "pointseg" in path.parts:
            return f"{path.parent.name}/{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"


def counted(run: Callable[[], object]) -> Counts:
    """Call ``run`` and count what it asks of the device."""
    counts = Counts()
    with decided_for("cuda"), _Operations(counts), _HostCopies(counts):
        run()
    return counts


def build(name: str, *, small: bool) -> Backbone:
    """A network with random weights, for prediction."""
    torch.manual_seed(0)
    settings = SMALL[name] if small else {}
    return build_backbone(name, in_channels=CHANNELS, **settings).eval()


def count_network(network: Backbone, cloud: Cloud, *, half: bool = False) -> Counts:
    """Of a forward pass, the second; ``half``: under autocast to bfloat16."""
    counts = Counts()
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            counts = counted(lambda: network(cloud).feat)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--half", action="store_true", help="under autocast to bfloat16")
    parser.add_argument("--places", type=int, default=0, help="so many places with most waits")
    parser.add_argument("--tiny", action="store_true", help="small networks on 300 points")
    args = parser.parse_args()
    cloud = cloud_of(300 if args.tiny else args.points)
    print("| | points | launches | waits | of these | GB |\n| --- | --- | --- | --- | --- | --- |")
    for name in args.networks:
        counts = count_network(build(name, small=args.tiny), cloud, half=args.half)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.by_wait.most_common())
        print(
            f"| {name} | {len(cloud)} | {counts.launches} | {counts.waits} | {kinds} "
            f"| {counts.bytes / 1e9:.1f} |",
            flush=True,
        )
        for table in (counts.by_place, counts.launched) if args.places else ():
            for place, count in table.most_common(args.places):
                print(f"{count:8} {place}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
