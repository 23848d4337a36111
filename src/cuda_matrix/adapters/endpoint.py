"""Owns which Docker daemon is meant, and what to say when it does not answer.

Must not know what is asked of it (docker_engine, images).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker.constants import DEFAULT_UNIX_SOCKET
from docker.errors import DockerException
from docker.utils import kwargs_from_env, parse_host

from cuda_matrix.errors import InfrastructureError

if TYPE_CHECKING:
    from collections.abc import Mapping

API_TIMEOUT_S = 600  # of one answer of the daemon; unpacking a layer can be silent for minutes


def connect(environ: Mapping[str, str], docker_host: str | None = None) -> docker.APIClient:
    """A client of the daemon that `docker` itself would use, or of `docker_host`.

    Raises:
        InfrastructureError: no daemon answers there.
    """
    where = docker_host or environ.get("DOCKER_HOST") or "the Docker daemon"
    try:
        settings = endpoint(environ, docker_host)
        where = settings.get("base_url") or DEFAULT_UNIX_SOCKET.removeprefix("http+")
        _knock(parse_host(settings.get("base_url"), tls=bool(settings.get("tls"))))
        return docker.APIClient(version="auto", timeout=API_TIMEOUT_S, use_ssh_client=True, **settings)
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        raise unreachable(error, where) from error


def _knock(address: str) -> None:
    """Fails where nobody listens on a Unix socket.

    The SDK would fail there too, and leave its open socket to the garbage collector.
    """
    scheme, _, path = address.partition("://")
    if scheme == "http+unix":
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(API_TIMEOUT_S)
            door.connect("/" + path.lstrip("/"))  # unix://path means unix:///path, to the SDK


def endpoint(environ: Mapping[str, str], docker_host: str | None = None) -> dict[str, Any]:
    """`base_url` and `tls`, in Docker's own order: host given, DOCKER_HOST, DOCKER_CONTEXT, `docker context use`.

    https://docs.docker.com/engine/manage-resources/contexts/

    Raises:
        ValueError: DOCKER_CONTEXT names no context.
    """
    settings: dict[str, Any] = dict(kwargs_from_env({"": "", **environ}))
    if docker_host:
        return {**settings, "base_url": docker_host} if docker_host.startswith("tcp:") else {"base_url": docker_host}
    if settings.get("base_url"):
        return settings
    name = environ.get("DOCKER_CONTEXT")
    context = docker.ContextAPI.get_context(name) if name else docker.ContextAPI.get_current_context()
    if context is None:
        msg = f"there is no Docker context {name!r}" if name else "the current Docker context does not exist"
        raise ValueError(msg)
    if context.Name == "default" or not context.Host:
        return settings
    return {"base_url": context.Host, "tls": context.TLSConfig or False}


def unreachable(error: Exception, where: str = "the Docker daemon") -> InfrastructureError:
    """The error that ends a run: no image can be judged without its daemon."""
    text = str(error)
    if "Permission denied" in text:
        hint = "add this account to the `docker` group and log in again, or set DOCKER_HOST to a daemon it may use"
    else:
        hint = "start it (`systemctl start docker`), or set DOCKER_HOST or `docker context use` to a daemon that runs"
    return InfrastructureError(f"cannot reach {where}: {text}", hint=hint)
