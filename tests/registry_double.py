"""A small OCI registry as a real HTTP server on 127.0.0.1, which can be told to be faulty as real ones are.

It counts what it is asked for. Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md and
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Answer:
    """What one request gets instead of the truth: `cut` sends fewer bytes than announced, `drip_s` one in that time."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: bool = False
    drip_s: float = 0


@dataclass
class RegistryDouble:
    """`faults` maps a path to the answers that it gives before it tells the truth, `always` to one that stays."""

    address: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    layers: set[str] = field(default_factory=set)
    faults: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Answer] = field(default_factory=dict)
    private: dict[str, tuple[str, str]] = field(default_factory=dict)
    scheme: str = "bearer"
    realm: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    authorizations: list[tuple[str, str]] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put_image(
        self,
        repository: str,
        tag: str,
        config: dict[str, Any],
        *,
        layers: int = 2,
        zstd: bool = False,
        docker: bool = False,
    ) -> str:
        """Push one image; its digest."""
        digest, content = self._image(config, layers, zstd=zstd, docker=docker)
        self._name(repository, tag, DOCKER_MANIFEST if docker else OCI_MANIFEST, content)
        return digest

    def put_index(
        self,
        repository: str,
        tag: str,
        configs: dict[str, dict[str, Any]],
        *,
        docker: bool = False,
        record: bool = True,
    ) -> str:
        """Push one image per platform and the index over them; its digest.

        `record` adds a build record as BuildKit does, which the registry does not hold.
        """
        entries = []
        for platform, config in configs.items():
            system, _, machine = platform.partition("/")
            digest, content = self._image(config, 2, zstd=not docker, docker=docker)
            media = DOCKER_MANIFEST if docker else OCI_MANIFEST
            self._name(repository, digest, media, content)
            where = {"os": system, "architecture": machine}
            entries.append({"mediaType": media, "digest": digest, "size": len(content), "platform": where})
        unknown = {"os": "unknown", "architecture": "unknown"}
        if record:
            entries.append({"mediaType": OCI_MANIFEST, "digest": digest_of(b"r"), "size": 6, "platform": unknown})
        media = DOCKER_LIST if docker else OCI_INDEX
        body = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": entries}).encode()
        self._name(repository, tag, media, body)
        return digest_of(body)

    def _image(self, config: dict[str, Any], layers: int, *, zstd: bool, docker: bool) -> tuple[str, bytes]:
        body = json.dumps(config).encode()
        self.blobs[digest_of(body)] = body
        rows = []
        for number in range(layers):
            content = f"layer {number} of {digest_of(body)}".encode() * 20
            self.blobs[digest_of(content)] = content
            self.layers.add(digest_of(content))
            media = f"{OCI_LAYER}+{'zstd' if zstd else 'gzip'}"
            if docker:
                media = "application/vnd.docker.image.rootfs.diff.tar.gzip"
            rows.append({"mediaType": media, "digest": digest_of(content), "size": len(content)})
        configuration = {
            "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
            "digest": digest_of(body),
            "size": len(body),
        }
        media = DOCKER_MANIFEST if docker else OCI_MANIFEST
        manifest = {"schemaVersion": 2, "mediaType": media, "config": configuration, "layers": rows}
        content = json.dumps(manifest).encode()
        return digest_of(content), content

    def _name(self, repository: str, reference: str, media: str, content: bytes) -> None:
        self.manifests[f"/v2/{repository}/manifests/{reference}"] = (media, content)
        self.manifests[f"/v2/{repository}/manifests/{digest_of(content)}"] = (media, content)

    def layers_fetched(self) -> int:
        return sum(count for path, count in self.asked.items() if path.rpartition("/")[2] in self.layers)

    def answer(self, path: str, authorization: str) -> Answer:
        """What this path gets: its faults, then the login, then the truth."""
        with self.lock:
            self.asked[path] += 1
            self.authorizations.append((path, authorization))
            fault = self.faults[path].pop(0) if self.faults.get(path) else self.always.get(path)
        if fault is not None:
            return self._filled(path, fault)
        repository = path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        if repository in self.private and not self._may(repository, authorization):
            return self._login_wanted(repository)
        return self._truth(path)

    def _truth(self, path: str) -> Answer:
        if path in self.manifests:
            media, content = self.manifests[path]
            headers = {"Content-Type": media, "Docker-Content-Digest": digest_of(content)}
            return Answer(headers=headers, body=content)
        blob = self.blobs.get(path.rpartition("/")[2])
        if blob is not None:
            return Answer(headers={"Content-Type": "application/octet-stream"}, body=blob)
        code = "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN"
        return Answer(404, body=errors(code, code.lower().replace("_", " ")))

    def _filled(self, path: str, fault: Answer) -> Answer:
        truth = self._truth(path) if fault.body is None and fault.status == 200 else Answer(body=b"")
        body = truth.body if fault.body is None else fault.body
        return Answer(fault.status, {**truth.headers, **fault.headers}, body, fault.cut, fault.drip_s)

    def _may(self, repository: str, authorization: str) -> bool:
        if self.scheme == "basic":
            return authorization == basic(*self.private[repository])
        with self.lock:
            return self.tokens.get(authorization.removeprefix("Bearer ")) == repository

    def _login_wanted(self, repository: str) -> Answer:
        challenge = 'Basic realm="double"'
        if self.scheme == "bearer":
            realm = self.realm or f"http://{self.address}/token"
            challenge = f'Bearer realm="{realm}",service="double",scope="repository:{repository}:pull"'
        return Answer(401, {"WWW-Authenticate": challenge}, errors("UNAUTHORIZED", "authentication required"))

    def token(self, query: dict[str, list[str]], authorization: str) -> Answer:
        """The token server: a token for the name and password of the repository that `scope` names."""
        with self.lock:
            self.asked["/token"] += 1
        repository = query["scope"][0].split(":")[1]
        refreshed = query.get("refresh_token") == [self.private[repository][1]]
        if authorization != basic(*self.private[repository]) and not refreshed:
            return Answer(401, body=json.dumps({"details": "incorrect username or password"}).encode())
        with self.lock:
            token = f"token-{len(self.tokens)}"
            self.tokens[token] = repository
        return Answer(body=json.dumps({"access_token" if refreshed else "token": token}).encode())


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {}}]}).encode()


@contextmanager
def running() -> Iterator[RegistryDouble]:
    double = RegistryDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every answer waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/token":
                self._send(double.token(parse_qs(parts.query), self.headers.get("Authorization", "")))
            else:
                self._send(double.answer(parts.path, self.headers.get("Authorization", "")))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self._send(double.token(form, ""))

        def _send(self, answer: Answer) -> None:
            body = answer.body or b""
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if answer.drip_s:
                self._drip(body, answer.drip_s)
            else:
                self.wfile.write(body[: len(body) // 2] if answer.cut else body)
            self.close_connection = answer.cut

        def _drip(self, body: bytes, seconds: float) -> None:
            with contextlib.suppress(OSError):  # the other side hangs up
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(seconds)
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    double.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
