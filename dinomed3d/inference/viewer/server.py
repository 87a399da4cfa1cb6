"""The viewer's server: on this computer alone, for one person's browser."""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from dinomed3d.inference.viewer.answers import Answers
from dinomed3d.inference.viewer.viewed_run import ViewedRun
from dinomed3d.runtime.errors import UserError

LOOPBACK = "127.0.0.1"
"""The address of this computer for itself: no other one reaches it."""


class ViewerServer(ThreadingHTTPServer):
    """Serves a run until it is shut down."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would share the port with other programs

    def __init__(self, run: ViewedRun, *, port: int = 0) -> None:
        """Begin to listen.

        Args:
            run: what is shown.
            port: 0 for any that is free.

        Raises:
            UserError: the port cannot be used.
        """
        self.answers = Answers(run)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as err:
            raise UserError(
                f"--port {port}: cannot be used ({err.strerror or err}); give another one, or leave it out"
            ) from err

    @property
    def port(self) -> int:
        """The port that is listened at."""
        return int(self.server_address[1])

    def url(self, path: str) -> str:
        """An address for a browser on this computer."""
        return f"http://{LOOPBACK}:{self.port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that have gone away."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on, and says nothing of them in the terminal."""

    protocol_version = "HTTP/1.1"
    server_version = "dinomed3d"
    sys_version = ""
    timeout = 300
    """Seconds after which a connection without requests is closed."""

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        """Answer with content."""
        for part in self._begin():
            self.wfile.write(part)

    def do_HEAD(self) -> None:  # noqa: N802
        """Answer with headers alone."""
        self._begin()

    def _begin(self) -> tuple[bytes | memoryview, ...]:
        answer = cast(ViewerServer, self.server).answers.get(self.path, self.headers.get("Host"))
        self.send_response(answer.status)
        for name, value in answer.all_headers.items():
            self.send_header(name, value)
        self.end_headers()
        return answer.parts

    def log_message(self, format: str, *values: Any) -> None:
        """Print nothing: addresses hold the secret."""
