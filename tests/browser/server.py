"""A server of static files, as any that a user may have."""

import http.server
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self


class Site:
    """Serves a folder on a free port of this machine while it is entered.

    Args:
        folder: to serve.
        changed: path -> content that takes the place of a file's.

    Attributes:
        requests: paths that were asked for.
    """

    def __init__(self, folder: Path, changed: Mapping[str, bytes] | None = None) -> None:
        self.requests: list[str] = []
        site, contents = self, changed or {}

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def do_GET(self) -> None:
                site.requests.append(self.path)
                content = contents.get(self.path)
                if content is None:
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Type", self.guess_type(self.path))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
