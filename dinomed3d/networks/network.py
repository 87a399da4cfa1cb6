"""DINO-Med3D: the whole network, and the one place that builds it from its spec."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder, build_encoder, stack_slices
from dinomed3d.networks.adapter import Adapter3D
from dinomed3d.networks.cnn_spec import Triple
from dinomed3d.networks.depth_attention import DepthAttention
from dinomed3d.networks.detail import DetailStream, build_cnn
from dinomed3d.networks.embedding import MultiSliceEmbedding, colours_of
from dinomed3d.networks.fusion import GatedFusion
from dinomed3d.networks.lora import LoRALinear, add_lora
from dinomed3d.networks.neck import Neck
from dinomed3d.networks.proxy import ProxyHead, ProxyNetwork
from dinomed3d.networks.spec import NetworkSpec, neck_taps
from dinomed3d.networks.volume_encoder import VolumeEncoder
from dinomed3d.runtime.errors import UserError

log = logging.getLogger(__name__)


class DinoMed3D(nn.Module):
    """The figure of DINO-Med3D: nnU-Net's CNN as detail stream and decoder, DINO's tokens entering its levels.

    Modules are built by `build_network`; those of the encoder side may be None, and then this is nnU-Net's CNN.
    """

    def __init__(
        self,
        *,
        embedding: MultiSliceEmbedding | None,
        encoder: VolumeEncoder | None,
        proxy: ProxyHead | None,
        neck: nn.ModuleDict,
        fusion: nn.ModuleDict,
        detail: DetailStream,
        decoder: UNetDecoder,
        spec: NetworkSpec,
    ) -> None:
        """Store the modules.

        Args:
            embedding: of slices for the encoder.
            encoder: the 2D encoder with adapters.
            proxy: stage I's head.
            neck: a Neck for every level that tokens enter, by its number.
            fusion: a GatedFusion for the same levels.
            detail: the detail stream.
            decoder: nnU-Net's.
            spec: the sizes of all of them.
        """
        super().__init__()
        self.embedding = embedding
        self.encoder = encoder
        self.proxy = proxy
        self.neck = neck
        self.fusion = fusion
        self.detail = detail
        self.decoder = decoder
        self.spec = spec

    def forward(
        self,
        volume: Tensor,
        taps: list[Tensor] | None = None,
        *,
        halo: tuple[int, int] = (0, 0),
    ) -> Tensor | list[Tensor]:
        """Segment volumes or slices.

        Args:
            volume: (B, C, D, H, W), or (B, C, H, W) for one slice each; any size.
            taps: result of `encode`, if it is known already.
            halo: slices below and above of `volume` that the embedding alone reads, and that the result
                leaves out: true neighbours of a window.

        Returns:
            Logits (B, classes, D, H, W) or (B, classes, H, W); a list of them, finest level first and at the
            CNN's strides, while `decoder.deep_supervision` is set.
        """
        is_2d = volume.ndim == 4
        volume = volume.unsqueeze(2) if is_2d else volume
        inner = volume[:, :, halo[0] : volume.shape[2] - halo[1]]
        size = inner.shape[2:]
        if taps is None and self.encoder is not None:
            taps = self.encode(volume, halo=halo)
        logits = self.decoder(self.skips(pad_ends(inner, self.spec.cnn.cells[-1]), taps))
        if isinstance(logits, Tensor):
            return self.crop(logits, size, is_2d)
        cells = self.spec.cnn.cells
        return [
            self.crop(
                x, [-(-side // cell) for side, cell in zip(size, cells[level], strict=True)], is_2d
            )
            for level, x in enumerate(logits)
        ]

    def encode(self, volume: Tensor, *, halo: tuple[int, int] = (0, 0)) -> list[Tensor]:
        """(B, C, below + D + above, H, W) -> the encoder's features, one (B, E, d, h, w) per tap.

        Raises:
            ValueError: there is no encoder.
        """
        if self.encoder is None:
            raise ValueError("DinoMed3D.encode: the network has no encoder")
        images = self.images(volume, halo=halo)  # (B * d, K * C, H', W')
        return self.encoder(images, depth=images.shape[0] // volume.shape[0])

    def images(self, volume: Tensor, *, halo: tuple[int, int] = (0, 0)) -> Tensor:
        """The encoder's images of the slices that are encoded: the middle ones of every `slices_per_token`.

        (B, C, below + D + above, H, W) -> (B * d, K * C, H', W').
        """
        assert self.embedding is not None
        step, rows, columns = self.spec.token_cell
        image = pad_ends(self.image(volume), (1, rows, columns))
        stacks = stack_slices(image, slices=self.spec.slices, halo=halo)
        if step > 1:
            stacks = stacks.unflatten(0, (image.shape[0], -1))
            depth = stacks.shape[1]
            middles = torch.arange(step // 2, depth + step // 2, step, device=stacks.device)
            stacks = stacks[:, middles.clamp(max=depth - 1)].flatten(0, 1)
        return self.embedding.enlarge(stacks)

    def image(self, volume: Tensor) -> Tensor:
        """The volume without the channels of the previous configuration's segmentation (cascade)."""
        return volume[:, : volume.shape[1] - self.spec.cascade_channels]

    def skips(self, volume: Tensor, taps: list[Tensor] | None) -> list[Tensor]:
        """The detail stream, level by level, with the tokens entering where there is a gate.

        (B, C, D, H, W) and the encoder's features -> (B, width, D', H', W') of every level, finest first.
        """
        x = self.detail.stem(volume)
        skips = []
        for number, level in enumerate(self.detail.levels):
            x = level(x)
            if taps is not None and str(number) in self.fusion:
                semantic = self.neck[str(number)](taps, x.shape[2:])
                x = self.fusion[str(number)](semantic, x)
            skips.append(x)
        return skips

    @staticmethod
    def crop(logits: Tensor, size: Sequence[int], is_2d: bool) -> Tensor:
        """Undo `pad_ends`, and the slice axis that `forward` added."""
        logits = logits[..., : size[0], : size[1], : size[2]]
        return logits.squeeze(2) if is_2d else logits

    def stage_one(self) -> ProxyNetwork:
        """Stage I's network, which shares embedding, encoder and proxy head with this one.

        Raises:
            ValueError: there is no encoder to adapt.
        """
        if self.embedding is None or self.encoder is None or self.proxy is None:
            raise ValueError(
                "DinoMed3D.stage_one: the network has no encoder, so there is no stage I"
            )
        return ProxyNetwork(self.embedding, self.encoder.encoder, self.proxy)

    def begin_stage(self, stage: int, *, deep_supervision: bool = True) -> None:
        """Set which parameters learn: in stage I encoder and proxy head, in stage II all the others.

        The low-rank updates lie inside the encoder and learn in stage II, when it is frozen.

        Args:
            stage: 1 or 2.
            deep_supervision: whether stage II's loss reads the heads of all levels, or the finest alone.

        Raises:
            ValueError: `stage` is neither 1 nor 2, or 1 without an encoder.
        """
        if stage not in (1, 2) or (stage == 1 and self.encoder is None):
            raise ValueError(f"DinoMed3D.begin_stage: no stage {stage} in this network")
        self.requires_grad_(stage == 2)
        if not deep_supervision:
            # nnU-Net's decoder lists its heads coarsest first; no gradient reaches the others
            self.decoder.seg_layers[:-1].requires_grad_(False)
        if self.encoder is None or self.proxy is None:
            return
        self.proxy.requires_grad_(stage == 1)
        if stage == 1:
            self.encoder.encoder.unfreeze()
        else:
            self.encoder.encoder.freeze()
        for module in self.encoder.encoder.modules():
            if isinstance(module, LoRALinear):
                module.lora_down.requires_grad_(stage == 2)
                module.lora_up.requires_grad_(stage == 2)
        # Only what a tap depends on takes part: never a block past the last tap. The final norm
        # learns in stage I, if the taps go through it.
        encoder = self.encoder.encoder
        for parameter in encoder.vit.norm.parameters():
            parameter.requires_grad_(stage == 1 and encoder.norm)
        for block in encoder.vit.blocks[encoder.run_blocks :]:
            block.requires_grad_(False)


