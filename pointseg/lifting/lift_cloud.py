"""Lift features of posed images onto the points of a file, and write them: the run of ``pointseg-lift``."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file
from dinomed3d.runtime.hardware.memory import free_bytes
from pointseg.evaluation.saved_labels import write_json
from pointseg.files import check_painted, write_painted
from pointseg.images.config import require_whole_patches
from pointseg.images.features.encoder import weights_digest
from pointseg.images.projection import candidate_frames
from pointseg.lifting.colouring import Colouring, PcaColouring, SimilarityColouring, sampled
from pointseg.lifting.encoding import EncodedViews, encoded_size
from pointseg.lifting.feature_file import Blocks, of_array, write_feature_file
from pointseg.lifting.kept_arrays import KeptArrays
from pointseg.lifting.pick import Picked, find_picked, require_seen
from pointseg.lifting.picture import draw_lifted
from pointseg.lifting.source import LiftSource, read_source
from pointseg.lifting.spec import LiftResult, LiftSpec
from pointseg.lifting.views import Views, find_views, lift_rows

BLOCK_BYTES = 1 << 27
"""Features that are fused at a time."""
KEPT_BYTES = 1 << 30
"""Memory for projections and for feature maps, each, at most; the rest is in temporary files."""


def lift_cloud(spec: LiftSpec) -> LiftResult:
    """Lift, write the result, its record (``.json``) and a picture.

    Raises:
        UserError: a cloud, cameras or weights that cannot be read; no point in any image; a picked point that
            no image shows; a result that exists, that does not fit on the disk or that its type cannot hold.
    """
    began = time.monotonic()
    _check_out(spec)
    source = read_source(spec.cloud, spec.cameras, unit_m=spec.unit_m, up=spec.up, say=spec.say)
    if not spec.writes_features:
        check_painted(source.scene, spec.out)
    picked = None if spec.pick is None else find_picked(source.scene, spec.pick)
    spec.out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        limit = min(KEPT_BYTES, free_bytes() // 4)
        shown, maps = (stack.enter_context(KeptArrays(limit, spec.out.parent)) for _ in range(2))
        encoder = spec.open_encoder()
        if spec.image_size is not None:
            require_whole_patches(
                spec.image_size, encoder.stride, spec.encoder, "--image-size {} {}"
            )
        frames = candidate_frames(source.cloud, source.frames, spec.max_views)
        views = find_views(
            source.cloud,
            frames,
            spec.visibility,
            lambda size: spec.image_size or encoded_size(size, encoder.stride),
            shown,
            step=partial(spec.phase, "projecting"),
        )
        job = _Job(spec, source, views, picked)
        job.check_disk(encoder.channels)
        encoded = EncodedViews(
            views, encoder, maps, device=spec.device, step=partial(spec.phase, "encoding")
        )
        job.write(encoded, weights_digest(encoder))
    return LiftResult(
        points=len(source.scene),
        seen=int(views.seen.sum()),
        views=len(views),
        frames=len(source.frames),
        shown=int(views.counts.sum()),
        channels=encoded.channels,
        seconds=time.monotonic() - began,
        picked="" if picked is None else str(picked),
    )


def _check_out(spec: LiftSpec) -> None:
    if spec.out.exists() and spec.cloud.exists() and spec.out.samefile(spec.cloud):
        raise UserError(f"-o {spec.out}: would replace the cloud; choose another name")
    if spec.out.exists() and not spec.overwrite:
        raise UserError(f"-o {spec.out}: exists; choose another name, or replace it (--overwrite)")
    if spec.per_view and not spec.writes_features:
        raise UserError(f"-o {spec.out}: must end in .npz or .safetensors with --per-view")


class _Job:
    """Fuses block by block and writes what was asked for."""

    def __init__(
        self, spec: LiftSpec, source: LiftSource, views: Views, picked: Picked | None
    ) -> None:
        self.spec, self.source, self.views, self.picked = spec, source, views, picked
        self.counts = np.zeros(len(source.scene), np.int32)
        self.counts[source.index] = views.counts
        if picked is not None:
            require_seen(source.scene, picked, self.counts > 0)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of written features."""
        return np.dtype(np.float16 if self.spec.half else np.float32)

    def check_disk(self, channels: int) -> None:
        """Refuse features that do not fit on the disk."""
        if not self.spec.writes_features:
            return
        rows = int(self.counts.sum()) if self.spec.per_view else len(self.counts)
        needed = rows * channels * self.dtype.itemsize
        free = shutil.disk_usage(self.spec.out.parent).free
        if needed > free:
            raise UserError(
                f"-o {self.spec.out}: {channels} features of {rows} points need {needed / 1e9:.1f} GB, only "
                f"{free / 1e9:.1f} GB are free there; choose another disk, or half the size with --dtype float16"
            )

    def write(self, encoded: EncodedViews, digest: str) -> None:
        """Write the result, the record and the picture."""
        colouring = self.colouring(encoded)
        spec = self.spec
        if spec.per_view:
            write_feature_file(spec.out, self.per_view(encoded), self.about(digest))
            for _ in self.blocks(encoded, colouring) if spec.picture else ():
                pass
        elif spec.writes_features:
            write_feature_file(spec.out, self.fused(encoded, colouring), self.about(digest))
        else:
            for _ in self.blocks(encoded, colouring):
                pass
            fields: dict[str, NDArray[Any]] = {
                "views": self.counts.astype(np.uint16),
                **colouring.fields(),
            }
            write_painted(spec.cloud, spec.out, self.source.scene, colouring.colors(), fields)
        write_json(spec.record_file, self.record(digest))
        if spec.picture:
            self.draw(colouring)

    def colouring(self, encoded: EncodedViews) -> Colouring:
        """How points are coloured."""
        count = len(self.counts)

        def features_of(rows: NDArray[np.int64]) -> Tensor:
            return lift_rows(
                self.views, encoded, rows, fuse=self.spec.fuse, sample=self.spec.sample
            )

        if self.picked is None:
            return PcaColouring(count, sampled(self.views.seen, features_of))
        row = np.searchsorted(self.source.index, [self.picked.row])
        return SimilarityColouring(count, features_of(row)[0])

    def blocks(self, encoded: EncodedViews, colouring: Colouring) -> Iterator[NDArray[np.float32]]:
        """Fused features of all points of the file, some at a time; each block is coloured."""
        spec, index = self.spec, self.source.index
        step = max(1, BLOCK_BYTES // (4 * encoded.channels))
        total = -(-len(self.counts) // step)
        for number, start in enumerate(range(0, len(self.counts), step)):
            spec.phase("lifting", number, total)
            stop = min(start + step, len(self.counts))
            first, last = np.searchsorted(index, (start, stop))
            block = np.zeros((stop - start, encoded.channels), np.float32)
            if first < last:
                rows = np.arange(first, last)
                found = lift_rows(self.views, encoded, rows, fuse=spec.fuse, sample=spec.sample)
                block[index[rows] - start] = found.cpu().numpy()
                seen = self.views.seen[rows]
                colouring.add(index[rows[seen]], found[seen])
            yield self.checked(block)
        spec.phase("lifting", total, total)

    def checked(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features that the type of the file can hold."""
        if self.spec.half and np.abs(block).max(initial=0) > np.finfo(np.float16).max:
            raise UserError("--dtype float16: cannot hold these features; use float32")
        return block

    def fused(self, encoded: EncodedViews, colouring: Colouring) -> dict[str, Blocks]:
        """The arrays of a file of fused features."""
        shape = (len(self.counts), encoded.channels)
        return {
            "feat": Blocks(shape, self.dtype, self.blocks(encoded, colouring)),
            **{name: of_array(values) for name, values in colouring.fields().items()},
            **self.per_point(),
        }

    def per_point(self) -> dict[str, Blocks]:
        """Positions of the file's points, and which are seen."""
        return {
            "coord": of_array(self.source.coordinates),
            "seen": of_array(self.counts > 0),
            "views": of_array(self.counts),
        }

    def per_view(self, encoded: EncodedViews) -> dict[str, Blocks]:
        """The arrays of a file with the features of each view."""
        arrays: dict[str, Blocks] = {}
        for view in range(len(self.views)):
            rows = self.views.shown(view).rows
            arrays[f"feat_{view:04d}"] = Blocks(
                (len(rows), encoded.channels), self.dtype, self.view_blocks(encoded, view)
            )
            arrays[f"rows_{view:04d}"] = of_array(self.source.index[rows].astype(np.int32))
        return {**arrays, **self.per_point()}

    def view_blocks(self, encoded: EncodedViews, view: int) -> Iterator[NDArray[np.float32]]:
        """Features that one view shows, some at a time."""
        self.spec.phase("lifting views", view, len(self.views))
        rows, step = self.views.shown(view).rows, BLOCK_BYTES // (4 * encoded.channels)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            found = lift_rows(
                self.views, encoded, some, fuse="last", sample=self.spec.sample, only=view
            )
            yield self.checked(found.cpu().numpy())

    def about(self, digest: str) -> dict[str, str]:
        """What a file of features says about itself."""
        spec = self.spec
        fused = "no" if spec.per_view else spec.fuse
        return {"encoder": spec.encoder, "weights_sha256": digest, "fuse": fused}

    def record(self, digest: str) -> dict[str, object]:
        """How the result was made, and what was visible."""
        spec, views = self.spec, self.views
        return {
            "format": "pointseg-lifted-1",
            "cloud": str(spec.cloud),
            **self.about(digest),
            "sample": spec.sample,
            "visibility": spec.visibility.as_dict(),
            "pick": None if self.picked is None else self.picked.row,
            "points": len(self.counts),
            "seen": int((self.counts > 0).sum()),
            "views": [
                {"name": frame.name, "size": list(size), "points": len(views.shown(k).rows)}
                for k, (frame, size) in enumerate(zip(views.frames, views.sizes, strict=True))
            ],
        }

    def draw(self, colouring: Colouring) -> None:
        """Write the picture."""
        index = self.source.index
        row = None if self.picked is None else int(np.searchsorted(index, self.picked.row))
        picture = draw_lifted(
            self.source.cloud, self.views, colouring.colors()[index], colouring.title, picked=row
        )
        with new_file(self.spec.picture_file) as part:
            picture.save(part, format="PNG")
