"""Estimate the memory of prediction and training steps: the OOM killer gives no message."""

from __future__ import annotations

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.memory import free_bytes

BYTES_PER_VOXEL = 8000
"""Memory of full-size backbones per voxel in float32 prediction, rounded up (PTv3 7000, MinkUNet34C 5000)."""
BYTES_PER_VOXEL_OF = {"sonata": 18_000, "utonia": 18_000}
"""Of those that take more: they join the features of all stages at each point (16,400 and 17,900 measured)."""
FREE_MEMORY_SHARE = 0.7
"""Share of the free memory that a network may take."""
TRAINING = {
    "ptv3": (66_000, 46.2e6), "minkunet": (18_000, 39.2e6), "pointnext": (75_000, 41.6e6),
    "sonata": (85_000, 108.5e6), "utonia": (92_000, 137.3e6), "litept": (17_000, 12.7e6),
}  # fmt: skip
"""Bytes that a voxel takes in training, and the parameters, of full-size backbones with three channels.

Measured on a CPU in float32: the peak over two steps with 24,000 voxels of generated rooms. Small sizes took
22,000, 7,000 and 19,000 bytes. Sonata and Utonia have no decoder there, and nine channels; LitePT has size S. These
three were measured on other rooms, where PTv3 took 33,000 (half of the above), and are doubled.
"""
BYTES_PER_PARAMETER = 12
"""Gradient and two moments of AdamW; the weights are there already."""


def max_voxels(backbone: str = "ptv3") -> int:
    """Voxels that fit into one forward pass of a backbone on the CPU with the memory that is free now."""
    of_voxel = BYTES_PER_VOXEL_OF.get(backbone, BYTES_PER_VOXEL)
    return int(free_bytes() * FREE_MEMORY_SHARE) // of_voxel


def training_bytes(backbone: str, voxels: int, parameters: int) -> int | None:
    """Memory of one training step, to within a factor of two; smaller networks scale with their parameters.

    None: the backbone has not been measured.
    """
    if backbone not in TRAINING:
        return None
    of_voxel, full = TRAINING[backbone]
    return int(of_voxel * (parameters / full) ** 0.4 * voxels) + BYTES_PER_PARAMETER * parameters


def insufficient_memory_warning(
    backbone: str, *, parameters: int, voxels: int, samples: int, accumulated: int, devices: int = 1
) -> str | None:
    """The warning before a first training step on the CPU that may not fit into the free memory.

    The estimate is rough, so training goes on; but if the system kills the program, this is its last line.

    Args:
        backbone: its name.
        parameters: number of trainable parameters.
        voxels: in the batch.
        samples: in the batch.
        accumulated: batches that one optimizer step accumulates now.
        devices: processes that share the memory.

    Returns:
        One line; None if the memory seems to suffice, or the backbone has not been measured.
    """
    free = free_bytes() // devices
    need = training_bytes(backbone, voxels, parameters)
    if need is None or need <= free:
        return None
    fitting = int(voxels * FREE_MEMORY_SHARE * free / need)
    cut = next((n for n in range(2, samples + 1) if samples % n == 0 and voxels <= n * fitting), 0)
    ways = [f"--accumulate-grad-batches {accumulated * cut}"] if cut else []
    if fitting >= samples:
        ways.append(f"--override max_points={fitting // samples}")
    ways.append("larger voxels or a smaller network (--model-size small)")
    return (
        f"a training step with {voxels} voxels needs about {need / 1e9:.1f} GB of memory, but only "
        f"{free / 1e9:.1f} GB are free; it may not fit: use {' or '.join(ways)}"
    )


def batch_out_of_memory(voxels: int, largest: int) -> UserError:
    """The error of a training batch that did not fit.

    Args:
        voxels: in the batch.
        largest: voxels of the largest batch that fitted before; 0 if none did.
    """
    known = f" (the largest that fitted had {largest})" if largest else ""
    goal = int(0.8 * largest) if largest else voxels // 2
    return UserError(
        f"out of memory with {voxels} voxels in one batch{known}: split it further "
        f"(--accumulate-grad-batches), take smaller crops (--override max_points={goal} limits each sample) "
        "or larger voxels (--override voxel_m=...)"
    )
