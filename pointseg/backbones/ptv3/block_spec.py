"""Settings that all blocks of Point Transformer V3 and its descendants share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """The settings that all blocks of a network share; the names are Pointcept's."""

    mlp_ratio: float = 4
    """Hidden channels of the MLP per channel."""
    qkv_bias: bool = True
    """Whether the layer of queries, keys and values has a bias."""
    qk_scale: float | None = None
    """The scale of the scores; None: one over the root of the channels per head."""
    attn_drop: float = 0.0
    """Probability with which a weight of the attention is dropped."""
    proj_drop: float = 0.0
    """Probability with which an output of attention or MLP is dropped."""
    pre_norm: bool = True
    """Whether attention and MLP read normalised features, or give them."""
    enable_rpe: bool = False
    """Whether relative positions are added to the scores."""
    enable_flash: bool = True
    """Whether a cloud smaller than the window is a window of its own. Otherwise the smallest cloud
    of the batch sets the size of all windows."""
    upcast_attention: bool = False
    """Whether the scores are computed in float32."""
    upcast_softmax: bool = False
    """Whether the softmax of the scores is computed in float32."""
    layer_scale: float | None = None
    """The learned factors of attention and MLP begin with it; None: there are none (Sonata)."""

    def __post_init__(self) -> None:
        explicit = ("enable_rpe", "upcast_attention", "upcast_softmax")
        asked = [name for name in explicit if getattr(self, name)]
        if self.enable_flash and asked:
            raise ValueError(
                f"BlockSpec: 'enable_flash' must be False with {', '.join(asked)}: "
                "fused attention does not do that"
            )
