"""The rules that size network, patch and batch to a dataset and a memory; each can be argued with.

The token grid follows the slices alone. The encoder is the largest one that trains on whole slices,
enough of them, within memory and time. Where even the smallest does not, it gives up in this order:
speed (activation checkpointing), fine tokens, slices of a patch, whole slices, and last time. What
memory and time are left go into slices of a patch, then into the batch.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dinomed3d.networks import PARTS, NetworkSpec, depth_kernels
from dinomed3d.runtime.errors import UserError
from planners.budget import Budget
from planners.cost import StepCost, prediction, stage_one, stage_two
from planners.dataset_stats import Images
from planners.encoders import encoder_size

ENCODER_CANDIDATES = (
    "vit_large_patch16_dinov3",
    "vit_base_patch16_dinov3",
    "vit_small_plus_patch16_dinov3",
    "vit_small_patch16_dinov3",
)
"""Encoders that are chosen from, largest first; the others only where they are asked for."""
TOKENS_WANTED = 1024
"""Tokens of a slice: DINO-Med3D feeds every slice at 512 pixels, which is 32 x 32 tokens."""
TOKEN_SIDES = (4, 8, 16, 32)
"""Voxels per token: finer would enlarge slices more than fourfold, coarser halve them more than once."""
DEPTH_SEEN = 32
"""Slices of a patch: as many as the adapters of 12 blocks and the decoder let one slice see."""
DEPTH_WHOLE = 48
"""Volumes with at most so many slices are taken whole."""
DEPTH_WANTED = 16
"""Slices of a patch of a longer volume that a larger encoder must leave room for, as in DINO-Med3D."""
DEPTH_LEAST = 8
"""Slices (or all, if fewer) that are kept before slices are cropped."""
TOKENS_LEAST = 256
"""Tokens of a slice below which they are not made coarser for the sake of memory or time."""
BATCH_LEAST = 2
"""As in nnU-Net: Dice over one patch is too noisy."""
BATCH_WANTED_2D = 8
"""Single slices in a step that a larger encoder must leave room for."""
BATCH_MOST = 64
"""More patches than this in a step bring nothing that more steps would not."""
SHARE_OF_DATASET = 0.05
"""nnU-Net's precaution against overfitting: a batch shows at most so much of all voxels."""
PADDING_ALLOWED = 0.05
"""Extra area of a slice for which the pyramid may have one more level."""
SIDE_LEAST = 64
"""A slice is not cropped to less than this, voxels."""
STAGE1_SLICES = 96
"""Slices in a step of stage I, at most."""
DECODER_WIDTHS = (256, 192, 128, 96)
"""Channels of neck and decoder, widest first."""
DECODER_SHARE = 1 / 3
"""Arithmetic of neck and decoder against the encoder's, at most."""


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """All that was decided for a configuration, and what it costs."""

    spec: NetworkSpec
    patch: tuple[int, ...]
    batch: int
    recipe: Mapping[str, Any]
    """Fields of the recipe that the plan sets."""
    stage_one: StepCost | None
    """None where there is no encoder to adapt."""
    stage_two: StepCost
    prediction: float
    """Bytes while one patch is predicted."""

    @property
    def peak(self) -> float:
        """Bytes at the fullest moment of training."""
        first = 0.0 if self.stage_one is None else self.stage_one.peak
        return max(first, self.stage_two.peak)


def token_side(height: int, width: int) -> int:
    """Voxels per token for which a slice has closest to TOKENS_WANTED tokens, by ratio."""

    def misses(side: int) -> float:
        return abs(math.log(height * width / side**2 / TOKENS_WANTED))

    return min(TOKEN_SIDES, key=misses)


def levels_for(height: int, width: int, token: int) -> int:
    """Levels of the pyramid: to the token's stride, at least 4, and one more if that pads little."""
    finest = max(2, int(math.log2(token)))
    while finest > 2 and min(height, width) < 4 * 2**finest:
        finest -= 1
    fits, more = (_area(height, width, 2**f) for f in (finest, finest + 1))
    deeper = min(height, width) >= 4 * 2 ** (finest + 1) and more <= fits * (1 + PADDING_ALLOWED)
    return 1 + finest + deeper


def _area(height: int, width: int, multiple: int) -> int:
    return round_up(height, multiple) * round_up(width, multiple)


