"""Reads the Parquet tables of the Waymo Open Dataset, version 2, with pyarrow.

A file holds one component of one segment. Its columns are named ``key.NAME`` and ``[COMPONENT].FIELD``, brackets
included. Rows come in any order; their keys say what they are of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.messages.extras import how_to_install
from pointseg.datasets.errors import DatasetError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SEGMENT, FRAME, LASER, CAMERA = (
    "segment_context_name", "frame_timestamp_micros", "laser_name", "camera_name",
)  # fmt: skip
"""Names of keys."""
LASERS = ("TOP", "FRONT", "SIDE_LEFT", "SIDE_RIGHT", "REAR")
CAMERAS = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")
"""Names of the sensors, whose numbers are from 1."""
TOP = 1
"""The scanner on the roof, whose points alone have labels and a pose for each pixel."""
RETURNS = ("range_image_return1", "range_image_return2")
LONGEST_SIDE = 10_000
"""Rows or columns of a range image at most: official ones have 64 x 2650 and 200 x 600."""
ROWS = 1
"""Rows that are decoded at a time, of up to 10 MB each."""

Row = dict[str, Any]
"""Values of a row by the names of keys and fields."""


class Table:
    """One file of one component."""

    def __init__(self, folder: Path, tag: str, component: str, segment: str) -> None:
        """Open a file.

        Args:
            folder: of a split, such as ``training``.
            tag: folder of the component, such as ``lidar``.
            component: its class, such as ``LiDARComponent``.
            segment: name of the segment.

        Raises:
            DatasetError: it is missing or no Parquet file; pyarrow is not installed.
        """
        self.path = folder / tag / f"{segment}.parquet"
        self.component, self.segment = component, segment
        self._file = _open(self.path)
        self._columns = frozenset(self._file.schema_arrow.names)

    def rows(
        self, keys: Sequence[str], fields: Sequence[str], *, frames: Set[int] | None = None
    ) -> Iterator[Row]:
        """The rows of the segment, a few at a time.

        Args:
            keys: names of the keys to read, without that of the segment.
            fields: names of the fields to read. Lists become arrays; None where there is no value.
            frames: timestamps of the frames that are wanted, the key ``FRAME`` must be among ``keys``; None: all.

        Raises:
            DatasetError: columns are missing, a row is of another segment, or the file is damaged.
        """
        names = [f"key.{key}" for key in (SEGMENT, *keys)]
        names += [f"[{self.component}].{field}" for field in fields]
        missing = [name for name in names if name not in self._columns]
        if missing:
            raise DatasetError(
                f"{self.path}: lacks the columns {', '.join(missing)}; it must be a {self.component} table of the "
                "Waymo Open Dataset, version 2"
            )
        kept = [SEGMENT, *keys, *fields]
        for batch in self._batches(names, frames):
            columns = [batch.column(name) for name in names]
            for number in range(batch.num_rows):
                if frames is not None:
                    moment = columns[names.index(f"key.{FRAME}")][number].as_py()
                    if moment not in frames:
                        continue
                values = (_value(column[number]) for column in columns)
                row = dict(zip(kept, values, strict=True))
                if row.pop(SEGMENT) != self.segment:
                    raise DatasetError(f"{self.path}: holds rows of another segment")
                yield row

    def _batches(self, names: Sequence[str], frames: Set[int] | None) -> Iterator[Any]:
        import pyarrow

        groups = self._groups_with(frames)
        try:
            yield from self._file.iter_batches(
                batch_size=ROWS, row_groups=groups, columns=list(names), use_threads=False
            )
        except (pyarrow.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error

    def _groups_with(self, frames: Set[int] | None) -> list[int]:
        """Row groups that hold wanted frames; the others are not decoded."""
        import pyarrow

        everyone = list(range(self._file.num_row_groups))
        if frames is None:
            return everyone
        try:
            return [
                group
                for group in everyone
                if not frames.isdisjoint(
                    self._file.read_row_group(group, columns=[f"key.{FRAME}"]).column(0).to_pylist()
                )
            ]
        except (pyarrow.ArrowException, OSError, IndexError) as error:
            raise _damaged(self.path, error) from error


def range_image(table: Table, row: Row, name: str, channels: int) -> NDArray[Any] | None:
    """(H, W, channels) float32 or int32, a range image of a row; None if there is none.

    Args:
        table: of the row, for messages.
        row: with the fields ``NAME.values`` and ``NAME.shape``.
        name: one of ``RETURNS``.
        channels: how many it must have.

    Raises:
        DatasetError: its shape is another, or not that of its values.
    """
    values, shape = row[f"{name}.values"], row[f"{name}.shape"]
    if values is None or shape is None or not len(values):
        return None
    height, width, depth = shape.tolist() if len(shape) == 3 else (0, 0, 0)
    if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE and depth == channels):
        raise DatasetError(
            f"{table.path}: '{name}' must have a shape of height, width and {channels} channels, "
            f"got {shape.tolist()}"
        )
    if len(values) != height * width * depth or values.dtype.kind not in "fiu":
        raise DatasetError(
            f"{table.path}: '{name}' must have {height * width * depth} numbers, got {len(values)}"
        )
    kind = np.int32 if values.dtype.kind in "iu" else np.float32
    image: NDArray[Any] = values.astype(kind, copy=False).reshape(height, width, depth)
    return image


def transform(table: Table, values: Any, what: str) -> NDArray[np.float64]:
    """(4, 4) rigid transform from 16 numbers, row by row.

    Raises:
        DatasetError: they are none.
    """
    import torch

    from dinomed3d.lifting import check_rigid

    matrix = np.zeros(0) if values is None else np.array(values, np.float64)
    if matrix.shape != (16,):
        raise DatasetError(f"{table.path}: {what} must have 16 numbers, got {matrix.shape}")
    try:
        check_rigid(torch.from_numpy(matrix.reshape(4, 4)), what)
    except ValueError as error:
        raise DatasetError(f"{table.path}: {error}") from error
    return matrix.reshape(4, 4)


def sensor_number(table: Table, value: Any, names: Sequence[str]) -> int:
    """The number of a laser or a camera, from 1; some files give its name.

    Raises:
        DatasetError: it is neither.
    """
    if isinstance(value, str) and value in names:
        return names.index(value) + 1
    if isinstance(value, int) and 1 <= value <= len(names):
        return value
    raise DatasetError(
        f"{table.path}: sensors must be 1 to {len(names)} ({', '.join(names)}), got {value!r}"
    )


def _value(cell: Any) -> Any:
    """A cell as a Python value, lists as arrays."""
    if not cell.is_valid:
        return None
    found = getattr(cell, "values", None)
    return cell.as_py() if found is None else found.to_numpy(zero_copy_only=False)


def _open(path: Path) -> ParquetFile:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DatasetError(
            "dataset 'waymo': its files are read with pyarrow, which is not installed; "
            f"{how_to_install('waymo')}"
        ) from error
    try:
        return ParquetFile(path, memory_map=True)  # else whole row groups are read into memory
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; download this component, too") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> DatasetError:
    return DatasetError(f"{path}: cannot be read as Parquet ({error}); download it again")
