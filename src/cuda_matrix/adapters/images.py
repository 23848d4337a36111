"""Owns which image exactly: tag → digest → an image that the daemon holds.

Must not know containers (docker_engine). A digest that was resolved is what is pulled: a tag that moves
between the two cannot slip in.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import requests
from docker.errors import APIError, DockerException, NotFound
from docker.utils import parse_repository_tag

from cuda_matrix.errors import InfrastructureError
from cuda_matrix.execute import LaunchFailed, planned_identity
from cuda_matrix.image_reference import digest_of
from cuda_matrix.result import ImageIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import docker

    from cuda_matrix.plan import PlannedImage

_RESOLVE_THREADS = 8


def resolve_digests(client: docker.APIClient, refs: Iterable[str]) -> dict[str, str]:
    """Ask the registries: reference → `sha256:…`, or the reason why it is not known."""

    def one(ref: str) -> str:
        try:
            return _registry_digest(client, ref)
        except (APIError, requests.RequestException, KeyError) as error:
            return _text(error)

    wanted = sorted(set(refs))
    with ThreadPoolExecutor(_RESOLVE_THREADS) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def ensure_image(client: docker.APIClient, image: PlannedImage, progress: Callable[[str], None]) -> ImageIdentity:
    """Have the image on the daemon, and say exactly which one it is.

    An image that was built on this machine and never pushed is used as it is, without a digest.

    Raises:
        LaunchFailed: stage `pull`, with the registry's or daemon's words.
        InfrastructureError: the daemon does not answer.
    """
    repository, _ = parse_repository_tag(image.ref)
    digest = image.digest or digest_of(image.ref)
    try:
        if digest is None:
            local = _inspect(client, image.ref)
            if local is not None and not local.get("RepoDigests"):
                progress("image is local to this machine")
                return _identity(image, local, None)
            progress("asking the registry for the digest")
            digest = _registry_digest(client, image.ref)
        pinned = f"{repository}@{digest}"
        held = _inspect(client, pinned)
        if held is None:
            _pull(client, repository, digest, progress)
            held = _inspect(client, pinned)
        if held is None:
            msg = f"{pinned} was pulled, but the daemon does not know it"
            raise LaunchFailed(stage="pull", text=msg, identity=None)
    except APIError as error:
        raise LaunchFailed(stage="pull", text=_text(error), identity=None) from error
    except (requests.RequestException, DockerException, OSError) as error:
        msg = f"the Docker daemon stopped answering while the image was fetched: {error}"
        raise InfrastructureError(
            msg, hint="start it again and run the same command; finished cells are kept"
        ) from error
    return _identity(image, held, digest)


def _registry_digest(client: docker.APIClient, ref: str) -> str:
    """Digest of what the tag names now: of the index, for a multi-architecture image."""
    return str(client.inspect_distribution(ref)["Descriptor"]["digest"])


def _inspect(client: docker.APIClient, ref: str) -> dict[str, Any] | None:
    try:
        return dict(client.inspect_image(ref))
    except NotFound:
        return None


def _identity(image: PlannedImage, inspected: dict[str, Any], digest: str | None) -> ImageIdentity:
    known = {"digest": digest, "image_id": inspected["Id"], "size_bytes": inspected.get("Size")}
    return ImageIdentity.model_validate({**planned_identity(image).model_dump(), **known})


def _pull(client: docker.APIClient, repository: str, digest: str, progress: Callable[[str], None]) -> None:
    """Pull by digest; progress in bytes over all layers known so far."""
    layers: dict[str, tuple[int, int]] = {}
    for event in client.pull(repository, tag=digest, stream=True, decode=True):
        if "error" in event:
            raise LaunchFailed(stage="pull", text=str(event["error"]), identity=None)
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            layers[event["id"]] = (detail.get("current", 0), detail["total"])
        elif event.get("status") == "Download complete" and event.get("id") in layers:
            layers[event["id"]] = (layers[event["id"]][1],) * 2
        done, total = (sum(values) for values in zip(*layers.values(), strict=True)) if layers else (0, 0)
        if total:
            progress(f"pull {100 * done // total} % of {total / 1e9:.2f} GB")
        elif event.get("status"):
            progress(f"pull: {event['status'][:60]}")


def _text(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)
