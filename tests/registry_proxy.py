"""A proxy in front of a real registry: it notes every request, and answers some of them itself."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# (method, path with its query) → status that is answered instead of the registry, or None.
Fault = Callable[[str, str], int | None]


@dataclass
class Proxy:
    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda method, path: None
    vague: bool = False  # a 401 asks for `pull` of the one repository, whatever is needed

    def told(self, headers: dict[str, str], path: str) -> dict[str, str]:
        """What is passed on of the registry's headers."""
        if not self.vague:
            return headers
        repository = re.split("/(?:blobs|manifests)/", path.removeprefix("/v2/"))[0]
        scope = f'scope="repository:{repository}:pull"'
        return {name: re.sub('scope="[^"]*"', scope, value) for name, value in headers.items()}

    def writes(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path in self.asked if method not in {"GET", "HEAD"}]

    def pushes(self) -> list[tuple[str, str]]:
        """Requests that would carry a layer."""
        return [(method, path) for method, path in self.asked if method in {"PUT", "PATCH"} and "/blobs/" in path]


@contextmanager
def in_front_of(address: str) -> Iterator[Proxy]:
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.asked.append((self.command, self.path))
            status = proxy.fault(self.command, self.path)
            if status is not None:
                self._answer(status, {}, b"{}")
                return
            there = http.client.HTTPConnection(address, timeout=20)
            # With its own host, so that the registry's Location and realm lead back through here.
            there.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = there.getresponse()
            self._answer(answer.status, proxy.told(dict(answer.getheaders()), self.path), answer.read())
            there.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.pass_on)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
