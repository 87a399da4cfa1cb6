"""Encode every image of some splits once and cache the features; resumable by image."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import remove_leftovers
from pointseg.datasets.look_over import leave_out, look_over, tell_remarks
from pointseg.ditr import PointImages
from pointseg.images.config import require_whole_patches
from pointseg.images.features.encoder import weights_digest
from pointseg.images.features.feature_cache import STALE, VALID, FeatureCache
from pointseg.images.preprocess import load_images
from pointseg.images.projection import candidate_frames
from pointseg.images.readers.frame import Frame, ProvidesFrames

if TYPE_CHECKING:
    from dinomed3d.lifting import Encoder
    from pointseg.datasets.dataset import Dataset

READ_AHEAD = 2
"""Batches of images that are read while one is encoded."""
SPARE_BYTES = 64 * 2**20
"""Disk space that is left free."""


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Which images are encoded, with what, and where their features go."""

    dataset: Dataset
    """Its scenes have images."""
    encoder: Encoder
    """Image encoder, as ``open_encoder`` returns it."""
    name: str
    """Name of the encoder."""
    size: tuple[int, int]
    """Height and width to which images are resized, pixels."""
    taps: tuple[int, ...] = (-1,)
    """Blocks of the encoder that are read, as ``ImageConfig.taps``; the encoder is opened with them."""
    tile: int | None = None
    """Side of the tiles in which larger images are encoded, pixels. None: as a whole."""
    out: Path
    """Folder of caches; it is created if necessary."""
    max_views: int | None = 10
    """Images of each scene, evenly spread. None: all."""
    splits: tuple[str, ...] | None = None
    """Splits to encode. None: all splits of the dataset."""
    batch: int = 8
    """Images that are encoded at once."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    log: Callable[[str], None] = print
    """Receives notes."""
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Called with the number of encoded images, of all images, and the next scene."""

    def __post_init__(self) -> None:
        for option, value in (
            ("--image-size", min(self.size)),
            ("--batch", self.batch),
            ("--max-views", 1 if self.max_views is None else self.max_views),
        ):
            if value < 1:
                raise UserError(f"{option}: must be >= 1, got {value}")
        patch = self.encoder.stride
        require_whole_patches(self.size, patch, self.name, "--image-size {} {}")
        if self.tile is not None:
            require_whole_patches((self.tile, self.tile), patch, self.name, "--tile {}")


@dataclass
class SplitCounts:
    """Scenes and images of one split."""

    split: str
    scenes: int = 0
    """Number of scenes."""
    without_images: int = 0
    """Scenes that have no images."""
    kept: int = 0
    """Images whose features were cached before."""
    made: int = 0
    """Images that were encoded now."""
    stale: int = 0
    """Images that changed since they were encoded; they are encoded again."""


@dataclass(frozen=True, kw_only=True)
class CacheResult:
    """What was cached."""

    folder: Path
    """Folder of the features."""
    splits: tuple[SplitCounts, ...]
    """What was done for each split."""
    channels: int
    """Channels of the features."""
    bytes_per_image: int
    """Size of the features of one image."""
    seconds: float
    """Time spent encoding."""

    @property
    def images(self) -> int:
        """Number of images in the cache."""
        return sum(split.kept + split.made for split in self.splits)


@dataclass(frozen=True)
class _Job:
    """An image to encode."""

    counts: SplitCounts
    scene: str
    frame: Frame


