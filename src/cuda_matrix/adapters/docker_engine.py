"""Owns running a cell in a container: how it is created, started, followed and removed.

Must not know checks or verdicts, nor where the daemon (endpoint) or the image (images) comes from.
Docker's own documentation of what is set here:
https://docs.docker.com/engine/containers/resource_constraints/ and …/engine/security/.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker.errors import APIError, DockerException
from docker.types import DeviceRequest, LogConfig

from cuda_matrix.adapters import images
from cuda_matrix.adapters.containers import Ownership, payload_archive, remove_abandoned
from cuda_matrix.adapters.endpoint import connect, unreachable
from cuda_matrix.adapters.signals import deferred
from cuda_matrix.execute import CONTAINER_PATH, LaunchFailed
from cuda_matrix.model import EngineName
from cuda_matrix.result import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cuda_matrix.config import ContainerOptions
    from cuda_matrix.execute import Channel, Job
    from cuda_matrix.result import ImageIdentity
    from cuda_matrix.verdict import LaunchStage

HOST_MEMORY_SHARE = 0.95  # a limit above the host's memory would let an image take the host down
PIDS_LIMIT = 4096  # processes and threads; torch and NCCL start some hundreds on big hosts


class DockerSession:
    """One started container."""

    def __init__(self, client: docker.APIClient, container: str, output: Any, identity: ImageIdentity) -> None:
        self._client = client
        self._container = container
        self._output = output
        self.identity = identity
        self.pull_s = 0.0
        self.start_s = 0.0

    def chunks(self) -> Iterator[tuple[Channel, bytes]]:
        """Output of the container as it comes, until it has ended."""
        try:
            for stdout, stderr in self._output:
                if stdout:
                    yield "stdout", stdout
                if stderr:
                    yield "stderr", stderr
        except (requests.RequestException, OSError, DockerException) as error:
            raise unreachable(error) from error

    def kill(self) -> None:
        """Kill the container; a container that has ended already is fine."""
        with contextlib.suppress(APIError, requests.RequestException):
            self._client.kill(self._container)

    def wait(self) -> Exit:
        """Exit code, and whether the memory limit killed a process of the container."""
        try:
            self._client.wait(self._container)
            state = self._client.inspect_container(self._container)["State"]
        except (DockerException, requests.RequestException) as error:
            raise unreachable(error) from error
        code = int(state["ExitCode"])
        return Exit(code=code, signal=code - 128 if code > 128 else None, oom_killed=bool(state["OOMKilled"]))


class DockerEngine:
    """Runs cells in containers of one daemon per runner."""

    name = EngineName.DOCKER

    def __init__(self, ownership: Ownership, environ: Mapping[str, str]) -> None:
        self._ownership = ownership
        self._environ = environ
        self._clients: dict[str | None, docker.APIClient] = {}
        self._host_memory: dict[str | None, int] = {}
        self._digests: dict[str, str] = {}  # reference → digest: a tag that moves in mid-run must not split a row

    def prepare(self, docker_hosts: set[str | None], progress: Callable[[str], None]) -> None:
        """Connect to every daemon once, and remove what killed runs left there.

        Raises:
            InfrastructureError: a daemon does not answer.
        """
        for host in sorted(docker_hosts, key=lambda name: name or ""):
            removed = remove_abandoned(self._client(host), self._ownership)
            if removed:
                progress(f"removed {removed} container(s) that an earlier, killed run left behind")

    @contextlib.contextmanager
    def launch(self, job: Job, progress: Callable[[str], None]) -> Iterator[DockerSession]:
        """Pull, create, copy the payload in, start; remove the container on every path."""
        client = self._client(job.runner.docker_host)
        begin = time.monotonic()
        known = self._digests.get(job.image.ref)
        image = job.image if job.image.digest or known is None else job.image.model_copy(update={"digest": known})
        identity = images.ensure_image(client, image, progress)
        if identity.digest:
            self._digests[job.image.ref] = identity.digest
        pulled = time.monotonic()
        # The name is chosen here, so that an interruption in mid-creation still knows what to remove.
        name = self._ownership.container_name(job.cell.id)
        try:
            host_memory = self._host_memory[job.runner.docker_host]  # 0 where the daemon does not tell
            memory = min(job.container.memory, int(HOST_MEMORY_SHARE * host_memory) or job.container.memory)
            config = _container_config(client, job, identity, self._ownership.labels(job.cell.id, job.limit_s), memory)
            session = _start(client, config, name, job.files, identity)
            session.pull_s, session.start_s = pulled - begin, time.monotonic() - pulled
            progress("running")
            yield session
        finally:
            _remove(client, name)

    def _client(self, docker_host: str | None) -> docker.APIClient:
        if docker_host not in self._clients:
            self._clients[docker_host] = connect(self._environ, docker_host)
            self._host_memory[docker_host] = int(self._clients[docker_host].info().get("MemTotal") or 0)
        return self._clients[docker_host]


def _start(
    client: docker.APIClient, config: Any, name: str, files: Mapping[str, bytes], identity: ImageIdentity
) -> DockerSession:
    with _stage("create", identity):
        with deferred():  # a creation that nobody waits for ends after its own removal
            client.create_container_from_config(config, name=name)
        client.put_archive(name, "/", payload_archive(files, CONTAINER_PATH))
        output = client.attach(name, stdout=True, stderr=True, stream=True, demux=True)
    with _stage("start", identity):
        client.start(name)
    return DockerSession(client, name, output, identity)


@contextlib.contextmanager
def _stage(stage: LaunchStage, identity: ImageIdentity) -> Iterator[None]:
    """What the daemon refuses is this cell's failure; a daemon that does not answer is everybody's."""
    try:
        yield
    except APIError as error:
        raise LaunchFailed(stage=stage, text=str(error.explanation or error), identity=identity) from error
    except (requests.RequestException, OSError) as error:
        raise unreachable(error) from error


def _container_config(
    client: docker.APIClient, job: Job, identity: ImageIdentity, labels: dict[str, str], memory: int
) -> Any:
    options = job.container
    command = ["/bin/sh", f"{CONTAINER_PATH}/start.sh"]
    override = options.entrypoint == "override"
    host_config = client.create_host_config(
        device_requests=device_requests(options, wanted=job.runner.gpu is not None),
        network_mode=options.network,
        shm_size=options.shm_size,
        mem_limit=memory,
        memswap_limit=memory,
        pids_limit=PIDS_LIMIT,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        # Docker would keep every byte of a flood on the host's disk; attach sees it all the same.
        log_config=LogConfig(type=LogConfig.types.NONE),
    )
    create: Any = client.create_container_config  # its stubs refuse None, which the API takes
    return create(
        image=identity.image_id,
        entrypoint=command if override else None,
        command=None if override else command,
        environment=job.image.env,
        user=None if options.user == "image" else options.user,
        labels=labels,
        healthcheck={"test": ["NONE"]},
        host_config=host_config,
    )


def device_requests(options: ContainerOptions, *, wanted: bool) -> list[DeviceRequest]:
    """What `docker run --gpus …` would ask for; nothing for a runner without a card."""
    if not wanted or options.gpus == "none":
        return []
    if options.gpus == "cdi":
        return [DeviceRequest(driver="cdi", device_ids=["nvidia.com/gpu=all"])]
    if options.gpus == "all":
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=[str(index) for index in options.gpus], capabilities=[["gpu"]])]


def _remove(client: docker.APIClient, name: str) -> None:
    """Remove the container whatever happened; where that fails, its labels tell the next run whose it was."""
    with deferred(), contextlib.suppress(APIError, requests.RequestException):
        client.remove_container(name, force=True, v=True)
