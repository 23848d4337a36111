"""Which daemon: the one that `docker` itself would use."""

from __future__ import annotations

import gc
import hashlib
import json
import socket
from pathlib import Path

import pytest

from cuda_matrix.adapters.endpoint import connect, endpoint, unreachable
from cuda_matrix.diagnose import Evidence, Fragment, diagnose
from cuda_matrix.errors import InfrastructureError
from cuda_matrix.reference import load_reference


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Docker configuration folder with one context, `lab`. The SDK reads the variable itself."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"lab").hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": "tcp://lab.example:2375", "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": "lab", "Metadata": {}, "Endpoints": endpoints}))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def use(docker_config: Path, context: str) -> None:
    (docker_config / "config.json").write_text(json.dumps({"currentContext": context}))


def test_without_anything_the_local_socket(docker_config: Path) -> None:
    assert endpoint({}) == {}


def test_the_context_in_use(docker_config: Path) -> None:
    use(docker_config, "lab")
    assert endpoint({})["base_url"] == "tcp://lab.example:2375"


def test_the_variable_beats_the_context_in_use(docker_config: Path) -> None:
    assert endpoint({"DOCKER_CONTEXT": "lab"})["base_url"] == "tcp://lab.example:2375"
    use(docker_config, "lab")
    assert endpoint({"DOCKER_CONTEXT": "default"}) == {}


def test_docker_host_beats_both_and_the_runner_s_own_beats_all(docker_config: Path) -> None:
    use(docker_config, "lab")
    environ = {"DOCKER_HOST": "unix:///other.sock", "DOCKER_CONTEXT": "lab"}
    assert endpoint(environ) == {"base_url": "unix:///other.sock"}
    assert endpoint(environ, "ssh://gpu@a800") == {"base_url": "ssh://gpu@a800"}


def test_tls_of_the_environment_holds_for_a_runner_s_tcp_host(docker_config: Path, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("")
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    settings = endpoint(environ, "tcp://a800:2376")
    assert settings["base_url"] == "tcp://a800:2376"
    assert settings["tls"].ca_cert == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DOCKER_HOST": "unix:///nowhere/docker.sock"}, "unix:///nowhere/docker.sock"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:1"}, "tcp://127.0.0.1:1"),
        ({"DOCKER_HOST": "nonsense://x"}, "nonsense"),
        ({"DOCKER_CONTEXT": "missing"}, "no Docker context 'missing'"),
    ],
)
def test_a_daemon_that_does_not_answer(docker_config: Path, environ: dict[str, str], words: str) -> None:
    with pytest.raises(InfrastructureError, match="cannot reach") as caught:
        connect(environ)
    gc.collect()  # nothing is left to it: an open socket would be an error here
    assert words in str(caught.value)
    assert "docker context use" in caught.value.hint


@pytest.mark.parametrize("left", [False, True])
def test_a_socket_without_a_daemon_is_diagnosed(docker_config: Path, tmp_path: Path, left: bool) -> None:
    path = tmp_path / "engine"  # no engine's usual name
    if left:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    with pytest.raises(InfrastructureError) as caught:
        connect({}, f"unix://{path}")
    assert diagnosed(caught.value) == "docker-daemon-down"


def test_a_socket_of_others_is_diagnosed() -> None:
    """By its words: root, who may run these tests, is refused nowhere."""
    error = unreachable(PermissionError(13, "Permission denied"), "unix:///run/user/1000/engine")
    assert diagnosed(error) == "docker-sock-permission"
    assert "add this account to the `docker` group" in error.hint


def diagnosed(error: Exception) -> str:
    reference = load_reference()
    evidence = Evidence(fragments=(Fragment(where="engine", text=str(error)),))
    return diagnose(evidence, reference.catalogue, reference.drivers).cause
