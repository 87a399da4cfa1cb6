"""A network as PyTorch's exported program, and such a program as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.inference.deployment.window_shapes import WindowShapes
from dinomed3d.networks.lora import merge_lora
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory

Run = Callable[[Tensor], Tensor]
"""Windows with their halo -> logits."""


class WindowFunction(nn.Module):
    """A network as a function of windows that all have the same halo."""

    def __init__(self, network: nn.Module, halo: int) -> None:
        """Wrap a network.

        Args:
            network: in eval mode.
            halo: planes before and after each window; 0 for networks that know of none.
        """
        super().__init__()
        self.network = network
        self.halo = halo
        self.eval()

    def forward(self, volume: Tensor) -> Tensor:
        """(B, C, halo + D + halo, H, W) -> (B, heads, D, H, W); without D of 2D networks."""
        logits: Tensor = (
            self.network(volume, halo=(self.halo, self.halo)) if self.halo else self.network(volume)
        )
        return logits


@torch.no_grad()
def trace(network: nn.Module, shapes: WindowShapes) -> Any:
    """The network as torch.export's program, in float32.

    Args:
        network: in eval mode, on the CPU; low-rank updates are merged into its weights.
        shapes: that the program takes.

    Returns:
        A torch.export.ExportedProgram that holds no paths of this machine.

    Raises:
        UserError: torch cannot export it.
    """
    merge_lora(network)
    example, free = shapes.traced()
    function = WindowFunction(network.float(), shapes.halo)
    with explained("torch.export"):
        program = torch.export.export(function, (example,), dynamic_shapes=free, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of source files
    return program


@contextmanager
def explained(step: str) -> Iterator[None]:
    """Turn whatever an exporter or a runtime raises, which is nearly anything, into one sentence.

    Args:
        step: what is done.

    Raises:
        UserError: it fails.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[-1] if lines else 'no reason'}"
        raise UserError(
            f"this network cannot be exported with torch {torch.__version__}: {step} fails ({reason:.300})"
        ) from error


def write_program(program: Any, path: Path) -> None:
    """Write a program as torch.export's `.pt2` file."""
    with explained("torch.export.save"):
        torch.export.save(program, path)


def read_program(path: Path) -> Run:
    """A program that `write_program` has written, as a function."""
    with explained("torch.export.load"):
        module = torch.export.load(path).module()

    @torch.no_grad()
    def run(windows: Tensor) -> Tensor:
        logits: Tensor = module(windows)
        return logits

    return run
