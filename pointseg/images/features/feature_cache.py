"""Cache of image features on disk: each image is encoded once, into a file with a float16 feature map."""

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

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.array_checksum import array_checksum
from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.image_files import explain_changed_key

FORMAT = "pointseg-features-1"
METADATA = "cache.json"
VALID, STALE, MISSING = "valid", "stale", "missing"
WORDS = {
    "encoder": "encoder", "weights_sha256": "weights", "size": "image size", "taps": "blocks", "tile": "tiles",
}  # fmt: skip
"""What the features of a cache depend on, in words."""
DEFAULTS = {"taps": [-1], "tile": None}
"""What older caches do not say."""
MAX_COMPARED = 20_000
"""Entries, at most, that are compared to find where an image was when it was encoded."""


class FeatureCache:
    """The feature maps of images for one encoder, its weights and one image size.

    They are in a folder of their own below ``root``: ``cache.json`` describes them, and each image has a file
    with its map and the key of the image that was encoded. Files appear when they are complete, so that any
    number of processes may read and write at the same time.
    """

    def __init__(
        self,
        root: Path,
        *,
        encoder: str,
        weights_sha256: str,
        size: Sequence[int],
        taps: Sequence[int] = (-1,),
        tile: int | None = None,
        writable: bool = False,
    ) -> None:
        """Open a cache.

        Args:
            root: folder that may hold several caches.
            encoder: name of the encoder.
            weights_sha256: digest of its weights (``weights_digest``).
            size: height and width to which images are resized before they are encoded.
            taps: blocks of the encoder that are read, as ``ImageConfig.taps``.
            tile: side of the tiles in which images are encoded, pixels; None: as a whole.
            writable: whether features can be added; creates the folder.

        Raises:
            UserError: it is not writable and does not exist (the message lists those that do); its
                metadata is damaged.
        """
        self.root = Path(root)
        self.encoder, self.weights_sha256 = encoder, weights_sha256
        self.size = (int(size[0]), int(size[1]))
        self.taps, self.tile, self.writable = tuple(taps), tile, writable
        name = f"{encoder}-{weights_sha256[:16]}-{self.size[0]}x{self.size[1]}"
        if self.taps != (-1,):
            name += f"-blocks_{'_'.join(map(str, self.taps))}"
        if tile is not None:
            name += f"-tile_{tile}"
        self.folder = self.root / name
        self._compared: set[tuple[str, int]] = set()
        """Files, and when they were changed, that were compared with their checksums."""
        if not (self.folder / METADATA).is_file():
            if not writable:
                raise UserError(self._explain_absent())
            self._write_metadata({})
        self._metadata = _read_metadata(self.folder)
        for key, value in self._identity().items():
            if _value(self._metadata, key) != value:
                raise UserError(
                    f"{self.folder / METADATA}: '{key}' must be {value!r}, is {self._metadata.get(key)!r}; delete "
                    f"the folder and run pointseg-cache-features again"
                )

    @property
    def views(self) -> int | None:
        """Maximum number of cached images per scene; None: all of them."""
        views: int | None = self._metadata.get("views")
        return views

    @property
    def channels(self) -> int:
        """Channels of the maps.

        Raises:
            UserError: the cache is empty.
        """
        return self._number("channels")

    @property
    def stride(self) -> int:
        """Side of a cell of the maps in pixels.

        Raises:
            UserError: the cache is empty.
        """
        return self._number("stride")

    def set_metadata(self, views: int | None, *, channels: int, stride: int) -> None:
        """Describe the features that will be added.

        Args:
            views: most images of a scene; None: all.
            channels: of the maps.
            stride: side of a cell in pixels.

        Raises:
            UserError: the cache is not writable, or has more images of each scene already.
        """
        self._require_writable()
        found = self._metadata = _read_metadata(self.folder)
        held = found.get("views")
        if "views" in found and views is not None and (held is None or views < held):
            count = "all images" if held is None else f"{held} images"
            raise UserError(
                f"{self.folder}: holds {count} of each scene; give at least as many (--max-views), "
                "or another --out"
            )
        form = {"views": views, "channels": channels, "stride": stride}
        if {key: found.get(key) for key in form} != form or "views" not in found:
            self._write_metadata(form)

    def path_of(self, frame: Frame) -> Path:
        """The file of an image, which depends on the image's path and not on its content."""
        digest = hashlib.sha256(os.path.abspath(str(frame.image)).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:34]}.safetensors"

    def state(self, frame: Frame) -> str:
        """valid, stale (of another content of the image, or damaged) or missing.

        Raises:
            UserError: the image itself is missing.
        """
        path = self.path_of(frame)
        if not path.is_file():
            return MISSING
        if _key_of(path) != frame.image.key():
            return STALE
        return STALE if self.get(frame) is None else VALID

    def get(self, frame: Frame) -> Tensor | None:
        """(C, h, w) float16 features of an image; None if missing, stale or damaged.

        They are compared with their checksum once in a process; files of older versions have none.

        Raises:
            UserError: the image itself is missing.
        """
        path = self.path_of(frame)
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                if metadata.get("image") != frame.image.key():
                    return None
                values: Tensor = stored.get_tensor("features")
            state = path.name, path.stat().st_mtime_ns
        except (OSError, SafetensorError):
            return None
        if state not in self._compared:
            if "checksum" in metadata and metadata["checksum"] != array_checksum(values.numpy()):
                return None
            self._compared.add(state)
        return values

    def put(self, frame: Frame, features: Tensor, *, key: str | None = None) -> None:
        """Store the features of an image, replacing earlier ones.

        Args:
            frame: the image.
            features: (C, h, w).
            key: key of the image when it was read; None: its present key.

        Raises:
            UserError: the cache is not writable, the disk is full, or float16 cannot represent the features.
            ValueError: they are not (C, h, w).
        """
        self._require_writable()
        if features.dim() != 3:
            raise ValueError(
                f"FeatureCache.put: 'features' must be (C, h, w), got {tuple(features.shape)}"
            )
        values = features.detach().to("cpu", torch.float16).contiguous()
        if not bool(values.isfinite().all()):
            raise UserError(
                f"{frame.image}: its features are not finite in float16 (at most 65504); check the weights"
            )
        metadata = {
            "format": FORMAT,
            "image": key or frame.image.key(),
            "frame": frame.name,
            "checksum": array_checksum(values.numpy()),
        }
        with new_file(self.path_of(frame)) as part:
            try:
                save_file({"features": values}, part, metadata)
            except SafetensorError as error:  # system errors come in this form, too
                raise OSError(str(error)) from error

    def explain_missing(self, frame: Frame) -> str:
        """Why there are no features of an image, and what to do.

        Raises:
            UserError: the image itself is missing.
        """
        add = "add them with pointseg-cache-features (the same command keeps the others)"
        if self.state(frame) == STALE:
            if _key_of(self.path_of(frame)) == frame.image.key():
                return f"{self.path_of(frame)}: the features of the image {frame.name} are damaged; {add}"
            return (
                f"{self.folder}: its features of the image {frame.name} are of another content or time of "
                f"{frame.image}; {add}"
            )
        paths = itertools.islice(self.folder.glob("*/*.safetensors"), MAX_COMPARED)
        moved = explain_changed_key(frame.image.key(), map(_key_of, paths))
        why = moved or "if the data was moved or copied, its images must be encoded again"
        return f"{self.folder}: has no features of the image {frame.name} ({frame.image}); {why}: {add}"

    def _require_writable(self) -> None:
        if not self.writable:
            raise UserError(f"{self.folder}: this cache was opened for reading, not for writing")

    def _identity(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "encoder": self.encoder,
            "weights_sha256": self.weights_sha256,
            "size": list(self.size),
            "taps": list(self.taps),
            "tile": self.tile,
        }

    def _write_metadata(self, form: dict[str, Any]) -> None:
        self._metadata = {**self._identity(), "dtype": "float16", **form}
        with new_file(self.folder / METADATA) as part:
            part.write_text(json.dumps(self._metadata, indent=1), encoding="utf-8")

    def _number(self, key: str) -> int:
        number = self._metadata.get(key)
        if not isinstance(number, int):
            raise UserError(f"{self.folder}: is empty; run pointseg-cache-features")
        return number

    def _explain_absent(self) -> str:
        """Why there is no such cache, and which there are."""
        wanted = self._identity()
        found = list(_caches(self.root))
        if not found:
            return f"{self.root}: has no cached features; make them with pointseg-cache-features"
        nearest = min(found, key=lambda one: sum(_value(one, k) != v for k, v in wanted.items()))
        other = [word for key, word in WORDS.items() if _value(nearest, key) != wanted[key]]
        listed = "; ".join(map(_in_words, found[:4]))
        return (
            f"{self.root}: has no features of {_in_words(wanted)}. There are {listed}: another "
            f"{' and '.join(other)}; run pointseg-cache-features again with what is needed"
        )


