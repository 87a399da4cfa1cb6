"""By which rule images show points: what datasets differ in, of how their images take part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pointseg.images.config import ImageRecipe

RULE = ("views", "near_m", "far_m", "margin_m", "occlusion")
"""Fields of an ImageRecipe that decide, with the size, which points are seen."""


def rule_of(images: ImageRecipe) -> dict[str, Any]:
    """The rule by name, for reports."""
    return {"size": list(images.size), **{name: getattr(images, name) for name in RULE}}


def by_rule_of(images: ImageRecipe, other: ImageRecipe) -> ImageRecipe:
    """An image recipe with another's rule; encoder and size of images stay."""
    return replace(images, **{name: getattr(other, name) for name in RULE})


def rule_in_words(images: ImageRecipe) -> str:
    """The rule on one line."""
    height, width = images.size
    views = "all images" if images.views is None else f"up to {images.views} images"
    near, far = images.near_m, images.far_m
    if far is not None:
        away = f"{near:g} to {far:g} m away"
    else:
        away = f"{near:g} m away or more" if near else "at any distance"
    hidden = {
        "depth": f"depth maps, where there are any, within {images.margin_m:g} m",
        "z-buffer": f"depth maps, or else the cloud itself, within {images.margin_m:g} m",
        "none": "nothing hides a point",
    }[images.occlusion]
    return f"{views} of {height} x {width} pixels, {away}, {hidden}"