def pad_ends(volume: Tensor, multiple: Triple) -> Tensor:
    """Repeat the last slices, rows and columns up to multiples. (B, C, D, H, W) -> (B, C, D', H', W')."""
    depth, rows, columns = (
        -side % step for side, step in zip(volume.shape[2:], multiple, strict=True)
    )
    if depth == rows == columns == 0:
        return volume
    return F.pad(volume, (0, columns, 0, rows, 0, depth), mode="replicate")


def build_network(
    input_channels: int, num_classes: int, deep_supervision: bool = False, **spec: Any
) -> DinoMed3D:
    """Build the network that a plan describes; nnU-Net finds this by its dotted path.

    The encoder is random here: its weights come from `load_pretrained_encoder` before training, or from
    a checkpoint, which is all that prediction needs.

    Args:
        input_channels: C, modalities of the volume, and the spec's `cascade_channels` after them.
        num_classes: channels of the logits.
        deep_supervision: return the logits of several levels. nnU-Net's own trainers ask for it, which
            load no weights of the encoder: with one, a warning is logged.
        spec: fields of NetworkSpec.

    Raises:
        UserError: unknown fields (a plan of another version), or values that make no network.
    """
    s = NetworkSpec.from_arch_kwargs(spec)
    if input_channels <= s.cascade_channels:
        raise UserError(
            f"build_network: 'input_channels' must be above the plan's 'cascade_channels' = "
            f"{s.cascade_channels}, got {input_channels}; the plan belongs to another dataset or configuration"
        )
    if deep_supervision and "encoder" in s.components:
        log.warning(
            "the network is built for training with a RANDOM encoder: nnU-Net's own trainers load no weights into "
            "it, use -tr DinoMed3DTrainer"
        )
    embedding = encoder = proxy = None
    neck, fusion = nn.ModuleDict(), nn.ModuleDict()
    # built first, so that the CNN of a seed is the same with and without an encoder
    detail, decoder = build_cnn(
        input_channels, num_classes, s.cnn, deep_supervision=deep_supervision
    )
    if "encoder" in s.components:
        embedding, encoder, proxy = _build_encoder(
            s, input_channels - s.cascade_channels, num_classes
        )
        vit = encoder.encoder
        for level in s.token_levels:
            neck[str(level)] = Neck(
                vit.channels,
                len(vit.taps),
                s.token_width,
                token=s.token_cell,
                level_cell=s.cnn.cells[level],
            )
            fusion[str(level)] = GatedFusion(s.token_width, s.cnn.widths[level])
    return DinoMed3D(
        embedding=embedding,
        encoder=encoder,
        proxy=proxy,
        neck=neck,
        fusion=fusion,
        detail=detail,
        decoder=decoder,
        spec=s,
    )


