"""Filling a cache of features: every image of some splits is encoded once; resumable by image."""

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

from dinomed3d.runtime.errors import UserError
from pointseg.ditr import PointImages
from pointseg.images.features.encoder import weights_digest
from pointseg.images.features.feature_cache import MISSING, STALE, VALID, FeatureCache
from pointseg.images.preprocess import load_images
from pointseg.images.projection import candidate_frames
from pointseg.images.readers.frame import Frame

if TYPE_CHECKING:
    from dinomed3d.lifting import Encoder
    from pointseg.datasets.dataset import Dataset

AHEAD = 2
"""Batches that are read while one is encoded."""
SPARE = 64 * 2**20
"""Bytes of the disk that are left free."""


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Which images are encoded by what, and where their features go."""

    dataset: Dataset
    encoder: Encoder
    """As ``encoding.open_encoder`` gives it."""
    name: str
    """Of the encoder."""
    size: tuple[int, int]
    """Height and width to which images are resized."""
    out: Path
    """Folder of caches; made if need be."""
    views: int | None = 10
    """Images of one scene, evenly spread; None: all."""
    splits: tuple[str, ...] | None = None
    """None: all of the dataset."""
    batch: int = 8
    """Images at once."""
    device: str = "cpu"
    log: Callable[[str], None] = print
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Told how many images are done, of how many, and of which scene the next ones are."""

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise UserError(f"--size: must be at least 1 pixel, got {self.size}")
        if self.batch < 1 or (self.views is not None and self.views < 1):
            raise UserError(f"--batch, --views: must be >= 1, got {self.batch} and {self.views}")


@dataclass(frozen=True, kw_only=True)
class Cached:
    """What was done for one split."""

    split: str
    scenes: int
    without_images: int
    """Scenes that have none."""
    kept: int
    """Images whose features were there."""
    made: int
    """Images that were encoded."""
    stale: int
    """How many of these had features of another content."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What was done."""

    folder: Path
    splits: tuple[Cached, ...]
    channels: int
    bytes_per_image: int
    seconds: float
    """Spent encoding."""


@dataclass
class _Split:
    name: str
    scenes: int = 0
    without_images: int = 0
    kept: int = 0
    stale: int = 0
    made: int = 0

    def told(self) -> Cached:
        return Cached(
            split=self.name,
            scenes=self.scenes,
            without_images=self.without_images,
            kept=self.kept,
            made=self.made,
            stale=self.stale,
        )


@dataclass(frozen=True)
class _Task:
    """An image that is to be encoded."""

    split: _Split
    scene: str
    frame: Frame


def cache_features(spec: CacheSpec) -> Filled:
    """Encode the images of the pools of all scenes, and keep the features; what is there is kept.

    Says how many bytes it will write before the first image is read. Stopped and started again it goes
    on where it was; images that changed since are encoded anew.

    Raises:
        UserError: a dataset without images, an unknown split; an image that is missing or damaged; a disk
            that has not enough room; a cache there with more views of each scene.
    """
    if not hasattr(spec.dataset, "frames"):
        raise UserError(f"the dataset {spec.dataset.name} has no images")
    cache = FeatureCache(
        spec.out,
        encoder=spec.name,
        weights_sha256=weights_digest(spec.encoder),
        size=spec.size,
        writable=True,
    )
    cache.set_metadata(spec.views, channels=spec.encoder.channels, stride=spec.encoder.stride)
    splits = [_Split(name) for name in (spec.splits or spec.dataset.splits())]
    tasks = [task for split in splits for task in _tasks(spec, cache, split)]
    if not any(split.kept for split in splits) and not tasks:
        raise UserError(
            f"{spec.dataset.name}: no scene of the splits {', '.join(s.name for s in splits)} has images"
        )
    size = _bytes_per_image(spec)
    _announce(spec, splits, len(tasks), size)
    # what networks encode with, so that maps kept are the maps that they would have made
    network = PointImages(
        spec.encoder,
        channels=spec.encoder.channels,
        stride=spec.encoder.stride,
        image_size=spec.size,
    ).to(spec.device)
    began, done = time.monotonic(), 0
    for batch, keys, images in _read(spec, tasks):
        spec.progress(done, len(tasks), f"{batch[0].split.name}/{batch[0].scene}")
        maps = network.encode(images.to(spec.device))
        for task, key, values in zip(batch, keys, maps.cpu(), strict=True):
            cache.put(task.frame, values, key=key)
            task.split.made += 1
        done += len(batch)
    spec.progress(len(tasks), len(tasks), "")
    return Filled(
        folder=cache.folder,
        splits=tuple(split.told() for split in splits),
        channels=spec.encoder.channels,
        bytes_per_image=size,
        seconds=time.monotonic() - began,
    )


