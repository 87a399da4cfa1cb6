"""Pretrained 3D networks from their files: Sonata, Concerto, Utonia, LitePT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pointseg.backbones.build import build_backbone
from pointseg.backbones.interface.features import Backbone
from pointseg.backbones.weights.named_tensors import BackboneWeightsError, Head
from pointseg.backbones.weights.pretrained_config import configuration
from pointseg.backbones.weights.pretrained_file import Family, licence_of, read_pretrained, width_of
from pointseg.backbones.weights.pretrained_weights import check_fit, load_into


@dataclass(frozen=True)
class Pretrained:
    """A network with the weights of a file."""

    backbone: Backbone
    """The network, in evaluation mode."""
    family: Family
    """Its name in ``build_backbone``; Concerto's is "sonata"."""
    config: Mapping[str, Any]
    """The arguments that it was built with."""
    head: Head | None
    """The layer that scores classes, from a fine-tuned file; None: there was none."""
    notes: tuple[str, ...]
    """What was done in addition to loading, in sentences; the licence of the weights first."""

    @property
    def licence(self) -> str:
        """Under what the published weights of the family, and what is made from them, may be used."""
        return licence_of(self.family)


def load_pretrained(
    path: Path | str,
    *,
    columns: Sequence[str] | None = None,
    adapt_input: bool = False,
    **overrides: Any,
) -> Pretrained:
    """Build the network of a file with its configuration and its weights.

        found = load_pretrained("sonata.pth", mask_token=False, enable_flash=False)
        found.backbone(cloud).feat  # (N, 1232)

    Args:
        path: a file or a folder, see ``weights.pretrained_file`` for their layouts.
        columns: see ``weights.pretrained_weights.load_into``.
        adapt_input: see ``weights.pretrained_weights.load_into``.
        overrides: arguments of ``build_backbone`` in place of the file's; of a file without configuration
            those that its tensors do not say, see ``weights.pretrained_config``.

    Returns:
        The network, in evaluation mode, with what is known of it.

    Raises:
        BackboneWeightsError: no such file, not readable without running code, none of these networks; arguments
            missing, unknown or out of bounds; weights that do not fit in every key.
    """
    file = read_pretrained(Path(path))
    if adapt_input and columns is not None:
        overrides.setdefault("in_channels", sum(map(width_of, columns)))
    config = configuration(file, overrides)
    try:
        with torch.device("meta"):  # nothing is allocated before all shapes are those of the file
            shell = build_backbone(file.family, **config)
    except (ValueError, TypeError) as error:
        raise BackboneWeightsError(f"weights {path}: {error}") from error
    check_fit(shell, file, columns=columns, adapt_input=adapt_input)
    backbone = build_backbone(file.family, **config)
    notes = load_into(backbone, file, columns=columns, adapt_input=adapt_input)
    return Pretrained(backbone.eval(), file.family, config, file.head, notes)
