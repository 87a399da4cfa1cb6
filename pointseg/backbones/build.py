"""Building a backbone by its name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.suggestion import suggestion
from pointseg.backbones.interface.features import Backbone
from pointseg.backbones.interface.plugin import build_plugin, plugin_class
from pointseg.backbones.weights.pointcept import load_backbone
from pointseg.backbones.weights.pretrained_file import LICENCES, read_pretrained
from pointseg.backbones.weights.pretrained_weights import load_into
from pointseg.conventions import BACKBONES
from pointseg.plugins import FORM, is_plugin, parameters_of

# Pointcept's configurations of Point Transformer V3 have further settings: these select other
# networks unless they are False,
_OTHER_NETWORKS = ("cls_mode", "enc_mode", "pdnorm_bn", "pdnorm_ln")
# and these belong to those networks and have no effect here.
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_OF_OTHER_NETWORKS = ("pdnorm_decouple", "pdnorm_adaptive", "pdnorm_affine", "pdnorm_conditions")


def build_backbone(name: str, checkpoint: Path | str | None = None, **config: Any) -> Backbone:
    """Build a 3D backbone, with random or published weights.

    Args:
        name: "ptv3" (``PointTransformerV3``), "minkunet" (``MinkUNet``), "pointnext" (``PointNeXt``), "sonata"
            (``Sonata``, which is Concerto, too), "utonia" (``Utonia``), "litept" (``LitePT``) or "linear"
            (``LinearProbe``; its "encoder" may be one of these names, with arguments in "encoder_config");
            or ``package.module:Class``, a network of your own, which is imported: never pass a name that a file gave.
        checkpoint: weights in Pointcept's format, see ``weights.pointcept`` for the layouts it reads and the colours
            they expect, and ``weights.pretrained_file`` for those of Sonata, Utonia and LitePT; None: random weights.
        config: arguments of that class; lists are taken as tuples.

    Returns:
        The backbone, in training mode.

    Raises:
        UserError: an unknown name; arguments that the class does not take, or that are missing; weights
            that do not fit; a class of your own that does not fit ``Backbone``.
    """
    if not isinstance(name, str):
        raise UserError(
            f"build_backbone: 'name' must be one of {', '.join(BACKBONES)} or {FORM}, got {type(name).__name__}"
        )
    width = config.get("in_channels", 1)
    if not isinstance(width, int | np.integer) or width < 1:
        raise UserError(f"build_backbone: 'in_channels' must be 1 or more, got {width!r}")
    kind = _class_of(name)
    if name == "linear":
        config = _with_encoder(config)
    config = _known(name, kind, config)
    backbone = build_plugin(name, kind, config) if is_plugin(name) else kind(**config)
    if checkpoint is not None and name in LICENCES:
        load_into(backbone, read_pretrained(Path(checkpoint)))
    elif checkpoint is not None:
        load_backbone(backbone, Path(checkpoint))
    return backbone


def _class_of(name: str) -> type[Backbone]:
    if is_plugin(name):
        return plugin_class(name)
    # imported here, since each brings operators that the others do without
    if name == "ptv3":
        from pointseg.backbones.ptv3.point_transformer_v3 import PointTransformerV3

        return PointTransformerV3
    if name == "minkunet":
        from pointseg.backbones.minkunet import MinkUNet

        return MinkUNet
    if name == "pointnext":
        from pointseg.backbones.pointnext.network import PointNeXt

        return PointNeXt
    if name == "sonata":
        from pointseg.backbones.ptv3.sonata import Sonata

        return Sonata
    if name == "utonia":
        from pointseg.backbones.ptv3.utonia import Utonia

        return Utonia
    if name == "litept":
        from pointseg.backbones.ptv3.litept import LitePT

        return LitePT
    if name == "linear":
        from pointseg.backbones.linear_probe import LinearProbe

        return LinearProbe
    raise UserError(
        f"build_backbone: 'name' must be one of {', '.join(BACKBONES)} or {FORM}, got {name!r}"
        f"{suggestion([name], BACKBONES)}"
    )


def _with_encoder(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a linear probe, with the encoder that ``encoder`` names and ``encoder_config`` describes."""
    config = dict(config)
    inner = config.pop("encoder_config", {})
    name = config.get("encoder")
    if isinstance(name, str):
        if name not in BACKBONES or name == "linear":  # it may be of a file: no class of its own
            raise UserError(
                f"build_backbone: 'encoder' must be one of {', '.join(BACKBONES[:-1])}, got {name!r}"
            )
        shared = {"in_channels": config["in_channels"]} if "in_channels" in config else {}
        config["encoder"] = build_backbone(name, **{**shared, **inner})
    return config


def _known(name: str, kind: type[Backbone], config: dict[str, Any]) -> dict[str, Any]:
    """The arguments as the class takes them.

    Raises:
        UserError: see ``build_backbone``.
    """
    config = dict(config)
    if name == "ptv3":
        for key in _OTHER_NETWORKS:
            if config.pop(key, False):
                raise UserError(
                    f"build_backbone: '{key}' must be False, its network for other tasks is not here"
                )
        for key in _OF_OTHER_NETWORKS:
            config.pop(key, None)
    every = parameters_of(kind, name) if is_plugin(name) else _parameters(kind)
    parameters = [each for each in every if each.kind not in _ANY_NUMBER]
    names = [parameter.name for parameter in parameters]
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in every)
    unknown = [] if takes_any else [key for key in config if key not in names]
    if "num_classes" in unknown:
        raise UserError(
            f"build_backbone: {name} takes no 'num_classes'; its features get a head in pointseg.Segmenter"
        )
    if unknown:
        raise UserError(
            f"build_backbone: {name} takes no {', '.join(map(repr, unknown))}; it takes {', '.join(names)}"
            f"{suggestion(unknown, names)}"
        )
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.name not in config
    ]
    if missing:
        raise UserError(f"build_backbone: {name} needs {', '.join(map(repr, missing))}")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}


def _parameters(kind: type) -> list[inspect.Parameter]:
    """The arguments of a network of ours, those that it hands on to the class above included."""
    found = dict(inspect.signature(kind).parameters)
    rest = [name for name, parameter in found.items() if parameter.kind is parameter.VAR_KEYWORD]
    for name in rest:
        del found[name]
        found = {p.name: p for p in _parameters(kind.__mro__[1])} | found
    return list(found.values())
