"""The network as data: every size and choice that a plan records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dinomed3d.lifting import MODELS
from dinomed3d.lifting.dino import DEFAULT_ENCODER
from dinomed3d.runtime.errors import UserError

COMPONENTS = ("encoder", "lora", "adapters", "detail")
"""Components that an ablation can leave out; neck and gated fusion go with the encoder."""

INTER_SLICE = ("adapters", "attention")
"""Inter-slice modules: convolution over three slices, or attention along depth. The component
"adapters" stands for either."""

FORMER_NAMES = {"parts": "components", "prior_channels": "cascade_channels"}
"""Names of fields in earlier plans and checkpoints, and their names now."""

FINEST_TOKEN = 4
"""Smallest side of a token in voxels: finer tokens only enlarge slices further."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """DINO-Med3D's sizes. In-plane strides are powers of two; depth is never strided."""

    encoder: str = DEFAULT_ENCODER
    """Name of the 2D encoder, one of `dinomed3d.lifting.MODELS`."""
    encoder_overrides: Mapping[str, Any] = field(default_factory=dict)
    """timm's arguments for another size of the encoder: embed_dim, depth, num_heads, ..."""
    taps: tuple[int, ...] | None = None
    """Blocks whose output the neck reads, 0-based; None for four evenly spaced ones."""
    slices: int = 3
    """Slices per embedding (K, odd): the slice itself and (K - 1) / 2 neighbours on each side."""
    voxels_per_token: int = 8
    """Side of one token in voxels; slices are enlarged accordingly before the encoder."""
    lora_rank: int = 16
    """Rank of the low-rank updates (LoRA) of the frozen encoder."""
    adapter_width: int = 64
    """Channels of the 3D adapters' bottleneck."""
    detail_widths: tuple[int, ...] = (16, 64, 128)
    """Channels of the detail stream at in-plane strides 1, 2, 4, ..."""
    pyramid_width: int = 128
    """Channels of the neck's levels, and of the decoder at levels below the detail stream."""
    levels: int = 4
    """Number of resolutions, at in-plane strides 1, 2, ..., 2^(levels - 1)."""
    depth_kernels: tuple[int, ...] = (3, 3, 3, 3)
    """Kernel size across slices at each level: 1 where slices are far apart, else 3."""
    cascade_channels: int = 0
    """Number of last input channels that hold the previous configuration's segmentation (cascade).
    Only the detail stream reads them: the encoder was trained on images."""
    supervised_levels: int = 3
    """Largest number of levels with a segmentation head for deep supervision."""
    components: tuple[str, ...] = COMPONENTS
    """Components of the network, a subset of COMPONENTS."""
    tuned_blocks: int = 0
    """Number of last blocks, up to the last tap, with low-rank updates and inter-slice modules; those
    before stay as stage I leaves them. 0 for a third of them, rounded up."""
    inter_slice: str = "adapters"
    """What exchanges information between slices inside the tuned blocks, one of INTER_SLICE."""

    def __post_init__(self) -> None:
        """Check every field."""
        has, taps, token = set(self.components), self.taps, self.voxels_per_token
        _require(
            self.encoder in MODELS,
            f"'encoder' must be one of {', '.join(MODELS)}; got {self.encoder!r}",
        )
        _require(
            self.slices >= 1 and self.slices % 2 == 1,
            f"'slices' (K, DINOMED3D_SLICES) must be odd and at least 1, got {self.slices}",
        )
        _require(
            has <= set(COMPONENTS) and not has.isdisjoint({"encoder", "detail"}),
            f"'components' (DINOMED3D_COMPONENTS) must be of {', '.join(COMPONENTS)} and have encoder "
            f"or detail, got {', '.join(self.components) or 'none'}",
        )
        _require(
            "encoder" in has or has.isdisjoint({"lora", "adapters"}),
            "'components' must have encoder if it has lora or adapters",
        )
        _require(
            "detail" in has if self.cascade_channels else True,
            "'components' (DINOMED3D_COMPONENTS) must have detail, which reads the 'cascade_channels', got "
            f"{', '.join(self.components)}",
        )
        _require(2 <= self.levels <= 8, f"'levels' must be 2 to 8, got {self.levels}")
        _require(
            taps is None or (bool(taps) and taps[0] >= 0 and list(taps) == sorted(set(taps))),
            f"'taps' must be increasing block numbers from 0, or null, got {taps}",
        )
        _require(
            token >= 1 and math.log2(token).is_integer(),
            f"'voxels_per_token' (DINOMED3D_VOXELS_PER_TOKEN) must be a power of two, got {token}",
        )
        _require(
            len(self.depth_kernels) == self.levels >= len(self.detail_widths) >= 1,
            f"{self.levels} levels need as many 'depth_kernels' and at most as many 'detail_widths', got "
            f"{len(self.depth_kernels)} and {len(self.detail_widths)}",
        )
        _require(
            set(self.depth_kernels) <= {1, 3, 5, 7},
            f"'depth_kernels' must be odd and at most 7, got {self.depth_kernels}",
        )
        _require(
            1 <= self.supervised_levels <= self.levels,
            f"'supervised_levels' must be 1 to {self.levels}, got {self.supervised_levels}",
        )
        _require(
            min(self.detail_widths) >= 1,
            f"'detail_widths' must be positive, got {self.detail_widths}",
        )
        _require(
            self.inter_slice in INTER_SLICE,
            f"'inter_slice' (DINOMED3D_INTER_SLICE) must be one of {', '.join(INTER_SLICE)}, got "
            f"{self.inter_slice!r}",
        )
        _require(
            self.inter_slice != "attention" or self.adapter_width % 2 == 0,
            f"'adapter_width' must be even for attention along depth, got {self.adapter_width}",
        )
        least = {
            "tuned_blocks": 0,
            "lora_rank": 1,
            "adapter_width": 1,
            "pyramid_width": 1,
            "cascade_channels": 0,
        }
        for name, value in least.items():
            found = getattr(self, name)
            _require(found >= value, f"{name!r} must be at least {value}, got {found}")

    def check_patch(self, patch_size: Sequence[int]) -> None:
        """Refuse a patch size that this network cannot segment; other sizes are padded inside.

        Args:
            patch_size: (D, H, W) or (H, W), voxels.

        Raises:
            UserError: slices smaller than one token, though tokens could be finer; padding to more
                than four times the size; or a single voxel at the coarsest level, which has no norm.
        """
        depth, height, width = (1, *patch_size)[-3:]
        token, step = self.voxels_per_token, self.multiple
        if min(height, width) < token and token > FINEST_TOKEN:
            raise UserError(
                f"plan: the patch must be at least {token} x {token} voxels in plane, the size of a token, got "
                f"{list(patch_size)}; plan with a larger patch, or lower DINOMED3D_VOXELS_PER_TOKEN"
            )
        padded = (-(-height // step) * step) * (-(-width // step) * step)
        if min(height, width) >= 8 and padded > 4 * height * width:
            raise UserError(
                f"plan: {self.levels} levels and tokens of {token} voxels would pad the patch {list(patch_size)} to "
                f"{padded / (height * width):.0f} times its size; use fewer levels, smaller tokens or a larger patch"
            )
        if min(patch_size) < 1 or depth * -(-height // step) * -(-width // step) < 2:
            raise UserError(
                f"plan: the patch must leave more than one voxel at the coarsest of {self.levels} levels, where one "
                f"covers {step} x {step} in plane, got {list(patch_size)}; plan with a larger patch or a finer "
                "spacing"
            )

    @property
    def multiple(self) -> int:
        """In-plane sizes are padded inside to multiples of this, voxels."""
        return max(self.voxels_per_token, 2 ** (self.levels - 1))

    @property
    def decoder_levels(self) -> int:
        """Levels of the decoder: without an encoder those of the detail stream alone."""
        return self.levels if "encoder" in self.components else len(self.detail_widths)

    @property
    def decoder_skips(self) -> tuple[int, ...]:
        """Channels of each level's skip into the decoder, finest first; 0 for none."""
        gate = len(self.detail_widths) - 1
        skips = list(self.detail_widths) if "detail" in self.components else [0] * (gate + 1)
        if "encoder" in self.components:
            skips[gate] = skips[gate] or self.pyramid_width
            skips += [self.pyramid_width] * (self.levels - gate - 1)
        return tuple(skips)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of the decoder at each level, finest first."""
        below = [self.pyramid_width] * self.levels
        return tuple([*self.detail_widths, *below][: self.decoder_levels])

    @property
    def deep_supervision_heads(self) -> int:
        """Finest levels with a segmentation head; the coarsest level has no decoder step, so no head."""
        return min(self.supervised_levels, self.decoder_levels - 1)

    def tuned_of(self, run_blocks: int) -> int:
        """Number of last blocks that stage II tunes.

        Args:
            run_blocks: blocks up to the last tap, those that are run.

        Raises:
            UserError: `tuned_blocks` is more than that.
        """
        _require(
            self.tuned_blocks <= run_blocks,
            f"'tuned_blocks' (DINOMED3D_TUNED_BLOCKS) must be at most {run_blocks}, the blocks up to the last "
            f"tap, got {self.tuned_blocks}",
        )
        return self.tuned_blocks or -(-run_blocks // 3)

    def to_arch_kwargs(self) -> dict[str, Any]:
        """The fields as plain JSON values, for `architecture.arch_kwargs` of an nnU-Net plan."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_arch_kwargs(cls, kwargs: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of `to_arch_kwargs`; reads the plans and checkpoints of earlier versions, too.

        Raises:
            UserError: an unknown field (a plan of another version) or an invalid value.
        """
        kwargs = {FORMER_NAMES.get(name, name): value for name, value in kwargs.items()}
        unknown = kwargs.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise UserError(
                f"plan: unknown network fields {', '.join(sorted(unknown))}; the plan or checkpoint was written "
                "by another version of dinomed3d: install that version, or plan again"
            )
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()
        }
        for f in fields(cls):
            if f.name in values and not _fits(values[f.name], f.type):
                raise UserError(
                    f"plan: network field {f.name!r} must be {f.type}, got {kwargs[f.name]!r}; correct "
                    "the plan or plan again"
                )
        return cls(**values)


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise UserError(f"NetworkSpec: {text}")


def _fits(value: Any, declared: Any) -> bool:
    """Whether a value read from JSON has the declared type of a field (as text)."""
    if declared.endswith("| None") and value is None:
        return True
    if declared.startswith("tuple"):
        item = int if "int" in declared else str
        return isinstance(value, tuple) and all(type(v) is item for v in value)
    kinds = {"int": int, "str": str}
    return type(value) is kinds[declared] if declared in kinds else isinstance(value, Mapping)


def depth_kernels(
    spacing_mm: Sequence[float], levels: int, *, single_slice: bool
) -> tuple[int, ...]:
    """Kernel size across slices at each level.

    Args:
        spacing_mm: (D, H, W) or (H, W).
        levels: of the network.
        single_slice: whether patches have a single slice.

    Returns:
        1 at levels whose pixels are smaller than half the slice distance, else 3.
    """
    slice_distance, in_plane = spacing_mm[0], max(spacing_mm[-2:])
    return tuple(
        1 if single_slice or slice_distance > 2 * in_plane * 2**level else 3
        for level in range(levels)
    )


def spec_for_patch(patch_size: Sequence[int], spacing_mm: Sequence[float]) -> NetworkSpec:
    """A network for plans that were not made by our planner, sized by the patch alone.

    Args:
        patch_size: (D, H, W) or (H, W), voxels.
        spacing_mm: of the same axes.

    Returns:
        A token every 4 voxels in small slices, every 8 in medium, every 16 in large ones, so that a
        slice has some hundred tokens; levels down to about the size of a token; depth kernels as in
        `depth_kernels`.

    Raises:
        UserError: a side of the patch is not positive.
    """
    if min(patch_size) < 1:
        raise UserError(f"plan: the patch must have positive sides, got {list(patch_size)}")
    height, width = (max(8, side) for side in patch_size[-2:])  # padded inside
    token = FINEST_TOKEN if max(height, width) <= 64 else 8 if max(height, width) <= 256 else 16
    finest = max(2, min(math.log2(min(height, width) / 4), math.log2(2 * token)))
    levels = 1 + int(finest)
    single_slice = len(patch_size) == 2 or patch_size[0] == 1
    return NetworkSpec(
        voxels_per_token=token,
        levels=levels,
        depth_kernels=depth_kernels(spacing_mm, levels, single_slice=single_slice),
        detail_widths=(16, 64, 128)[: min(3, levels)],
        slices=1 if len(patch_size) == 2 else 3,
    )
