"""Registries as a test wants them: Debian's docker-registry, with a password or a certificate of its own."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD = "cell", "s3cret-of-the-registry"


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving_registry(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    password: bool = False,
    certificate: bool = False,
    token: dict[str, str] | None = None,
) -> Iterator[str]:
    """The address of an empty registry that keeps its images in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    address = f"{host}:{free_port(host)}"
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": address},
    }
    if password:
        (folder / "htpasswd").write_text(f"{USER}:{_bcrypt(PASSWORD)}\n")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if token is not None:
        config["auth"] = {"token": token}
    if certificate:
        config["http"]["tls"] = _self_signed(folder, host)
    (folder / "registry.yml").write_text(json.dumps(config))
    process = subprocess.Popen(["docker-registry", "serve", str(folder / "registry.yml")], stderr=subprocess.DEVNULL)
    try:
        _wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait()


_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def tag_as_of_another_architecture(address: str, repository: str, tag: str, architecture: str) -> str:
    """The same layers again, with a configuration that says another architecture: a tag of that name."""
    manifest = json.loads(_ask(f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": _MANIFEST}))
    config = json.loads(_ask(f"http://{address}/v2/{repository}/blobs/{manifest['config']['digest']}"))
    body = json.dumps({**config, "architecture": architecture}).encode()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    upload = urllib.request.Request(f"http://{address}/v2/{repository}/blobs/uploads/", method="POST")
    with urllib.request.urlopen(upload) as answer:
        where = answer.headers["Location"]
    _ask(
        f"{where}{'&' if '?' in where else '?'}digest={digest}",
        "PUT",
        body,
        {"Content-Type": "application/octet-stream"},
    )
    manifest["config"].update(digest=digest, size=len(body))
    put_manifest(address, repository, architecture, _MANIFEST, manifest)
    return architecture


def tag_index_without_amd64(address: str, repository: str, tag: str) -> str:
    """An index that has the image for arm64 alone: a tag `only-arm64`."""
    body = _ask(f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": _MANIFEST})
    entry = {
        "mediaType": _MANIFEST,
        "size": len(body),
        "digest": f"sha256:{hashlib.sha256(body).hexdigest()}",
        "platform": {"os": "linux", "architecture": "arm64"},
    }
    kind = "application/vnd.docker.distribution.manifest.list.v2+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
    put_manifest(address, repository, "only-arm64", kind, index)
    return "only-arm64"


def put_manifest(address: str, repository: str, tag: str, kind: str, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    _ask(f"http://{address}/v2/{repository}/manifests/{tag}", "PUT", body, {"Content-Type": kind})


def _ask(url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}, method=method), timeout=20) as answer:
        content: bytes = answer.read()
        return content


def _bcrypt(password: str) -> str:
    """The one hash that registries take."""
    hashing = "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))"
    return subprocess.run(["perl", "-e", hashing, password], capture_output=True, text=True, check=True).stdout


def _self_signed(folder: Path, host: str) -> dict[str, str]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={host}"]
    command += ["-addext", f"subjectAltName=IP:{host}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return {"certificate": str(certificate), "key": str(key)}


def _wait_for(address: str, seconds: float = 20) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
        except OSError:
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.1)
        else:
            return