def find_cache(
    root: Path,
    *,
    encoder: str,
    size: Sequence[int],
    taps: Sequence[int] = (-1,),
    tile: int | None = None,
    weights_sha256: str | None = None,
) -> FeatureCache:
    """Open the one cache below a folder for an encoder and an image size, for reading.

    Args:
        root: folder of caches.
        encoder: name of the encoder.
        size: height and width of the images.
        taps: blocks of the encoder that are read.
        tile: side of the tiles in which images are encoded, pixels; None: as a whole.
        weights_sha256: digest of its weights; None: any.

    Raises:
        UserError: there is none; without ``weights_sha256``, there are several.
    """
    if weights_sha256 is None:
        same_encoder = [one for one in _caches(root) if one.get("encoder") == encoder]
        compatible = [
            str(one.get("weights_sha256"))
            for one in same_encoder
            if [_value(one, key) for key in ("size", "taps", "tile")]
            == [list(size), list(taps), tile]
        ]
        if len(compatible) > 1:
            raise UserError(
                f"{root}: has features of several sets of weights of {encoder} "
                f"({', '.join(digest[:16] for digest in compatible)}); keep one of its folders, or give each "
                f"an --out of its own"
            )
        digests = [*compatible, *(str(one.get("weights_sha256")) for one in same_encoder), "any"]
        weights_sha256 = digests[0]
    return FeatureCache(
        root, encoder=encoder, weights_sha256=weights_sha256, size=size, taps=taps, tile=tile
    )


def _value(metadata: dict[str, Any], key: str) -> Any:
    return metadata.get(key, DEFAULTS.get(key))


def _caches(root: Path) -> Iterator[dict[str, Any]]:
    """Metadata of the caches below a folder."""
    for path in sorted(Path(root).glob(f"*/{METADATA}")):
        yield _read_metadata(path.parent)


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("must be an object")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete the folder and run pointseg-cache-features again"
        ) from error
    return found


def _key_of(path: Path) -> str:
    """Key of the image whose features are in a file; "" if it is damaged."""
    try:
        with safe_open(path, framework="pt") as stored:
            key: str = (stored.metadata() or {}).get("image", "")
    except (OSError, SafetensorError):
        return ""
    return key


def _in_words(metadata: dict[str, Any]) -> str:
    size = " x ".join(map(str, metadata.get("size", [])))
    words = f"{metadata.get('encoder')}, weights {str(metadata.get('weights_sha256'))[:16]}, {size}"
    if (taps := _value(metadata, "taps")) != DEFAULTS["taps"]:
        words += f", blocks {taps}"
    tile = _value(metadata, "tile")
    return words if tile is None else f"{words}, tiles of {tile}"