def round_up(side: int, multiple: int) -> int:
    """The next multiple."""
    return -(-side // multiple) * multiple


def detail_widths_for(token: int, levels: int) -> tuple[int, ...]:
    """Channels of the detail stream, down to stride 4, or 8 beside the coarsest tokens.

    Beside coarse tokens the fine levels would outweigh the encoder, so they are narrower there.
    """
    widths = {16: (16, 32, 96), 32: (16, 32, 64, 96)}.get(token, (16, 64, 128))
    return widths[:levels]


def adapter_width_for(channels: int) -> int:
    """A sixth of the encoder's channels, in steps of 16: 64 for ViT-S, as wide as its attention heads."""
    return max(16, channels // 6 // 16 * 16)


def rate_for(channels: int) -> float:
    """Stage I's peak rate of the encoder: 5e-5 for ViT-S, less for wider ones (1 / width)."""
    return float(f"{5e-5 * 384 / max(channels, 384):.1e}")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to train: a network, a patch, and whether the encoder's blocks are computed twice."""

    spec: NetworkSpec
    patch: tuple[int, ...]
    checkpointing: bool

    def stage_two(self, images: Images, batch: int) -> StepCost:
        """A step of stage II on so many patches."""
        return stage_two(
            self.spec,
            self.patch,
            batch=batch,
            channels=images.channels,
            classes=images.classes,
            checkpointing=self.checkpointing,
        )

    def stage_one(self, images: Images, slices: int, batch: int, resident: int) -> StepCost:
        """A step of stage I on so many slices of a batch, beside so many parameters."""
        return stage_one(
            self.spec,
            self.patch,
            slices=slices,
            channels=images.channels,
            classes=images.classes,
            resident=resident,
            batch=batch,
            checkpointing=self.checkpointing,
        )

    def fits(self, images: Images, batch: int, budget: Budget) -> bool:
        """Whether a step of either stage stays within memory and time."""
        steps = self.steps(images, batch)
        return all(s.peak <= budget.memory and s.flops <= budget.flops for s in steps)

    def steps(self, images: Images, batch: int) -> list[StepCost]:
        """Stage II's step on so many patches, and stage I's on some slices of them."""
        two = self.stage_two(images, batch)
        if "encoder" not in self.spec.parts:
            return [two]
        slices = min(8, batch * math.prod(self.patch[:-2]))
        return [two, self.stage_one(images, slices, batch, two.resident)]


@dataclass(frozen=True, kw_only=True)
class Way:
    """What a trial may give up."""

    slices: int
    """Of a patch, at least."""
    token: int
    """Voxels per token."""
    checkpointing: bool
    plane: tuple[int, int]
    """Size of a slice, voxels."""
    batch: int = BATCH_LEAST


class Rules:
    """The rules for one dataset and one network, of which some fields may be forced."""

    def __init__(self, images: Images, forced: Mapping[str, Any]) -> None:
        """Take both.

        Args:
            images: the dataset.
            forced: fields of NetworkSpec that the user has set.
        """
        self.images = images
        self.forced = forced
        self.plane = (images.shape[-2], images.shape[-1])
        self.flat = len(images.shape) == 2 or images.shape[0] == 1
        self.whole = len(images.shape) == 2 or images.shape[0] <= DEPTH_WHOLE
        self.token = forced.get("voxels_per_token", token_side(*self.plane))

    @property
    def encoders(self) -> tuple[str, ...]:
        """To choose from, largest first; one if it was asked for, by name or by its sizes."""
        if self.forced.keys() & {"encoder", "encoder_overrides"}:
            return (self.forced.get("encoder", NetworkSpec.encoder),)
        return (
            ENCODER_CANDIDATES
            if "encoder" in self.forced.get("parts", PARTS)
            else ENCODER_CANDIDATES[-1:]
        )

    @property
    def most_slices(self) -> int:
        """Slices that a patch has where memory is no matter."""
        depth = 1 if len(self.images.shape) == 2 else self.images.shape[0]
        return depth if depth <= DEPTH_WHOLE else max(DEPTH_SEEN, self.context_slices)

    @property
    def context_slices(self) -> int:
        """Slices that a first stage's patch should hold."""
        return math.ceil(self.images.context * self.images.shape[0])

    @property
    def wanted_slices(self) -> int:
        """Slices that a patch should not go below for speed's or a larger encoder's sake."""
        return self.most_slices if self.whole else max(DEPTH_WANTED, self.context_slices)

    def network(self, encoder: str, plane: tuple[int, int], token: int) -> NetworkSpec:
        """The network for slices of this size; decoder as wide as stays small beside the encoder."""
        levels = levels_for(*plane, token)
        fields: dict[str, Any] = {"encoder": encoder, **self.forced}
        base = NetworkSpec(**fields)
        spec = replace(
            base,
            voxels_per_token=token,
            slices=1 if self.flat else self.forced.get("slices", 3),
            levels=levels,
            depth_kernels=depth_kernels(self.images.spacing, levels, flat=self.flat),
            detail_widths=detail_widths_for(token, levels),
            supervised_levels=min(3, levels - 1),  # the coarsest has no step of the decoder
            adapter_width=adapter_width_for(
                encoder_size(base.encoder, base.encoder_overrides).width
            ),
            cascade_channels=self.images.cascade_channels,
        )
        if "encoder" not in spec.parts:
            return spec
        for width in DECODER_WIDTHS[:-1]:
            wide = replace(spec, pyramid_width=width)
            cost = stage_two(
                wide, plane, batch=1, channels=self.images.channels, classes=self.images.classes
            ).parts
            if cost["neck"].flops + cost["decoder"].flops <= DECODER_SHARE * cost["encoder"].flops:
                return wide
        return replace(spec, pyramid_width=DECODER_WIDTHS[-1])

    def deepest(self, encoder: str, way: Way, budget: Budget) -> Trial | None:
        """The trial with most slices that stays within the budget; None if it would have too few."""
        spec = self.network(encoder, way.plane, way.token)
        height, width = (round_up(side, spec.multiple) for side in way.plane)
        if self.flat and height == width == spec.multiple:
            width *= 2  # a single voxel at the coarsest level has no norm
        sides = (height, width)

        def trial(depth: int) -> Trial:
            patch = sides if len(self.images.shape) == 2 else (depth, *sides)
            return Trial(spec=spec, patch=patch, checkpointing=way.checkpointing)

        def too_much(depth: int) -> bool:
            return not trial(depth).fits(self.images, way.batch, budget)

        depths = range(min(way.slices, self.most_slices), self.most_slices + 1)
        fitting = bisect_left(depths, True, key=too_much)
        return trial(depths[fitting - 1]) if fitting else None

    def choose(self, budget: Budget) -> Trial:
        """The best trial that fits.

        Raises:
            UserError: even the least one does not fit.
        """
        *larger, smallest = self.encoders
        wanted = self.way(slices=self.wanted_slices)
        batch = BATCH_WANTED_2D if len(self.images.shape) == 2 else BATCH_LEAST
        candidates = [(encoder, replace(wanted, batch=batch), budget) for encoder in larger]
        ways = [wanted, *self.fallbacks()]
        candidates += [(smallest, way, budget) for way in ways]
        candidates += [(smallest, way, replace(budget, unhurried=True)) for way in ways]
        trials = (self.deepest(*candidate) for candidate in candidates)
        found = next((trial for trial in trials if trial is not None), None)
        if found is None:
            raise UserError(self._too_small(smallest, ways[-1], budget))
        return found

    def way(self, *, slices: int, token: int | None = None, checkpointing: bool = False,
            plane: tuple[int, int] | None = None) -> Way:  # fmt: skip
        """Whole slices on the token grid that suits them, unless it is said otherwise."""
        return Way(
            slices=slices,
            token=token or self.token,
            checkpointing=checkpointing,
            plane=plane or self.plane,
        )

    def fallbacks(self) -> Iterator[Way]:
        """What the smallest encoder gives up, in this order, where memory or time is short."""
        fixed = "voxels_per_token" in self.forced
        tokens = [self.token]
        if not fixed:
            tokens += [t for t in TOKEN_SIDES if t > self.token and self._tokens(t) >= TOKENS_LEAST]
        yield self.way(slices=self.wanted_slices, checkpointing=True)
        for token in tokens[1:]:
            yield self.way(slices=self.wanted_slices, token=token)
            yield self.way(slices=self.wanted_slices, token=token, checkpointing=True)
        for token in tokens:
            yield self.way(slices=DEPTH_LEAST, token=token, checkpointing=True)
        plane, token = self.plane, self.token
        while max(plane) > SIDE_LEAST:  # the longer side first, then both
            side = max(SIDE_LEAST, max(plane) * 3 // 4)
            plane = (min(plane[0], side), min(plane[1], side))
            token = token if fixed else token_side(*plane)
            yield self.way(slices=DEPTH_LEAST, token=token, checkpointing=True, plane=plane)
        yield self.way(slices=1, token=token, checkpointing=True, plane=plane)

    def _tokens(self, token: int) -> float:
        return self.plane[0] * self.plane[1] / token**2

    def _too_small(self, encoder: str, least: Way, budget: Budget) -> str:
        trial = self.deepest(encoder, least, Budget(memory_gib=math.ldexp(1, 40)))
        assert trial is not None
        patch = (*[1] * (len(trial.patch) - 2), *trial.patch[-2:])
        steps = replace(trial, patch=patch).steps(self.images, BATCH_LEAST)
        need = math.ceil(10 * Budget.for_bytes(max(step.peak for step in steps))) / 10
        return (
            f"planner: -gpu_memory_target {budget.memory_gib:g} (GiB) is too small: {encoder}, {self.images.channels} "
            f"channels and {self.images.classes} outputs need {need:.1f} even for a patch of {list(patch)}. Raise the "
            "target, or name a smaller encoder with DINOMED3D_ENCODER or DINOMED3D_ENCODER_OVERRIDES"
        )

    def batch(self, trial: Trial, budget: Budget) -> int:
        """Patches in a step: what memory, time and nnU-Net's precaution allow, at least two."""
        shown = SHARE_OF_DATASET * self.images.voxels / math.prod(trial.patch)
        most = int(min(BATCH_MOST, max(BATCH_LEAST, round(shown))))

        def too_much(batch: int) -> bool:
            two = trial.stage_two(self.images, batch)
            peak = two.peak
            if "encoder" in trial.spec.parts:  # stage I holds the batch as well
                peak = max(peak, trial.stage_one(self.images, 2, batch, two.resident).peak)
            return peak > budget.memory or two.flops > budget.flops

        batches = range(BATCH_LEAST + 1, most + 1)
        return BATCH_LEAST + bisect_left(batches, True, key=too_much)

    def slices(self, trial: Trial, batch: int, two: StepCost, budget: Budget) -> int:
        """Slices in a step of stage I: of those a batch has, what memory and time allow.

        Where stage II's step takes longer than the budget has it, stage I's may too.
        """
        most = min(STAGE1_SLICES, batch * math.prod(trial.patch[:-2]))

        def too_much(slices: int) -> bool:
            step = trial.stage_one(self.images, slices, batch, two.resident)
            return step.peak > budget.memory or step.flops > max(budget.flops, two.flops)

        more = range(3, most + 1)
        return 2 + bisect_left(more, True, key=too_much)


def size_configuration(
    images: Images, memory_gib: float, forced: Mapping[str, Any] | None = None
) -> Sizing:
    """Size a configuration.

    Args:
        images: what it trains on.
        memory_gib: nnU-Net's memory target.
        forced: fields of NetworkSpec that the user has set (DINOMED3D_ENCODER and so on).

    Raises:
        UserError: a dataset that cannot be planned, or a memory in which nothing fits.
    """
    budget = Budget(memory_gib=memory_gib)
    rules = Rules(images, forced or {})
    trial = rules.choose(budget)
    batch = rules.batch(trial, budget)
    two = trial.stage_two(images, batch)
    one = None
    recipe: dict[str, Any] = {"activation_checkpointing": trial.checkpointing}
    if "encoder" in trial.spec.parts:
        slices = rules.slices(trial, batch, two, budget)
        one = trial.stage_one(images, slices, batch, two.resident)
        recipe |= {
            "stage1_slices": slices,
            "stage1_tokens": slices * tokens_of(trial.spec, trial.patch),
            "rate_encoder": rate_for(
                encoder_size(trial.spec.encoder, trial.spec.encoder_overrides).width
            ),
        }
    return Sizing(
        spec=trial.spec,
        patch=trial.patch,
        batch=batch,
        recipe=recipe,
        stage_one=one,
        stage_two=two,
        prediction=prediction(
            trial.spec, trial.patch, channels=images.channels, classes=images.classes
        ),
    )


def tokens_of(spec: NetworkSpec, patch: Sequence[int]) -> int:
    """Patch tokens of one slice."""
    return math.prod(-(-side // spec.voxels_per_token) for side in patch[-2:])
