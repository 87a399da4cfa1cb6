"""DINO-Med3D: the whole network, and the one place that builds it from its spec."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder, build_encoder, pad_to_multiple
from dinomed3d.networks.adapter import Adapter3D
from dinomed3d.networks.decoder import Decoder
from dinomed3d.networks.depth_attention import DepthAttention
from dinomed3d.networks.detail import DetailStream
from dinomed3d.networks.embedding import MultiSliceEmbedding
from dinomed3d.networks.fusion import GatedFusion
from dinomed3d.networks.lora import LoRALinear, add_lora
from dinomed3d.networks.neck import Neck
from dinomed3d.networks.proxy import ProxyHead, ProxyNetwork
from dinomed3d.networks.spec import NetworkSpec
from dinomed3d.networks.volume_encoder import VolumeEncoder
from dinomed3d.runtime.errors import UserError

log = logging.getLogger(__name__)


class DinoMed3D(nn.Module):
    """The figure of DINO-Med3D: encoder with adapters, detail stream, gated fusion, decoder.

    Modules are built by `build_network`; those of the encoder side, or the detail stream, may be None.
    """

    def __init__(
        self,
        *,
        embedding: MultiSliceEmbedding | None,
        encoder: VolumeEncoder | None,
        proxy: ProxyHead | None,
        neck: Neck | None,
        detail: DetailStream | None,
        fusion: GatedFusion | None,
        decoder: Decoder,
        spec: NetworkSpec,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoder = encoder
        self.proxy = proxy
        self.neck = neck
        self.detail = detail
        self.fusion = fusion
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
            taps: result of `encode` for the padded volume, if it is known already.
            halo: slices below and above of `volume` that the embedding alone reads, and that the result
                leaves out: true neighbours of a window.

        Returns:
            Logits (B, classes, D, H, W) or (B, classes, H, W); a list of them, at in-plane strides 1,
            2, 4, ..., while `decoder.deep_supervision` is set.
        """
        is_2d = volume.ndim == 4
        volume = volume.unsqueeze(2) if is_2d else volume
        size = (volume.shape[-2], volume.shape[-1])
        volume = self.pad(volume)
        semantic = self.semantic_pyramid(
            volume, taps, halo=halo
        )  #  {s: (B, c, D, H/s, W/s)}  s = 4, 8, ...
        volume = volume[:, :, halo[0] : volume.shape[2] - halo[1]]
        detail = self.detail(volume) if self.detail is not None else []  # s = 1, 2, 4
        logits = self.decoder(self.skips(semantic, detail))
        if isinstance(logits, Tensor):
            return self.crop(logits, size, is_2d)
        return [
            self.crop(x, (-(-size[0] // 2**i), -(-size[1] // 2**i)), is_2d)
            for i, x in enumerate(logits)
        ]

    def semantic_pyramid(
        self, volume: Tensor, taps: list[Tensor] | None = None, *, halo: tuple[int, int] = (0, 0)
    ) -> dict[int, Tensor]:
        """(B, C, D, H, W) -> the semantic pyramid, by in-plane stride; empty without an encoder."""
        if self.neck is None:
            return {}
        return dict(self.neck(self.encode(volume, halo=halo) if taps is None else taps))

    def encode(self, volume: Tensor, *, halo: tuple[int, int] = (0, 0)) -> list[Tensor]:
        """(B, C, D, H, W) -> the encoder's features, one (B, E, D, H/t, W/t) per tap.

        Raises:
            ValueError: there is no encoder.
        """
        if self.encoder is None or self.embedding is None:
            raise ValueError("DinoMed3D.encode: the network has no encoder")
        slices = self.embedding(self.image(volume), halo=halo)  # (B * D, K * C, H', W')
        return self.encoder(slices, depth=volume.shape[2] - sum(halo))

    def image(self, volume: Tensor) -> Tensor:
        """The volume without the channels of the previous configuration's segmentation (cascade)."""
        return volume[:, : volume.shape[1] - self.spec.cascade_channels]

    def skips(self, semantic: dict[int, Tensor], detail: list[Tensor]) -> list[Tensor | None]:
        """Skips of the decoder: detail at the finest levels, both streams at the gate, semantic below."""
        levels: list[Tensor | None] = []
        for level in range(self.spec.levels):
            fine = detail[level] if level < len(detail) else None
            coarse = semantic.get(2**level)
            if fine is not None and coarse is not None and self.fusion is not None:
                levels.append(self.fusion(coarse, fine))
            else:
                levels.append(coarse if fine is None else fine)
        while levels[-1] is None:  # without an encoder there is nothing below the detail stream
            levels.pop()
        return levels

    def pad(self, volume: Tensor) -> Tensor:
        """Repeat the last rows and columns until tokens and all levels divide the plane."""
        return pad_to_multiple(volume.flatten(1, 2), self.spec.multiple).unflatten(
            1, volume.shape[1:3]
        )

    @staticmethod
    def crop(logits: Tensor, size: tuple[int, int], is_2d: bool) -> Tensor:
        """Undo `pad`, and the slice axis that `forward` added."""
        logits = logits[..., : size[0], : size[1]]
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
            self.decoder.seg_layers[1:].requires_grad_(False)  # no gradient reaches them
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
    gate = len(s.detail_widths) - 1
    embedding = encoder = proxy = neck = detail = fusion = None
    if "encoder" in s.components:
        embedding, encoder, proxy = _build_encoder(
            s, input_channels - s.cascade_channels, num_classes
        )
        vit = encoder.encoder
        strides = [2**level for level in range(gate, s.levels)]
        neck = Neck(
            vit.channels, len(vit.taps), s.pyramid_width, token=s.voxels_per_token, strides=strides
        )
        if "detail" in s.components:
            fusion = GatedFusion(s.pyramid_width, s.detail_widths[gate])
    if "detail" in s.components:
        detail = DetailStream(input_channels, s.detail_widths, depth_kernels=s.depth_kernels)
    decoder = Decoder(
        s.decoder_skips,
        s.decoder_widths,
        depth_kernels=s.depth_kernels,
        classes=num_classes,
        heads=s.deep_supervision_heads,
        deep_supervision=deep_supervision,
    )
    return DinoMed3D(
        embedding=embedding,
        encoder=encoder,
        proxy=proxy,
        neck=neck,
        detail=detail,
        fusion=fusion,
        decoder=decoder,
        spec=s,
    )


def _build_encoder(
    s: NetworkSpec, modalities: int, num_classes: int
) -> tuple[MultiSliceEmbedding, VolumeEncoder, ProxyHead]:
    """The embedding, the encoder with low-rank updates and adapters, and stage I's head."""
    vit = build_encoder(s.encoder, weights="none", taps=s.taps, frozen=False, **s.encoder_overrides)
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


def load_pretrained_encoder(network: DinoMed3D, pretrained: DinoEncoder) -> None:
    """Copy a pretrained RGB encoder into the network's, its patch embedding inflated on the way.

    Args:
        network: its encoder is overwritten in place; low-rank updates and adapters stay.
        pretrained: an encoder of the same architecture from `build_encoder`; its patch embedding is
            inflated in place, so do not use it afterwards.

    Raises:
        ValueError: the network has no encoder, or one of another architecture.
    """
    if network.encoder is None or network.embedding is None:
        raise ValueError("load_pretrained_encoder: the network has no encoder")
    network.embedding.inflate(pretrained)
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
