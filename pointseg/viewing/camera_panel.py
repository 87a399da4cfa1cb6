"""Cameras in the scene and in the panel: pyramids with their images, and the view from each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.images.readers.frame import Frame
from pointseg.viewing.frusta import LARGE, SMALL, Frustum, frustum_of, picture_of
from pointseg.viewing.panel_html import text_html

if TYPE_CHECKING:
    import viser

SIZE = 0.06
"""Of pyramids, in radii of the clouds."""
COLOR = (214, 120, 20)


class CameraPanel:
    """The cameras of a server's scene; a click on one looks through it and shows its image."""

    def __init__(
        self,
        server: viser.ViserServer,
        frames: Sequence[Frame],
        shift: NDArray[np.float64],
        radius: float,
    ) -> None:
        """Draw the pyramids, still without images.

        Args:
            server: whose scene and panel are filled.
            frames: at least one.
            shift: (3,) what is subtracted from all positions.
            radius: of the clouds.
        """
        self._server, self._frames, self._radius = server, frames, radius
        self._lock = threading.RLock()
        self.frusta = [frustum_of(frame, shift) for frame in frames]
        """What is drawn."""
        self._handles = [self._draw(k, frustum) for k, frustum in enumerate(self.frusta)]
        self._through: viser.CameraFrustumHandle | None = None
        gui = server.gui
        with gui.add_folder("Cameras"):
            self._shown = gui.add_checkbox("show", True)
            size = gui.add_slider("size", 0.1, 10.0, 0.1, 1.0)
            self._name = gui.add_html(text_html(["Click on a camera to look through it."]))
            self._image = gui.add_image(np.full((1, 1, 3), 255, np.uint8), visible=False)
            back = gui.add_button("back to all cameras", visible=False)
        self._back = back
        self._shown.on_update(lambda _: self._show())
        size.on_update(lambda event: self._resize(event.target.value))
        back.on_click(lambda event: self._leave(event.client))

    def _draw(self, number: int, frustum: Frustum) -> viser.CameraFrustumHandle:
        handle = self._server.scene.add_camera_frustum(
            f"/cameras/{number}",
            fov=frustum.fov,
            aspect=frustum.aspect,
            scale=SIZE * self._radius,
            thickness=1.5,
            thickness_units="screen",
            color=COLOR,
            wxyz=frustum.wxyz,
            position=frustum.position,
        )
        handle.on_click(lambda event: self.enter(number, event.client))
        return handle

    def fill(self, say: Callable[[str], None]) -> None:
        """Put the images onto the pyramids; one that cannot be read is said, and its pyramid stays empty."""
        for frame, handle in zip(self._frames, self._handles, strict=True):
            try:
                handle.image = picture_of(frame, SMALL)
            except (UserError, OSError) as error:
                say(f"{frame.name}: {error}")

    def enter(self, number: int, client: viser.ClientHandle) -> None:
        """Move a viewer to a camera and show its image.

        Args:
            number: of the camera.
            client: the viewer.
        """
        frustum = self.frusta[number]
        with self._lock:
            self._through = self._handles[number]
            self._show()
            self._name.content = text_html([frustum.name])
            self._back.visible = True
            try:
                self._image.image = picture_of(self._frames[number], LARGE)
                self._image.visible = True
            except (UserError, OSError) as error:
                self._image.visible = False
                self._name.content = text_html([frustum.name, str(error)])
        position = np.array(frustum.position)
        with client.atomic():
            client.camera.fov = frustum.fov
            client.camera.up_direction = np.array(frustum.up)
            client.camera.position = position
            client.camera.look_at = position + np.array(frustum.forward) * self._radius / 2

    def _leave(self, client: Any) -> None:
        with self._lock:
            self._through = None
            self._show()
            self._image.visible = self._back.visible = False
            self._name.content = text_html(["Click on a camera to look through it."])
        start = self._server.initial_camera
        with client.atomic():
            client.camera.fov = start.fov
            client.camera.up_direction = start.up
            client.camera.position = start.position
            client.camera.look_at = start.look_at

    def _show(self) -> None:
        """Show the cameras, but for the one that is looked through, whose image would hide the points."""
        for handle in self._handles:
            handle.visible = self._shown.value and handle is not self._through

    def _resize(self, factor: float) -> None:
        for handle in self._handles:
            handle.scale = SIZE * self._radius * factor
