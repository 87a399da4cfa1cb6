"""The scene and the panel in the browser: points, what is shown of them and in which colours, and cameras."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointseg.images.readers.frame import Frame
from pointseg.scene import IGNORE
from pointseg.viewing.camera_panel import CameraPanel
from pointseg.viewing.clouds import ViewedCloud
from pointseg.viewing.colouring import (
    CLASS,
    ERRORS,
    IS_RIGHT,
    IS_WRONG,
    REFERENCE,
    VERDICTS,
    Colouring,
    confidence_of,
)
from pointseg.viewing.frusta import frustum_of
from pointseg.viewing.layout import Part, parts_of, picked, point_size, up_vector, viewpoint_of
from pointseg.viewing.palette import Palette
from pointseg.viewing.panel_html import legend_html, scale_html, swatch_html, text_html

if TYPE_CHECKING:
    import viser

NO_CLASS = "(no class)"
INVITATION = "Click on a point to see its coordinates."
MISSED = "No point where you clicked: click on one, or come closer."
SLACK = 0.006
"""How far a click may miss a point, per unit of distance."""
SIZES = (0.2, 5.0, 0.1)
"""Smallest and largest factor of the size of points, and the step between."""


@dataclass
class Hidden:
    """What the panel has switched off."""

    clouds: set[int] = field(default_factory=set)
    labels: set[int] = field(default_factory=set)
    verdicts: set[int] = field(default_factory=set)
    ceilings: bool = True

    def hides(self, part: Part) -> bool:
        """Whether a part is not to be seen."""
        return (
            part.cloud in self.clouds
            or part.label in self.labels
            or part.verdict in self.verdicts
            or (self.ceilings and part.is_ceiling)
        )


class Viewer:
    """Clouds and cameras in a server's scene, with the panel that changes what is shown."""

    def __init__(
        self,
        server: viser.ViserServer,
        clouds: Sequence[ViewedCloud],
        palette: Palette,
        *,
        frames: Sequence[Frame] = (),
        up: str = "z",
        color_by: str | None = None,
        about: Sequence[str] = (),
    ) -> None:
        """Fill the scene and the panel.

        Args:
            server: without contents.
            clouds: at least one.
            palette: of their classes.
            frames: posed images in the world of the clouds.
            up: the axis that points up, one of ``PICTURE_UP_AXES``.
            color_by: one of ``COLOURINGS``; None: errors where there is a reference, else the first that there is.
            about: lines at the head of the panel.
        """
        self._server, self._clouds, self._palette = server, clouds, palette
        self._lock = threading.RLock()
        self.shift: NDArray[np.float64] = clouds[0].scene.origin
        """(3,) what is subtracted from all positions."""
        self.colouring = Colouring(clouds, palette, up=up)
        """What colours can show."""
        usual = ERRORS if ERRORS in self.colouring.choices else self.colouring.choices[0]
        self.color_by = color_by or usual
        """What they show now."""
        self._coords = [cloud.placed(self.shift) for cloud in clouds]
        self._size = point_size(self._coords)
        self._factor = 1.0  # of the slider
        self.parts = [p for k, cloud in enumerate(clouds) for p in parts_of(k, cloud, up=up)]
        """What is shown and hidden together."""
        self._hidden = Hidden()
        self._look(up, [frustum_of(frame, self.shift).position for frame in frames])
        self._handles = self._add_points()
        self._add_panel(about)
        radius = viewpoint_of(self._coords, up).radius
        self.cameras = CameraPanel(server, frames, self.shift, radius) if frames else None
        """Of the cameras; None: there are none."""
        server.scene.on_click()(self._pick)

    def _look(self, up: str, cameras: Sequence[tuple[float, float, float]]) -> None:
        view = viewpoint_of(self._coords, up, cameras)
        self._server.scene.set_up_direction(up_vector(up))
        camera = self._server.initial_camera
        camera.position, camera.look_at, camera.up = view.position, view.look_at, up_vector(up)
        camera.near, camera.far = view.radius / 1000, view.radius * 100

    def _add_points(self) -> list[viser.PointCloudHandle]:
        colors = [self.colouring.colors(cloud, self.color_by) for cloud in self._clouds]
        return [
            self._server.scene.add_point_cloud(
                f"/clouds/{part.cloud}/{number}",
                self._coords[part.cloud][part.rows],
                colors[part.cloud][part.rows],
                point_size=self._size,
                point_shape="circle",
                point_shading="gradient",  # points that touch are seen apart
                precision="float32",
                visible=not self._hidden.hides(part),
            )
            for number, part in enumerate(self.parts)
        ]

    def _add_panel(self, about: Sequence[str]) -> None:
        gui = self._server.gui
        gui.add_html(text_html(about))
        choice = gui.add_dropdown("colour", self.colouring.choices, initial_value=self.color_by)
        self._legend = gui.add_html(self.legend())
        low, high, step = SIZES
        size = gui.add_slider("point size", low, high, step, 1.0)
        # above the classes, which may be more than a window shows: an answer below them is not seen
        self._picked = gui.add_html(text_html([INVITATION]))
        choice.on_update(lambda event: self.paint(event.target.value))
        size.on_update(lambda event: self._resize(event.target.value))
        if any(part.is_ceiling for part in self.parts):
            box = gui.add_checkbox("ceiling", False, hint="points of a room's ceiling and above")
            box.on_update(lambda event: self._set_ceiling(event.target.value))
        if len(self._clouds) > 1:
            with gui.add_folder("Clouds"):
                for number, cloud in enumerate(self._clouds):
                    self._add_box(
                        cloud.name, self._hidden.clouds, number, f"{len(cloud.scene):,} points"
                    )
        if any(cloud.reference is not None for cloud in self._clouds):
            with gui.add_folder("Errors"):
                for number in (IS_WRONG, IS_RIGHT, 0):
                    name, color = VERDICTS[number]
                    gui.add_html(swatch_html(color))
                    self._add_box(name, self._hidden.verdicts, number)
        labels = sorted({part.label for part in self.parts})
        if labels != [IGNORE]:
            self._add_classes([*(k for k in labels if k != IGNORE), *(k for k in labels if k < 0)])

    def _add_classes(self, labels: Sequence[int]) -> None:
        gui = self._server.gui
        with gui.add_folder("Classes"):
            several = gui.add_button_group("", ("all", "none"))
            boxes = []
            for label in labels:
                points = sum(len(part.rows) for part in self.parts if part.label == label)
                color = self._palette.paint(np.array([label], np.int32))[0].tolist()
                gui.add_html(swatch_html(tuple(color)))
                name = NO_CLASS if label < 0 else self._palette.names[label]
                boxes.append(self._add_box(name, self._hidden.labels, label, f"{points:,} points"))
        several.on_click(lambda event: self._set_all(boxes, event.target.value == "all"))

    def _add_box(self, name: str, hidden: set[int], number: int, hint: str | None = None) -> Any:
        box = self._server.gui.add_checkbox(name, True, hint=hint)

        def changed(event: Any) -> None:
            with self._lock:
                (hidden.discard if event.target.value else hidden.add)(number)
                self._show()

        box.on_update(changed)
        return box

    def _set_all(self, boxes: Sequence[Any], value: bool) -> None:
        for box in boxes:
            box.value = value

    def _set_ceiling(self, shown: bool) -> None:
        with self._lock:
            self._hidden.ceilings = not shown
            self._show()

    def _show(self) -> None:
        for part, handle in zip(self.parts, self._handles, strict=True):
            handle.visible = not self._hidden.hides(part)

    def _resize(self, factor: float) -> None:
        with self._lock:
            self._factor = factor
            for handle in self._handles:
                handle.point_size = self._size * factor

    def paint(self, choice: str) -> None:
        """Colour all points by another of the choices."""
        with self._lock:
            self.color_by = choice
            colors = [self.colouring.colors(cloud, choice) for cloud in self._clouds]
            for part, handle in zip(self.parts, self._handles, strict=True):
                handle.colors = colors[part.cloud][part.rows]
            self._legend.content = self.legend()

    def legend(self) -> str:
        """What the colours mean now, as HTML, unless the boxes of the classes say it."""
        if self.color_by in self.colouring.scales:
            return scale_html(self.colouring.scales[self.color_by])
        if self.color_by == ERRORS:
            return legend_html([(f"{name}: {n:,} points", c) for name, n, c in self._verdicts()])
        return ""

    @property
    def title(self) -> str:
        """What is shown, in a few words."""
        more = f" and {len(self._clouds) - 1} more" if len(self._clouds) > 1 else ""
        return f"{self._clouds[0].name}{more}"

    def whole_legend(self) -> str:
        """What the colours mean now, as HTML, for pages without a panel."""
        return self.legend() or (
            legend_html(self.entries()) if self.color_by in (CLASS, REFERENCE) else ""
        )

    def entries(self) -> list[tuple[str, Any]]:
        """Names and colours of the classes that occur."""
        occur = sorted({part.label for part in self.parts if part.label != IGNORE})
        return [(self._palette.names[k], self._palette.colors[k]) for k in occur]

    def _verdicts(self) -> list[tuple[str, int, Any]]:
        counts = np.zeros(len(VERDICTS), np.int64)
        for part in self.parts:
            counts[part.verdict] += len(part.rows)
        return [(*VERDICTS[k][:1], int(counts[k]), VERDICTS[k][1]) for k in (IS_WRONG, IS_RIGHT, 0)]

    def _pick(self, event: viser.SceneClickEvent) -> None:
        origin, ray = np.array(event.ray_origin), np.array(event.ray_direction)
        with self._lock:
            best: tuple[float, int, int] | None = None
            for number, coord in enumerate(self._coords):
                shown = [
                    p.rows for p in self.parts if p.cloud == number and not self._hidden.hides(p)
                ]
                rows = np.concatenate(shown) if shown else np.empty(0, np.int64)
                found = picked(
                    coord[rows],
                    origin,
                    ray / np.linalg.norm(ray),
                    radius=self._size * self._factor,  # viser draws discs of this radius
                    slack=SLACK,
                )
                if found is not None and (best is None or found[1] < best[0]):
                    best = found[1], number, int(rows[found[0]])
            if best is None:
                self._picked.content = text_html([MISSED])
            else:
                lines = self.describe(best[1], best[2])
                self._picked.content = text_html(lines)
                at = tuple(self._coords[best[1]][best[2]].tolist())
                self._server.scene.add_label("/picked", lines[1], position=at)

    def describe(self, number: int, row: int) -> list[str]:
        """What is known of a point, in lines: its cloud, its position in the file, class, reference and values.

        Args:
            number: of the cloud.
            row: of the point in it.
        """
        cloud = self._clouds[number]
        scene = cloud.scene
        x, y, z = (scene.coord[row].astype(np.float64) + scene.origin).tolist()
        lines = [cloud.name, f"{x:.3f} {y:.3f} {z:.3f}"]
        for what, labels in (("class", cloud.labels), ("reference", cloud.reference)):
            if labels is not None and (what == "reference" or self.entries()):
                name = NO_CLASS if labels[row] < 0 else self._palette.names[labels[row]]
                lines.append(f"{what}: {name}")
        sure = confidence_of(scene)
        if sure is not None:
            lines.append(f"confidence: {sure[row]:.4g}")
        if "strength" in scene:
            lines.append(f"intensity: {scene['strength'][row, 0]:.4g} of 1")
        if "color" in scene:
            lines.append("colour: " + " ".join(f"{value:.0f}" for value in scene["color"][row]))
        return lines
