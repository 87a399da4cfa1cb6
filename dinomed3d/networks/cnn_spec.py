"""Sizes of the CNN side, in the terms of nnU-Net's plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from dinomed3d.runtime.errors import UserError

Triple = tuple[int, int, int]

CLASSES = {"PlainConvUNet": False, "ResidualEncoderUNet": True}
"""nnU-Net's networks that the CNN side can be, and whether their encoder has residual blocks."""


@dataclass(frozen=True, kw_only=True)
class CnnSpec:
    """nnU-Net's CNN: encoder (the detail stream) and decoder, level by level, finest first."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels at each level; nnU-Net's `features_per_stage`."""
    strides: tuple[Triple, ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    """Stride (D, H, W) with which each level begins."""
    kernels: tuple[Triple, ...] = ((3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    """Kernel size (D, H, W) of each level: 1 across slices where they are far apart."""
    blocks: tuple[int, ...] = (1, 3, 4, 6)
    """Residual blocks, or convolutions of a plain encoder, at each level."""
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    """Convolutions of the decoder at each level but the coarsest; nnU-Net lists them coarsest first, this
    does too."""
    residual: bool = True
    """Whether the encoder has residual blocks (ResidualEncoderUNet) or plain ones (PlainConvUNet)."""

    def __post_init__(self) -> None:
        """Check every field."""
        levels = len(self.widths)
        _require(2 <= levels <= 12, f"'widths' must name 2 to 12 levels, got {levels}")
        for name in ("strides", "kernels", "blocks"):
            found = len(getattr(self, name))
            _require(
                found == levels, f"{name!r} must have one entry per level ({levels}), got {found}"
            )
        found = len(self.decoder_blocks)
        _require(
            found == levels - 1,
            f"'decoder_blocks' must have one entry per level but the coarsest ({levels - 1}), got {found}",
        )
        counts = (*self.widths, *self.blocks, *self.decoder_blocks)
        _require(min(counts) >= 1, "'widths', 'blocks' and 'decoder_blocks' must be positive")
        _require(
            all(len(s) == 3 and set(s) <= {1, 2} for s in self.strides)
            and self.strides[0] == (1, 1, 1),
            f"'strides' must be three of 1 and 2 per level, and 1 at the first, got {self.strides}",
        )
        _require(
            all(len(k) == 3 and set(k) <= {1, 3, 5, 7} for k in self.kernels),
            f"'kernels' must be three odd numbers up to 7 per level, got {self.kernels}",
        )

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.widths)

    @property
    def cells(self) -> tuple[Triple, ...]:
        """Size (D, H, W) of a cell of each level in voxels: the product of the strides down to it."""

        def times(a: Triple, b: Triple) -> Triple:
            return (a[0] * b[0], a[1] * b[1], a[2] * b[2])

        return tuple(accumulate(self.strides, times))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> CnnSpec:
        """Read the fields as JSON gives them, lists for tuples.

        Raises:
            UserError: an unknown or missing field, or a value of the wrong type or range.
        """
        names = cls.__dataclass_fields__.keys()
        _require(
            fields.keys() <= names,
            f"unknown fields {', '.join(sorted(fields.keys() - names))}; known are {', '.join(names)}",
        )
        values: dict[str, Any] = {}
        for name, value in fields.items():
            value = _tuples(value)
            flat = value if isinstance(value, tuple) else (value,)
            numbers = [n for v in flat for n in (v if isinstance(v, tuple) else (v,))]
            kind = bool if name == "residual" else int
            good = all(type(n) is kind for n in numbers) and isinstance(value, tuple) == (
                kind is int
            )
            nested = name in ("strides", "kernels")
            good &= all(isinstance(v, tuple) == nested for v in flat) or kind is bool
            _require(
                good, f"{name!r} must be of the type of {getattr(cls(), name)!r}, got {value!r}"
            )
            values[name] = value
        return cls(**values)

    @classmethod
    def from_nnunet(cls, class_name: str, arch_kwargs: Mapping[str, Any]) -> CnnSpec:
        """The network of one of nnU-Net's own plans.

        Args:
            class_name: dotted path of its class, one of CLASSES at the end.
            arch_kwargs: the plan's.

        Raises:
            UserError: another class, or sizes that this cannot build.
        """
        name = class_name.rpartition(".")[2]
        if name not in CLASSES:
            raise UserError(
                f"plan: its network must be one of {', '.join(CLASSES)}, which DINO-Med3D builds upon, got "
                f"{class_name}; plan with -pl DinoMed3DPlanner, or with one of nnU-Net's planners for these"
            )
        try:
            blocks = arch_kwargs["n_blocks_per_stage" if CLASSES[name] else "n_conv_per_stage"]
            return cls.from_fields(
                {
                    "widths": arch_kwargs["features_per_stage"],
                    "strides": [_triple(s) for s in arch_kwargs["strides"]],
                    "kernels": [_triple(k) for k in arch_kwargs["kernel_sizes"]],
                    "blocks": blocks,
                    "decoder_blocks": arch_kwargs["n_conv_per_stage_decoder"],
                    "residual": CLASSES[name],
                }
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"plan: 'arch_kwargs' of {name} lacks or garbles {error}; plan again"
            ) from error


def _triple(sizes: Sequence[int]) -> list[int]:
    """Sizes (D, H, W) of a 3D plan's layer, or of a 2D plan's with 1 across slices."""
    return [1] * (3 - len(sizes)) + list(sizes)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise UserError(f"plan: network field 'cnn': {text}")
