"""Pictures: clouds from above and from the side, confusion matrices, training curves."""

from __future__ import annotations

from pointseg.pictures.render import render
from pointseg.pictures.sheets import comparison, labelled

__all__ = ["comparison", "labelled", "render"]