def _tasks(spec: CacheSpec, cache: FeatureCache, split: _Split) -> Iterator[_Task]:
    """The images of a split that have no features yet, each once."""
    from pointseg.images.readers.frame import ProvidesFrames

    begun: set[Path] = set()
    for scene in spec.dataset.scenes(split.name):
        split.scenes += 1
        frames = cast(ProvidesFrames, spec.dataset).frames(split.name, scene)
        split.without_images += not frames
        if spec.views is not None and len(frames) > spec.views:
            frames = candidate_frames(spec.dataset.load(split.name, scene), frames, spec.views)
        for frame in frames:
            place = cache.path_of(frame)
            if place in begun:  # shared by scenes
                continue
            begun.add(place)
            state = cache.state(frame)
            assert state in (VALID, STALE, MISSING)
            split.kept += state == VALID
            split.stale += state == STALE
            if state != VALID:
                yield _Task(split, scene, frame)


def _read(
    spec: CacheSpec, tasks: Sequence[_Task]
) -> Iterator[tuple[Sequence[_Task], list[str], torch.Tensor]]:
    """Batches of tasks with the keys and the pixels of their images, read a little ahead."""

    def read(batch: Sequence[_Task]) -> tuple[list[str], torch.Tensor]:
        keys = [task.frame.image.key() for task in batch]  # before reading: it may change meanwhile
        return keys, torch.from_numpy(load_images([t.frame for t in batch], spec.size)[0])

    batches = (tasks[at : at + spec.batch] for at in range(0, len(tasks), spec.batch))
    waiting: deque[tuple[Sequence[_Task], Future[tuple[list[str], torch.Tensor]]]] = deque()
    readers = ThreadPoolExecutor(AHEAD, thread_name_prefix="images")
    try:
        for batch in batches:
            waiting.append((batch, readers.submit(read, batch)))
            if len(waiting) > AHEAD:
                held, found = waiting.popleft()
                yield held, *found.result()
        while waiting:
            held, found = waiting.popleft()
            yield held, *found.result()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def _bytes_per_image(spec: CacheSpec) -> int:
    cells = -(-spec.size[0] // spec.encoder.stride) * -(-spec.size[1] // spec.encoder.stride)
    return 2 * spec.encoder.channels * cells


def _announce(spec: CacheSpec, splits: Sequence[_Split], count: int, size: int) -> None:
    """Say what comes, and whether the disk has room."""
    free = shutil.disk_usage(spec.out).free
    kept, stale = sum(s.kept for s in splits), sum(s.stale for s in splits)
    told = f"{count} images to encode, {told_bytes(size * count)} to write; {told_bytes(free)} free"
    if kept:
        told += f"; {kept} are there"
    if stale:
        told += f"; {stale} changed since they were encoded"
    spec.log(told)
    if size * count + SPARE > free:
        raise UserError(
            f"{spec.out}: needs {told_bytes(size * count)} for the features of {count} images, but the disk "
            f"has {told_bytes(free)} free; take fewer --views, a smaller --size or another --out"
        )


def told_bytes(count: float) -> str:
    """1500000 -> 1.5 MB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"
