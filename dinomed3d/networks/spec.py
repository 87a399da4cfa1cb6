"""The network as data: every size and choice that a plan records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dinomed3d.lifting import MODELS
from dinomed3d.lifting.dino import DEFAULT_ENCODER
from dinomed3d.networks.cnn_spec import CnnSpec, Triple
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.suggestion import suggestion

COMPONENTS = ("detail", "encoder", "lora", "adapters")
"""Components; an ablation can leave out all but the detail stream. Neck, gated fusion and stage I go with the
encoder."""

INTER_SLICE = ("adapters", "attention")
"""Inter-slice modules: convolution over three slices, or attention along depth. The component
"adapters" stands for either."""

MAX_PADDING = 4
"""Largest size of a padded patch, times its own."""

FINEST_TOKEN = 4
"""Smallest side of a token in voxels: finer tokens only enlarge slices further."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """DINO-Med3D's sizes: nnU-Net's CNN, and the encoder whose tokens enter it."""

    encoder: str = DEFAULT_ENCODER
    """Name of the 2D encoder, one of `dinomed3d.lifting.MODELS`."""
    encoder_overrides: Mapping[str, Any] = field(default_factory=dict)
    """timm's arguments for another size of the encoder: embed_dim, depth, num_heads, ..."""
    taps: tuple[int, ...] | None = None
    """Blocks whose output the neck reads, 0-based; None for those at half and three quarters of the depth
    (`neck_taps`). Blocks after the last are not run."""
    slices: int = 3
    """Slices per embedding (K, odd): the slice itself and (K - 1) / 2 neighbours on each side."""
    voxels_per_token: int = 8
    """Side of one token in voxels; slices are enlarged accordingly before the encoder."""
    slices_per_token: int = 1
    """Every how many slices one is encoded (odd, so that it is the middle one of as many); between them the
    tokens are interpolated along depth."""
    lora_rank: int = 16
    """Rank of the low-rank updates (LoRA) of the tuned blocks."""
    adapter_width: int = 64
    """Channels of the 3D adapters' bottleneck."""
    token_width: int = 128
    """Channels to which the neck projects the taps for each level that tokens enter."""
    cnn: CnnSpec = field(default_factory=CnnSpec)
    """nnU-Net's CNN: detail stream and decoder."""
    cascade_channels: int = 0
    """Number of last input channels that hold the previous configuration's segmentation (cascade).
    Only the detail stream reads them: the encoder was trained on images."""
    components: tuple[str, ...] = COMPONENTS
    """Components of the network, a subset of COMPONENTS with the detail stream; "detail" alone is nnU-Net's
    CNN."""
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
            f"'encoder' (DINOMED3D_ENCODER): there is no {self.encoder!r}{suggestion([self.encoder], MODELS)}; it must "
            f"be one of {', '.join(MODELS)}",
        )
        _require(
            self.slices >= 1 and self.slices % 2 == 1,
            f"'slices' (K, DINOMED3D_SLICES) must be odd and at least 1, got {self.slices}",
        )
        _require(
            self.slices_per_token >= 1 and self.slices_per_token % 2 == 1,
            f"'slices_per_token' must be odd and at least 1, got {self.slices_per_token}",
        )
        _require(
            has <= set(COMPONENTS) and "detail" in has,
            f"'components' (DINOMED3D_COMPONENTS) must be of {', '.join(COMPONENTS)} and have detail, got "
            f"{', '.join(self.components) or 'none'}",
        )
        _require(
            "encoder" in has or has.isdisjoint({"lora", "adapters"}),
            "'components' must have encoder if it has lora or adapters",
        )
        _require(
            taps is None or (bool(taps) and taps[0] >= 0 and list(taps) == sorted(set(taps))),
            f"'taps' must be increasing block numbers from 0, or null, got {taps}",
        )
        _require(
            token >= 1 and math.log2(token).is_integer(),
            f"'voxels_per_token' (DINOMED3D_VOXELS_PER_TOKEN) must be a power of two, got {token}",
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
            "token_width": 1,
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
            UserError: slices smaller than one token, though tokens could be finer; padding to more than four
                times the size; or a single token, or a single voxel at the coarsest level, which has no norm.
        """
        patch = (1, *patch_size)[-3:]
        coarsest = [-(-side // cell) for side, cell in zip(patch, self.cnn.cells[-1], strict=True)]
        padded = math.prod(coarsest) * math.prod(self.cnn.cells[-1])
        token = self.voxels_per_token if "encoder" in self.components else 1
        if min(patch[-2:]) < token and token > FINEST_TOKEN:
            raise UserError(
                f"plan: the patch must be at least {token} x {token} voxels in plane, the size of a token, got "
                f"{list(patch_size)}; plan with a larger patch, or lower DINOMED3D_VOXELS_PER_TOKEN"
            )
        if min(patch[-2:]) >= 8 and padded > MAX_PADDING * math.prod(patch):
            raise UserError(
                f"plan: {self.cnn.levels} levels, the coarsest with cells of {self.cnn.cells[-1]} voxels, would pad "
                f"the patch {list(patch_size)} to over {MAX_PADDING} times its size; use fewer levels or a larger patch"
            )
        if min(patch_size) < 1 or math.prod(coarsest) < 2:
            raise UserError(
                f"plan: the patch must leave more than one voxel at the coarsest of {self.cnn.levels} levels, where "
                f"one covers {' x '.join(map(str, self.cnn.cells[-1]))} voxels, got {list(patch_size)}; plan with a "
                "larger patch or a finer spacing"
            )

        tokens = [-(-side // cell) for side, cell in zip(patch, self.token_cell, strict=True)]
        if "encoder" in self.components and math.prod(tokens) < 2:
            raise UserError(
                f"plan: the patch must hold more than one token of {token} x {token} voxels, got {list(patch_size)}; "
                "plan with a larger patch, or lower DINOMED3D_VOXELS_PER_TOKEN"
            )

    @property
    def token_cell(self) -> Triple:
        """Size (D, H, W) of a token, voxels."""
        return self.slices_per_token, self.voxels_per_token, self.voxels_per_token

    @property
    def token_levels(self) -> tuple[int, ...]:
        """Levels of the detail stream that tokens enter: in-plane strides 4, 8 and 16, else the coarsest."""
        if "encoder" not in self.components:
            return ()
        strides = [max(cell[1:]) for cell in self.cnn.cells]
        found = tuple(level for level, stride in enumerate(strides) if 4 <= stride <= 16)
        return found or (self.cnn.levels - 1,)

    @property
    def deep_supervision_heads(self) -> int:
        """Levels with a segmentation head, as in nnU-Net: all but the coarsest, which has no decoder step."""
        return self.cnn.levels - 1

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
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields

    @classmethod
    def from_arch_kwargs(cls, kwargs: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of `to_arch_kwargs`.

        Raises:
            UserError: an unknown field (a plan of another version) or an invalid value.
        """
        unknown = kwargs.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise UserError(
                f"plan: unknown network fields {', '.join(sorted(unknown))}; the plan or checkpoint was written "
                "by another version of dinomed3d: install that version, or plan again"
            )
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()
        }
        if isinstance(values.get("cnn"), Mapping):
            values["cnn"] = CnnSpec.from_fields(values["cnn"])
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
    kinds = {"int": int, "str": str, "CnnSpec": CnnSpec}
    return type(value) is kinds[declared] if declared in kinds else isinstance(value, Mapping)


def neck_taps(depth: int) -> tuple[int, ...]:
    """The blocks that end the second and third quarter of an encoder's depth: 5 and 8 of 12.

    Features of later blocks say what a photograph shows; measured on MRI they add nothing to these, and cost
    a quarter of the encoder.
    """
    return tuple(sorted({max(0, depth // 2 - 1), max(0, depth * 3 // 4 - 1)}))


def token_side(height: int, width: int) -> int:
    """Voxels per token for slices of a size, where no plan says: 4 in small, 8 in medium, 16 in large ones."""
    side = max(height, width)
    return FINEST_TOKEN if side <= 64 else 8 if side <= 256 else 16


def slice_step(spacing_mm: Sequence[float], token: int) -> int:
    """Slices per token, where no plan says: three if tokens are then no longer across slices than in plane.

    Args:
        spacing_mm: (D, H, W), or (H, W) of single slices.
        token: voxels per token, in plane.
    """
    if len(spacing_mm) == 2:
        return 1
    return 3 if 3 * spacing_mm[0] <= token * min(spacing_mm[1:]) else 1