def cache_features(spec: CacheSpec) -> CacheResult:
    """Encode the images of all scenes and cache their features; what is cached already is kept.

    Reports how many bytes it will write before the first image is read. Started again after an
    interruption it continues; images that changed in between are encoded again.

    Raises:
        UserError: a dataset without images, an unknown split; an image that is missing or damaged; not
            enough disk space; an existing cache with more images per scene.
    """
    if not hasattr(spec.dataset, "frames"):
        raise UserError(f"the dataset {spec.dataset.name} has no images")
    encoder = spec.encoder
    cache = FeatureCache(
        spec.out,
        encoder=spec.name,
        weights_sha256=weights_digest(encoder),
        size=spec.size,
        taps=spec.taps,
        tile=spec.tile,
        writable=True,
    )
    remove_leftovers([cache.folder, *cache.folder.glob("*/")])
    cache.set_metadata(spec.max_views, channels=encoder.all_channels, stride=encoder.stride)
    splits = [SplitCounts(name) for name in (spec.splits or spec.dataset.splits())]
    leave_out(spec.dataset, look_over(spec.dataset, [counts.split for counts in splits]), spec.log)
    tell_remarks(spec.dataset, spec.log)
    jobs = [job for counts in splits for job in _jobs(spec, cache, counts)]
    if not jobs and not any(counts.kept for counts in splits):
        raise UserError(
            f"{spec.dataset.name}: no scene of the splits {', '.join(c.split for c in splits)} has images"
        )
    cells = -(-spec.size[0] // encoder.stride) * -(-spec.size[1] // encoder.stride)
    size = 2 * encoder.all_channels * cells
    _check_disk(spec, splits, len(jobs), size)
    began = time.monotonic()
    _encode(spec, cache, jobs)
    return CacheResult(
        folder=cache.folder,
        splits=tuple(splits),
        channels=encoder.all_channels,
        bytes_per_image=size,
        seconds=time.monotonic() - began,
    )


def _jobs(spec: CacheSpec, cache: FeatureCache, counts: SplitCounts) -> Iterator[_Job]:
    """The images of a split without valid features, each once."""
    begun: set[Path] = set()
    limit = spec.max_views
    for scene in spec.dataset.scenes(counts.split):
        counts.scenes += 1
        frames = cast(ProvidesFrames, spec.dataset).frames(counts.split, scene)
        counts.without_images += not frames
        if limit is not None and len(frames) > limit:
            frames = candidate_frames(spec.dataset.load(counts.split, scene), frames, limit)
        for frame in frames:
            place = cache.path_of(frame)
            if place in begun:  # shared by several scenes
                continue
            begun.add(place)
            state = cache.state(frame)
            counts.kept += state == VALID
            counts.stale += state == STALE
            if state != VALID:
                yield _Job(counts, scene, frame)


def _encode(spec: CacheSpec, cache: FeatureCache, jobs: Sequence[_Job]) -> None:
    # The module that networks encode with, so that cached features are what they would compute.
    network = PointImages(
        spec.encoder,
        channels=spec.encoder.all_channels,
        stride=spec.encoder.stride,
        image_size=spec.size,
        tile=spec.tile,
    ).to(spec.device)
    done = 0
    for batch, keys, images in _read_ahead(spec, jobs):
        spec.progress(done, len(jobs), f"{batch[0].counts.split}/{batch[0].scene}")
        maps = network.encode(images.to(spec.device))
        for job, key, values in zip(batch, keys, maps.cpu(), strict=True):
            cache.put(job.frame, values, key=key)
            job.counts.made += 1
        done += len(batch)
    spec.progress(len(jobs), len(jobs), "")


def _read_ahead(
    spec: CacheSpec, jobs: Sequence[_Job]
) -> Iterator[tuple[Sequence[_Job], list[str], Tensor]]:
    """Batches of jobs with the keys and pixels of their images, read a little ahead in threads."""

    def read(batch: Sequence[_Job]) -> tuple[Sequence[_Job], list[str], Tensor]:
        keys = [job.frame.image.key() for job in batch]  # before reading: it may change meanwhile
        images = load_images([job.frame for job in batch], spec.size)[0]
        return batch, keys, torch.from_numpy(images)

    waiting: deque[Future[tuple[Sequence[_Job], list[str], Tensor]]] = deque()
    readers = ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="images")
    try:
        for at in range(0, len(jobs), spec.batch):
            waiting.append(readers.submit(read, jobs[at : at + spec.batch]))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def _check_disk(spec: CacheSpec, splits: Sequence[SplitCounts], count: int, size: int) -> None:
    """Report what will be written, and refuse it if the disk is too small."""
    free = shutil.disk_usage(spec.out).free
    kept, stale = sum(s.kept for s in splits), sum(s.stale for s in splits)
    text = f"{count} images to encode, {format_bytes(size * count)} to write; {format_bytes(free)} free"
    if kept:
        text += f"; {kept} are cached already"
    if stale:
        text += f"; {stale} changed since they were encoded"
    spec.log(text)
    if size * count + SPARE_BYTES > free:
        raise UserError(
            f"--out {spec.out}: needs {format_bytes(size * count)} for the features of {count} images, but the "
            f"disk has {format_bytes(free)} free; use fewer --max-views, a smaller --image-size or "
            "another --out"
        )


def format_bytes(count: float) -> str:
    """1500000 -> 1.5 MB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"
