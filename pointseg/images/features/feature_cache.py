"""Features of images on disk, each image encoded once: float16 maps, one file per image."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.image_files import moved_since

FORMAT = "pointseg-features-1"
DESCRIPTION = "cache.json"
VALID, STALE, MISSING = "valid", "stale", "missing"
LOOKED_AT = 20_000
"""Entries, at most, to say where an image was when it was encoded."""


class FeatureCache:
    """The feature maps of images for one encoder, its weights and one size of images.

    A folder of its own below ``root`` holds them: ``cache.json`` says what they are, and every image
    has a file with its map and the key of the image that it was made from. Files appear whole or not
    at all, so that any number of processes may read and write at once.
    """

    def __init__(
        self,
        root: Path,
        *,
        encoder: str,
        weights_sha256: str,
        size: Sequence[int],
        writable: bool = False,
    ) -> None:
        """Open a cache to read from, or also to write to.

        Args:
            root: where caches lie; may hold several.
            encoder: its name.
            weights_sha256: what ``encoding.weights_digest`` says of it.
            size: height and width to which images are resized before they are encoded.
            writable: whether what is missing or stale can be put; makes the folder.

        Raises:
            UserError: not writable, and there is no such cache (says which there are); a damaged
                description.
        """
        self.root = Path(root)
        self.encoder, self.weights_sha256 = encoder, weights_sha256
        self.size = (int(size[0]), int(size[1]))
        self.writable = writable
        name = f"{encoder}-{weights_sha256[:16]}-{self.size[0]}x{self.size[1]}"
        self.folder = self.root / name
        if not (self.folder / DESCRIPTION).is_file():
            if not writable:
                raise UserError(self._none())
            self._describe({})
        told = self._told = _described(self.folder)
        for key, value in self._identity().items():
            if told.get(key) != value:
                raise UserError(
                    f"{self.folder / DESCRIPTION}: '{key}' is {told.get(key)!r} where {value!r} is needed; it "
                    f"was not written for this folder: delete the folder and run pointseg-cache-features again"
                )

    @property
    def views(self) -> int | None:
        """Images of a scene that are held at most; None: all of them."""
        views: int | None = self._told.get("views")
        return views

    @property
    def channels(self) -> int:
        """Of the maps.

        Raises:
            UserError: nothing was put yet.
        """
        return self._number("channels")

    @property
    def stride(self) -> int:
        """Side of a map's cells, pixels.

        Raises:
            UserError: nothing was put yet.
        """
        return self._number("stride")

    def set_metadata(self, views: int | None, *, channels: int, stride: int) -> None:
        """Say what is going to be put: so many views of each scene; maps of what form.

        Raises:
            UserError: not writable; it holds more views of each scene already.
        """
        self._check_writable()
        told = self._told = _described(self.folder)
        if "views" in told and _fewer(views, told["views"]):
            raise UserError(
                f"{self.folder}: holds {_count(told['views'])} of each scene; give as many or more (--views), "
                f"or another --out, for fewer"
            )
        form = {"views": views, "channels": channels, "stride": stride}
        if any(key not in told or told[key] != value for key, value in form.items()):
            self._describe(form)

    def path_of(self, frame: Frame) -> Path:
        """The file of an image, by where the image lies and not by what it shows."""
        digest = hashlib.sha256(os.path.abspath(str(frame.image)).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:34]}.safetensors"

    def state(self, frame: Frame) -> str:
        """valid, stale (made from another content of this image, or damaged) or missing.

        Raises:
            UserError: the image itself is missing.
        """
        path = self.path_of(frame)
        if not path.is_file():
            return MISSING
        try:
            with safe_open(path, framework="pt") as held:
                fits = (held.metadata() or {}).get("image") == frame.image.key()
        except (OSError, SafetensorError):
            return STALE
        return VALID if fits else STALE

    def get(self, frame: Frame) -> Tensor | None:
        """(C, h, w) float16 features of an image; None where missing or stale.

        Raises:
            UserError: the image itself is missing.
        """
        try:
            with safe_open(self.path_of(frame), framework="pt") as held:
                if (held.metadata() or {}).get("image") != frame.image.key():
                    return None
                values: Tensor = held.get_tensor("features")
        except (OSError, SafetensorError):
            return None
        return values

    def explain_missing(self, frame: Frame) -> str:
        """Why there are no features of an image, and what to do.

        Raises:
            UserError: the image itself is missing.
        """
        again = "add them with pointseg-cache-features (the same command again keeps the others)"
        if self.state(frame) == STALE:
            return (
                f"{self.folder}: its features of the image {frame.name} are of another content or time of "
                f"{frame.image}; {again}"
            )
        moved = moved_since(frame.image.key(), self._held_keys())
        why = moved or "if the data was moved or copied, images are to be encoded again"
        return (
            f"{self.folder}: holds no features of the image {frame.name} ({frame.image}), and nothing made at "
            f"this place; {why}: {again}"
        )

    def _held_keys(self) -> Iterator[str]:
        """Of some images that there are features of."""
        for path in itertools.islice(self.folder.glob("*/*.safetensors"), LOOKED_AT):
            try:
                with safe_open(path, framework="pt") as held:
                    yield (held.metadata() or {}).get("image", "")
            except (OSError, SafetensorError):
                continue

    def put(self, frame: Frame, features: Tensor, *, key: str | None = None) -> None:
        """Keep the features of an image, in place of any that are there.

        Args:
            frame: the image.
            features: (C, h, w).
            key: of the image when it was read; None: as it is now.

        Raises:
            UserError: not writable, a full disk, features that float16 cannot hold.
            ValueError: not (C, h, w).
        """
        self._check_writable()
        if features.dim() != 3:
            raise ValueError(
                f"FeatureCache.put: 'features' must be (C, h, w), got {tuple(features.shape)}"
            )
        values = features.detach().to("cpu", torch.float16).contiguous()
        if not bool(values.isfinite().all()):
            raise UserError(
                f"{frame.image}: its features are not finite or beyond what float16 holds (65504); are these "
                f"the right weights?"
            )
        told = {"format": FORMAT, "image": key or frame.image.key(), "frame": frame.name}
        with new_file(self.path_of(frame)) as part:
            try:
                save_file({"features": values}, part, told)
            except SafetensorError as error:  # what the system refuses comes in this form, too
                raise OSError(str(error)) from error

    def _check_writable(self) -> None:
        if not self.writable:
            raise UserError(f"{self.folder}: this cache was opened to be read, not written")

    def _identity(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "encoder": self.encoder,
            "weights_sha256": self.weights_sha256,
            "size": list(self.size),
        }

    def _describe(self, form: dict[str, Any]) -> None:
        self._told = {**self._identity(), "dtype": "float16", **form}
        with new_file(self.folder / DESCRIPTION) as part:
            part.write_text(json.dumps(self._told, indent=1), encoding="utf-8")

    def _number(self, key: str) -> int:
        number = self._told.get(key)
        if not isinstance(number, int):
            raise UserError(f"{self.folder}: holds no features yet; run pointseg-cache-features")
        return number

    def _none(self) -> str:
        """Why there is no such cache."""
        start = f"{self.root}: holds no features"
        wanted = (
            f"of {self.encoder} with {self.weights_sha256[:16]} weights for images of {self.size[0]} x "
            f"{self.size[1]} (height x width)"
        )
        found = _folders(self.root)
        if not found:
            return f"{start}; make them with pointseg-cache-features"
        told = [_described(folder) for folder in found]
        held = "; ".join(
            f"{t.get('encoder')}, weights {str(t.get('weights_sha256'))[:16]}, "
            f"{' x '.join(map(str, t.get('size', [])))}"
            for t in told[:4]
        )
        alike = [t for t in told if t.get("encoder") == self.encoder]
        what = "another encoder"
        if any(t.get("weights_sha256") == self.weights_sha256 for t in alike):
            what = "another size of images"
        elif any(t.get("size") == list(self.size) for t in alike):
            what = "other weights of this encoder: it is stale"
        elif alike:
            what = "another size of images"
        return (
            f"{start} {wanted}. What is there is for {what} ({held}); run pointseg-cache-features "
            f"again with these weights and this size"
        )


def find_cache(
    root: Path, *, encoder: str, size: Sequence[int], weights_sha256: str | None = None
) -> FeatureCache:
    """The one cache below a folder that has features of an encoder for a size of images, to read.

    Args:
        root: where caches lie.
        encoder: its name.
        size: height and width of the images.
        weights_sha256: of the encoder; None: whichever are there.

    Raises:
        UserError: there is none; without ``weights_sha256``, there are several.
    """
    if weights_sha256 is None:
        alike = [
            told
            for told in map(_described, _folders(root))
            if (told.get("encoder"), told.get("size")) == (encoder, list(size))
        ]
        if len(alike) > 1:
            found = ", ".join(str(told.get("weights_sha256"))[:16] for told in alike)
            raise UserError(
                f"{root}: holds features of several sets of weights of {encoder} ({found}); keep one of its "
                f"folders, or give each a place of its own (--out of pointseg-cache-features)"
            )
        weights_sha256 = str(alike[0].get("weights_sha256")) if alike else "any"
    return FeatureCache(root, encoder=encoder, weights_sha256=weights_sha256, size=size)


def _folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in Path(root).glob(f"*/{DESCRIPTION}"))


def _described(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete the folder and run pointseg-cache-features again"
        ) from error
    if not isinstance(told, dict):
        raise UserError(f"{path}: is not what pointseg-cache-features writes; delete its folder")
    return told


def _fewer(views: int | None, held: int | None) -> bool:
    return views is not None and (held is None or views < held)


def _count(views: int | None) -> str:
    return "all images" if views is None else f"{views} images"
