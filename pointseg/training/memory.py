"""How many voxels the main memory has room for: systems end programs that ask for more, unasked and unheard."""

from __future__ import annotations

from dinomed3d.runtime.memory import free_bytes

BYTES_PER_VOXEL = 8000
"""What full-size backbones take while they predict in float32, and a little more (PTv3 7000, MinkUNet34C 5000)."""
SHARE = 0.7
"""Of the free memory that a network may take."""
TRAINING = {"ptv3": (66_000, 46.2e6), "minkunet": (18_000, 39.2e6), "pointnext": (75_000, 41.6e6)}
"""Bytes that a voxel takes in training, and the parameters, of full-size backbones with three channels.

Measured on a CPU in float32: the peak over two steps with 24,000 voxels of generated rooms. Small sizes took
22,000, 7,000 and 19,000 bytes.
"""
BYTES_PER_PARAMETER = 12
"""Gradient and two moments of AdamW; the weights are there already."""


def max_voxels() -> int:
    """Voxels that can go through a network on the CPU at once, with the memory that is free now."""
    return int(free_bytes() * SHARE) // BYTES_PER_VOXEL


def training_bytes(backbone: str, voxels: int, parameters: int) -> int:
    """About what a training step takes, to within a factor of two: smaller networks by their parameters."""
    of_voxel, full = TRAINING[backbone]
    return int(of_voxel * (parameters / full) ** 0.4 * voxels) + BYTES_PER_PARAMETER * parameters


def insufficient_memory_warning(
    backbone: str, *, parameters: int, voxels: int, samples: int, parts: int, devices: int = 1
) -> str | None:
    """What to say before a first training step on the CPU that may not fit into the free memory.

    Only said, never refused: the estimate is rough, but systems end a program for lack of memory
    without a word, and then this is the last line.

    Args:
        backbone: its name.
        parameters: of the whole network.
        voxels: of the part of a batch that is to go through it.
        samples: in this part.
        parts: into which batches are cut now.
        devices: processes that share the memory.

    Returns:
        A line for the user; None where the memory seems to suffice.
    """
    free = free_bytes() // devices
    need = training_bytes(backbone, voxels, parameters)
    if need <= free:
        return None
    fitting = int(voxels * SHARE * free / need)
    cut = next((n for n in range(2, samples + 1) if samples % n == 0 and voxels <= n * fitting), 0)
    ways = [f"--parts {parts * cut}"] if cut else []
    if fitting >= samples:
        ways.append(f"--override max_points={fitting // samples}")
    advice = f"; {' or '.join(ways)} would" if ways else ""
    return (
        f"a training step with {voxels} voxels takes about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
        f"free: it may not fit{advice}, and so would a coarser grid or a smaller network (--size small)"
    )
