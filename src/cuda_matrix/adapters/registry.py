"""Owns what the registries say of a set of images: reference → facts, or the reason why there are none. Pulls nothing.

Must not know what a fact means (image_config) or how one registry is spoken to (registry_client).
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from cuda_matrix import image_reference
from cuda_matrix.adapters.registry_client import RegistryClient, host_of
from cuda_matrix.adapters.registry_login import LoginFailed, Logins
from cuda_matrix.adapters.registry_refusal import OutOfReach, Refused, too_late
from cuda_matrix.errors import InfrastructureError
from cuda_matrix.image_config import facts_of_image
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.image_manifest import Index, NotAnImage, read_configuration, read_manifest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cuda_matrix.image_reference import Parts

BUDGET_S = 60.0  # for all images together; what is not answered by then is not known
_GRACE_S = 2.0  # beyond the budget: a question that ends by itself says more than one that is given up
_THREADS = 8
_DAEMON_TIMEOUT_S = 20


class Registry:
    """The registries as one account sees them.

    Logins are Docker's own (`docker login`, credential helpers, DOCKER_CONFIG); proxies and certificates those of the
    process (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
    """

    def __init__(self, environ: Mapping[str, str], platform: str = "linux/amd64", budget_s: float = BUDGET_S) -> None:
        self._environ = environ
        self._platform = platform
        self._budget_s = budget_s
        self._logins = Logins(environ)
        self.out_of_reach: frozenset[str] = frozenset()  # references that nobody answered for, of the last question

    def facts(self, refs: Collection[str]) -> dict[str, ImageFacts | str]:
        """Facts with the digest that each reference names now, or a reason in the registry's words; fetches no layer.

        Where a registry cannot be reached from here, the Docker daemon is asked for the digest, if there is one: it may
        know a mirror, a proxy or a certificate that this process does not.
        """
        wanted = sorted(set(refs))
        until = time.monotonic() + self._budget_s
        call = _Call(self._logins, self._platform, until)
        with closing(call):
            answers = _answers(call, wanted, until + _GRACE_S)
        lost = [ref for ref in wanted if ref in call.out_of_reach]
        answers |= self._by_daemon(lost)
        self.out_of_reach = frozenset(ref for ref in lost if isinstance(answers[ref], str))
        return answers

    def _by_daemon(self, refs: Collection[str]) -> dict[str, ImageFacts]:
        if not refs:
            return {}
        from cuda_matrix.adapters.endpoint import connect  # noqa: PLC0415 - rarely needed
        from cuda_matrix.adapters.images import resolve_digests  # noqa: PLC0415

        try:
            client = connect(self._environ)
        except InfrastructureError:
            return {}
        try:
            client.timeout = _DAEMON_TIMEOUT_S
            found = resolve_digests(client, refs)
        finally:
            client.close()
        origins = {"digest": "Docker daemon"}
        return {
            ref: ImageFacts(ref=ref, digest=answer, origins=origins)
            for ref, answer in found.items()
            if answer.startswith("sha256:")
        }


def _answers(call: _Call, refs: Collection[str], until: float) -> dict[str, ImageFacts | str]:
    """Every answer that comes in time. A thread that still waits is left behind, and dies with the process.

    No timeout of a socket bounds a server that drips its headers, or a name that nobody resolves.
    """
    found: dict[str, ImageFacts | str] = {}
    broken: list[BaseException] = []
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for ref in refs:
        todo.put(ref)

    def work() -> None:
        try:
            while True:
                ref = todo.get_nowait()
                found[ref] = call.answer(ref)
        except queue.Empty:
            pass
        except BaseException as error:
            broken.append(error)  # raised again for the one who asked

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_THREADS, len(refs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if broken:
        raise broken[0]
    in_time = dict(found)
    for ref in set(refs) - set(in_time):
        in_time[ref] = too_late(image_reference.parts_of(ref).registry)
        call.out_of_reach.add(ref)
    return in_time


class _Call:
    """One question about many images: clients are shared by repository, and a host that is down is asked once."""

    def __init__(self, logins: Logins, platform: str, until: float) -> None:
        self._logins, self._platform, self._until = logins, platform, until
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], RegistryClient] = {}
        self._down: dict[str, OutOfReach] = {}
        self.out_of_reach: set[str] = set()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def answer(self, ref: str) -> ImageFacts | str:
        problem = image_reference.problem_of(ref)
        if problem:
            return problem
        parts = image_reference.parts_of(ref)
        try:
            if parts.registry in self._down:
                raise self._down[parts.registry]
            return self._facts(ref, parts)
        except OutOfReach as error:
            self._down[parts.registry] = error
            self.out_of_reach.add(ref)
            return str(error)
        except (Refused, NotAnImage, LoginFailed) as error:
            return str(error)

    def _facts(self, ref: str, parts: Parts) -> ImageFacts:
        client = self._client(parts)
        named = client.manifest(parts.digest or parts.tag or "latest")
        document = read_manifest(named.content)
        platforms: tuple[str, ...] = ()
        if isinstance(document, Index):
            platforms = document.platforms
            document = read_manifest(client.manifest(document.chosen(self._platform).digest).content)
        if isinstance(document, Index):
            msg = "the index names another index"
            raise NotAnImage(msg)
        configuration = read_configuration(client.blob(document.config.digest, document.config.size))
        found = facts_of_image(document, configuration, platforms)
        origins = {**found.origins, "digest": "registry"}
        return found.model_copy(update={"ref": ref, "digest": named.digest, "origins": origins})

    def _client(self, parts: Parts) -> RegistryClient:
        key = (parts.registry, parts.repository)
        with self._lock:
            if key not in self._clients:
                login = self._logins.of(parts.registry)
                self._clients[key] = RegistryClient(host_of(parts.registry), parts.repository, login, self._until)
            return self._clients[key]
