"""The error of all datasets."""

from __future__ import annotations

from dinomed3d.runtime.errors import UserError


class DatasetError(UserError):
    """A dataset is missing, incomplete, or holds something that it must not."""


class EmptySceneError(DatasetError):
    """A scene without points, or without any that has a position."""
