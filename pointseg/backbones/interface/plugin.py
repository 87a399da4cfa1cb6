"""Backbones of the user's own, named ``package.module:Class``: checked when they are built, and when they run."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pointseg.backbones.interface.features import Backbone, Features
from pointseg.cloud import Cloud
from pointseg.plugins import PluginError, errors_of, import_class

PROTOCOL = "pointseg.backbones.Backbone"


def plugin_class(name: str) -> type[Any]:
    """The class of a plug-in, which must be a network with a ``forward`` of its own.

    Raises:
        PluginError: it cannot be imported, or does not fit ``Backbone``.
    """
    found = import_class(name)
    if not issubclass(found, nn.Module):
        raise PluginError(f"{name}: must be a torch.nn.Module, best derived from {PROTOCOL}")
    if found.forward in (nn.Module.forward, Backbone.forward):
        raise PluginError(f"{name}: lacks forward(cloud), which returns Features (see {PROTOCOL})")
    return found


def build_plugin(name: str, kind: type[Backbone], config: dict[str, Any]) -> Backbone:
    """A plug-in's network.

    Raises:
        PluginError: its constructor failed, or it lacks what ``Backbone`` says it has.
    """
    with errors_of(name, f"{kind.__name__}({', '.join(config)})"):
        backbone = kind(**config)
    for key in ("in_channels", "out_channels"):
        value = getattr(backbone, key, None)
        if type(value) is not int or value < 1:
            raise PluginError(
                f"{name}: '{key}' must be set by its constructor, a whole number >= 1, got {value!r} (see {PROTOCOL})"
            )
    wanted = config.get("in_channels", backbone.in_channels)
    if backbone.in_channels != wanted:
        raise PluginError(
            f"{name}: 'in_channels' must be {wanted}, as given to its constructor, got {backbone.in_channels}"
        )
    for key in ("image_channels", "image_pooling"):
        if not hasattr(backbone, key):  # a network that is not derived from Backbone
            setattr(backbone, key, getattr(Backbone, key))
    backbone.plugin = name
    return backbone


def run_backbone(backbone: Backbone, cloud: Cloud, *shown: Tensor) -> Features:
    """The features of a batch of clouds; what a plug-in returns is checked.

    Args:
        backbone: any.
        cloud: N points.
        shown: features of images at the points and where they are seen, for a backbone that takes them.

    Raises:
        PluginError: a plug-in failed, or returned something else than Features of (N, out_channels).
    """
    name = getattr(backbone, "plugin", None)
    if name is None:
        built_in: Features = backbone(cloud, *shown)
        return built_in
    with errors_of(name, "forward(cloud)"):
        found = backbone(cloud, *shown)
    feat = getattr(found, "feat", None)
    wanted = (len(cloud), backbone.out_channels)
    if not isinstance(feat, Tensor) or tuple(feat.shape) != wanted:
        got = (
            type(found).__name__
            if feat is None
            else f"'feat' of {tuple(getattr(feat, 'shape', ()))}"
        )
        raise PluginError(
            f"{name}: forward(cloud) must return Features with 'feat' (N, out_channels) = {wanted}, got {got}"
        )
    return found
