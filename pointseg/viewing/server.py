"""viser on this machine alone: no other machine, and no page of another site, may read what it serves."""

from __future__ import annotations

import io
import socket
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.extras import how_to_install

if TYPE_CHECKING:
    import viser

HOST = "127.0.0.1"


def open_server(port: int = 0) -> viser.ViserServer:
    """Start a server without contents on the loopback address.

    Args:
        port: its port; 0: any that is free.

    Raises:
        UserError: viser is not installed; the port cannot be had.
    """
    try:
        import viser
    except ImportError as error:
        raise UserError(
            f"pointseg-view draws with viser, which is not installed; {how_to_install('view')}"
        ) from error

    class Server(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> str | None:
            """Refuse: viser would hand the clouds through a server of its makers'."""
            return None

    _check_port(port)
    with redirect_stdout(io.StringIO()):  # a banner; one line says it, too
        server = Server(host=HOST, port=port, label="pointseg-view", verbose=False)
    if port not in (0, server.get_port()):
        close_server(server)
        raise UserError(
            f"--port {port}: could not be had, viser took {server.get_port()}; unset _VISER_PORT_OVERRIDE if it is "
            "set, or give another"
        )
    _refuse_other_sites(server)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    return server


def close_server(server: viser.ViserServer) -> None:
    """Stop a server, without its farewell."""
    with redirect_stdout(io.StringIO()):
        server.stop()


def address(server: viser.ViserServer) -> str:
    """Where browsers find a server."""
    return f"http://{HOST}:{server.get_port()}"


def _check_port(port: int) -> None:
    """Refuse a port that is taken: viser would silently go on to the next."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        if sys.platform != "win32":  # there it would allow a port that another program has
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"--port {port}: cannot be used on {HOST} ({reason}); give another, or 0 for any free one"
            ) from error


def _refuse_other_sites(server: viser.ViserServer) -> None:
    """Close connections that pages of other sites open: browsers let them reach this machine's ports."""
    ours = {f"http://{name}:{server.get_port()}" for name in (HOST, "localhost")}
    sockets = server._websock_server

    async def check(connection: Any) -> None:
        opened = sockets._live_connections[connection.client_id]
        assert opened.request is not None
        origin = opened.request.headers.get("Origin")
        if origin is not None and origin not in ours:
            await opened.close(1008, "another site")
            raise ConnectionRefusedError(f"{origin}: another site")

    sockets._client_connect_cb.insert(0, check)