def _build_encoder(
    s: NetworkSpec, modalities: int, num_classes: int
) -> tuple[MultiSliceEmbedding, VolumeEncoder, ProxyHead]:
    """The embedding, the encoder with low-rank updates and adapters, and stage I's head."""
    vit = build_encoder(s.encoder, weights="none", taps=s.taps, frozen=False, **s.encoder_overrides)
    if s.taps is None:
        vit.taps = neck_taps(vit.depth)
    embedding = MultiSliceEmbedding(
        slices=s.slices,
        modalities=modalities,
        voxels_per_token=s.voxels_per_token,
        patch=vit.stride,
    )
    embedding.inflate(vit)
    proxy = ProxyHead(vit.channels, num_classes)
    tuned = s.tuned_of(vit.run_blocks)
    if "lora" in s.components:
        blocks = range(vit.run_blocks - tuned, vit.run_blocks)
        add_lora(vit, blocks=blocks, rank=s.lora_rank, alpha=s.lora_rank)
    # always built, so that the other random weights of a seed do not depend on them
    kind = DepthAttention if s.inter_slice == "attention" else Adapter3D
    adapters = [kind(vit.channels, width=s.adapter_width) for _ in range(tuned)]
    modules = nn.ModuleList(adapters if "adapters" in s.components else [])
    tuned = 0 if {"lora", "adapters"}.isdisjoint(s.components) else tuned
    return embedding, VolumeEncoder(vit, modules, tuned_blocks=tuned), proxy


def load_pretrained_encoder(
    network: DinoMed3D, pretrained: DinoEncoder, *, channels: Sequence[str] = ()
) -> None:
    """Copy a pretrained RGB encoder into the network's, its patch embedding inflated on the way.

    Args:
        network: its encoder is overwritten in place; low-rank updates and adapters stay.
        pretrained: an encoder of the same architecture from `build_encoder`; its patch embedding is
            inflated in place, so do not use it afterwards.
        channels: names of the images' channels; single slices with colours keep the kernels of these.

    Raises:
        ValueError: the network has no encoder, or one of another architecture.
    """
    if network.encoder is None or network.embedding is None:
        raise ValueError("load_pretrained_encoder: the network has no encoder")
    network.embedding.inflate(pretrained, colours=colours_of(channels))
    own = network.encoder.encoder.vit.state_dict(keep_vars=True)
    places = {
        name.replace(".base.", "."): tensor for name, tensor in own.items() if ".lora_" not in name
    }
    values = pretrained.vit.state_dict()
    if places.keys() != values.keys():
        raise ValueError("load_pretrained_encoder: the encoders are of different architectures")
    with torch.no_grad():
        for name, value in values.items():
            places[name].copy_(value)
