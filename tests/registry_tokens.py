"""A token server as GHCR and Docker Hub have one, whose tokens Debian's docker-registry believes.

It grants what is asked for, to whom it may; the registry itself looks whether that is enough.
https://distribution.github.io/distribution/spec/auth/jwt/
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from registry_double import basic

_SERVICE, _ISSUER = "test registry", "test tokens"


@dataclass
class TokenServer:
    """`accounts`: (name, password) → the actions that it may, at most, do on any repository."""

    folder: Path
    address: str = ""
    accounts: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        """For the registry."""
        return {
            "realm": f"http://{self.address}/token",
            "service": _SERVICE,
            "issuer": _ISSUER,
            "rootcertbundle": str(self.folder / "tokens.pem"),
        }

    def make_key(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=tokens"]
        command += ["-keyout", str(self.folder / "tokens.key"), "-out", str(self.folder / "tokens.pem")]
        subprocess.run(command, check=True, capture_output=True)

    def token(self, authorization: str, scopes: list[str]) -> str | None:
        self.asked.append(scopes)
        allowed = next((may for who, may in self.accounts.items() if basic(*who) == authorization), None)
        if allowed is None:
            return None
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = [action for action in actions.split(",") if action in allowed]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {"iss": _ISSUER, "aud": _SERVICE, "sub": "x", "exp": now + 300, "nbf": now - 10, "iat": now}
        lines = (self.folder / "tokens.pem").read_text().strip().splitlines()[1:-1]
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines)]}
        text = f"{_packed(json.dumps(header).encode())}.{_packed(json.dumps({**claims, 'access': access}).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.folder / "tokens.key")]
        signature = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_packed(signature)}"


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextmanager
def serving_tokens(folder: Path) -> Iterator[TokenServer]:
    folder.mkdir(parents=True, exist_ok=True)
    tokens = TokenServer(folder)
    tokens.make_key()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            token = tokens.token(self.headers.get("Authorization", ""), query.get("scope", []))
            body = json.dumps({"token": token} if token else {"details": "incorrect username or password"}).encode()
            self.send_response(200 if token else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tokens.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
