"""Owns how a tag is given to a digest in a registry: the same bytes again under another name, never a layer pushed.

Must not know which tags are given or why (promote), nor how one registry is spoken to (registry_client).
Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md ("Pushing manifests", "Mounting a blob
from another repository").
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from cuda_matrix import image_reference
from cuda_matrix.adapters.registry_client import Body, RegistryClient, host_of
from cuda_matrix.adapters.registry_login import LoginFailed, Logins
from cuda_matrix.adapters.registry_refusal import NOT_FOUND, OutOfReach, Refused
from cuda_matrix.errors import InfrastructureError
from cuda_matrix.image_manifest import NotAnImage, named_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cuda_matrix.image_reference import Parts

READ_BUDGET_S = 60.0  # to ask for one tag
WRITE_BUDGET_S = 300.0  # to give one tag, every mount included
_KINDS = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
_CREATED = 201
_DEEPEST = 3  # an index of indexes of images
_MOST_MANIFESTS = 500  # that one tag may need


class Moved(NamedTuple):
    """The registry no longer holds, under this reference, what was tested; the text names the digests."""

    text: str


class Source(NamedTuple):
    """The very bytes that were tested, and where they lie."""

    parts: Parts
    body: Body


class RegistryTags:
    """Tags of the registries as one account sees them; logins, proxies and certificates as for `registry.Registry`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._logins = Logins(environ)

    def tested(self, ref: str, digest: str) -> Source | Moved:
        """The manifest (or index) of this digest, which `ref` must still name.

        Raises:
            InfrastructureError: the registry does not answer, or refuses.
        """
        parts = image_reference.parts_of(ref)
        name = parts.digest or parts.tag or "latest"
        with self._reading(parts, ref) as client:
            found = _found(client, name)
            if found is None:
                return Moved(f"{ref} is not in its registry any more; {digest} was tested")
            if found.digest != digest:
                return Moved(f"{ref} has moved: {digest} was tested, {found.digest} is there now")
            return Source(parts, found)

    def named(self, target: str) -> str | None:
        """The digest that a tag names now; None where there is no such tag.

        Raises:
            InfrastructureError: as above.
        """
        parts = image_reference.parts_of(target)
        with self._reading(parts, target) as client:
            found = _found(client, parts.tag or "latest")
            return None if found is None else found.digest

    def give(self, tested: Source, target: str) -> None:
        """Name these bytes `target`, and look that it came out so. May be called again after any failure.

        Raises:
            InfrastructureError: the registry does not answer, refuses, or names something else afterwards.
        """
        parts = image_reference.parts_of(target)
        source = None if parts.repository == tested.parts.repository else tested.parts
        with _in_our_words(target), closing(self._client(parts, source, WRITE_BUDGET_S)) as client:
            if source is not None:
                with closing(self._client(source, None, READ_BUDGET_S)) as origin:
                    _Copy(origin, client, source.repository).below(tested.body)
            tag = parts.tag or "latest"
            client.put(tested.body, tag)
            there = client.manifest(tag).digest
            if there != tested.body.digest:
                msg = f"it names {there} although {tested.body.digest} was written: somebody else gives this tag too"
                raise Refused(msg)

    @contextmanager
    def _reading(self, parts: Parts, ref: str) -> Iterator[RegistryClient]:
        with _in_our_words(ref):
            login = self._logins.of(parts.registry)
            until = time.monotonic() + READ_BUDGET_S
            with closing(RegistryClient(host_of(parts.registry), parts.repository, login, until)) as client:
                yield client

    def _client(self, parts: Parts, source: Parts | None, budget_s: float) -> _TagClient:
        login = self._logins.of(parts.registry)
        # Asked for at once: a registry may answer a write with a bare 403, or forget the other repository of a mount.
        scopes = [f"repository:{parts.repository}:pull,push"]
        if source is not None:
            scopes.append(f"repository:{source.repository}:pull")
        until = time.monotonic() + budget_s
        return _TagClient(host_of(parts.registry), parts.repository, login, until, tuple(scopes))


class _TagClient(RegistryClient):
    """The few requests that write."""

    def put(self, body: Body, tag_or_digest: str) -> None:
        """These bytes as a manifest."""
        if body.media_type not in _KINDS:
            msg = f"the registry calls its manifest {body.media_type[:80]!r}, which is no image or index"
            raise Refused(msg)
        self._ask("PUT", self._place.manifest_url(tag_or_digest), body.content, body.media_type)

    def mount(self, digest: str, repository: str) -> None:
        """A blob that another repository of this registry holds, here too."""
        place = f"{self._place.upload_blob_url()}?mount={digest}&from={repository}"
        if self._ask("POST", place, b"", "application/octet-stream").status_code == _CREATED:
            return
        # 202: it wants the blob pushed. Where it was pushed before, all is well.
        if not self._holds(digest):
            msg = (
                f"the registry mounts nothing of {repository} here (it asks for {digest} to be pushed, which promote "
                f"never does): name a release tag in {repository} itself, or push one image of it here by hand"
            )
            raise Refused(msg)

    def _holds(self, digest: str) -> bool:
        try:
            self._ask("HEAD", self._place.get_blob_url(digest))
        except Refused as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True


class _Copy:
    """Everything below a manifest, from one repository of a registry into another: blobs are mounted."""

    def __init__(self, origin: RegistryClient, client: _TagClient, repository: str) -> None:
        self._origin, self._client, self._repository = origin, client, repository
        self._done: set[str] = set()
        self._manifests = 0

    def below(self, body: Body, depth: int = 1) -> None:
        """Depth first: a registry takes an index only when it has what the index names."""
        manifests, blobs = named_by(body.content)
        for blob in blobs:
            if blob.digest not in self._done:
                self._client.mount(blob.digest, self._repository)
                self._done.add(blob.digest)
        for row in manifests:
            if row.digest in self._done:
                continue
            self._manifests += 1
            if depth >= _DEEPEST or self._manifests > _MOST_MANIFESTS:
                msg = f"its index is deeper than {_DEEPEST} levels or names more than {_MOST_MANIFESTS} manifests"
                raise Refused(msg)
            child = self._origin.manifest(row.digest)
            self.below(child, depth + 1)
            self._client.put(child, row.digest)
            self._done.add(row.digest)


def _found(client: RegistryClient, tag_or_digest: str) -> Body | None:
    try:
        return client.manifest(tag_or_digest)
    except Refused as error:
        if error.status == NOT_FOUND:
            return None
        raise


@contextmanager
def _in_our_words(ref: str) -> Iterator[None]:
    try:
        yield
    except (OutOfReach, LoginFailed) as error:
        msg = f"{ref}: {error}"
        raise InfrastructureError(msg, hint="is the registry up, and `docker login` done for it?") from error
    except (Refused, NotAnImage) as error:
        msg = f"{ref}: {error}"
        raise InfrastructureError(msg, hint="giving a tag needs a login that may push (`docker login`)") from error
