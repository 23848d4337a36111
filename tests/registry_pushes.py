"""Images and indexes as a build would push them, over HTTP; small, with true digests."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_ANY = f"{MANIFEST}, {INDEX}"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Pusher:
    """One registry; `headers` log in."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)

    def image(self, repository: str, tag: str | None, seed: str) -> str:
        """An image of one layer; without a tag under its digest alone. Its digest."""
        return self._put(repository, tag, MANIFEST, self._image(repository, seed))

    def index(self, repository: str, tag: str, seeds: dict[str, str]) -> str:
        """An index: architecture → seed of its image, with a build record attached to the first as buildx does."""
        rows = []
        for architecture, seed in seeds.items():
            body = self._image(repository, seed)
            digest = self._put(repository, None, MANIFEST, body)
            platform = {"os": "linux", "architecture": architecture}
            rows.append({"mediaType": MANIFEST, "digest": digest, "size": len(body), "platform": platform})
        record = self._image(repository, f"record of {rows[0]['digest']}")
        unknown = {"os": "unknown", "architecture": "unknown"}
        digest = self._put(repository, None, MANIFEST, record)
        rows.append({"mediaType": MANIFEST, "digest": digest, "size": len(record), "platform": unknown})
        # Spaces and order are ours: who writes it anew gets another digest.
        content = json.dumps({"manifests": rows, "mediaType": INDEX, "schemaVersion": 2}, indent=3).encode()
        return self._put(repository, tag, INDEX, content)

    def read(self, repository: str, reference: str) -> tuple[str, bytes]:
        """(media type, content) of a manifest."""
        with self._ask("GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": _ANY}) as answer:
            return answer.headers["Content-Type"], answer.read()

    def digest(self, repository: str, reference: str) -> str | None:
        """What a tag names; None where there is none."""
        try:
            return digest_of(self.read(repository, reference)[1])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def has_blob(self, repository: str, digest: str) -> bool:
        try:
            self._ask("HEAD", f"/v2/{repository}/blobs/{digest}").close()
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return False
        return True

    def _image(self, repository: str, seed: str) -> bytes:
        layer = f"layer {seed}".encode()
        config = json.dumps({"os": "linux", "architecture": "amd64", "seed": seed}).encode()
        rows = {name: self._blob(repository, body) for name, body in {"config": config, "layer": layer}.items()}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **rows["config"]},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **rows["layer"]}],
        }
        return json.dumps(document, indent=2).encode()

    def _blob(self, repository: str, body: bytes) -> dict[str, Any]:
        digest = digest_of(body)
        with self._ask("POST", f"/v2/{repository}/blobs/uploads/", b"") as answer:
            where = answer.headers["Location"]
        sign = "&" if "?" in where else "?"
        octets = {"Content-Type": "application/octet-stream"}
        self._ask("PUT", f"{where}{sign}digest={digest}", body, octets).close()
        return {"digest": digest, "size": len(body)}

    def _put(self, repository: str, tag: str | None, kind: str, content: bytes) -> str:
        digest = digest_of(content)
        path = f"/v2/{repository}/manifests/{tag or digest}"
        self._ask("PUT", path, content, {"Content-Type": kind}).close()
        return digest

    def _ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        url = path if path.startswith("http") else f"http://{self.address}{path}"
        asked = urllib.request.Request(url, body, {**self.headers, **(headers or {})}, method=method)
        return urllib.request.urlopen(asked, timeout=20)
