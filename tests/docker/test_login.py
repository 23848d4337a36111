"""A registry that asks for a password: logins come from Docker's own configuration and its credential helpers."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from container_bed import Bed, cause
from registry_bed import PASSWORD, USER, serving_registry

# A helper as https://github.com/docker/docker-credential-helpers describes it: the server on stdin, JSON on stdout.
HELPER = f"""#!/bin/sh
[ "$1" = get ] || exit 1
read -r server
printf '{{"ServerURL": "%s", "Username": "{USER}", "Secret": "{PASSWORD}"}}' "$server"
"""


@dataclass(frozen=True)
class PrivateRegistry:
    """Its address, and an image in it."""

    address: str
    ref: str


@pytest.fixture
def private(bed: Bed, tmp_path: Path) -> Iterator[PrivateRegistry]:
    """A second registry, with a password; `bare` is pushed there and removed from the engine."""
    with serving_registry(tmp_path, password=True) as address:
        ref = f"{address}/cm/private:test"
        login = docker_config(tmp_path / "pusher", address, with_password=True)
        bed.docker("tag", bed.ref("bare"), ref)
        bed.docker("--config", str(login), "push", ref)
        bed.docker("rmi", ref)
        yield PrivateRegistry(address, ref)


def docker_config(folder: Path, address: str, *, with_password: bool) -> Path:
    """A folder for DOCKER_CONFIG."""
    folder.mkdir()
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    content = {"auths": {address: {"auth": token}}} if with_password else {"credHelpers": {address: "cmtest"}}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_the_password_of_docker_s_configuration(bed: Bed, private: PrivateRegistry, tmp_path: Path) -> None:
    os_environ = {"DOCKER_CONFIG": str(docker_config(tmp_path / "login", private.address, with_password=True))}
    assert pulled(bed, private, os_environ) == ("fail", "python-missing")


def test_a_credential_helper(bed: Bed, private: PrivateRegistry, tmp_path: Path) -> None:
    helper = tmp_path / "bin/docker-credential-cmtest"
    helper.parent.mkdir()
    helper.write_text(HELPER)
    helper.chmod(0o755)
    config = docker_config(tmp_path / "login", private.address, with_password=False)
    environ = {"DOCKER_CONFIG": str(config), "PATH": f"{helper.parent}:{os.environ['PATH']}"}
    assert pulled(bed, private, environ) == ("fail", "python-missing")


def test_no_login(bed: Bed, private: PrivateRegistry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert pulled(bed, private, {"DOCKER_CONFIG": str(tmp_path / "empty")}) == ("inconclusive", "registry-auth")


def pulled(bed: Bed, private: PrivateRegistry, environ: dict[str, str]) -> tuple[str, str | None]:
    """Verdict and cause of the private image; its password stands nowhere in what the run left."""
    config = bed.write_config([{"id": "private", "ref": private.ref}])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        result = bed.results(config)["private@cpu"]
    for path in Path(f"{config}.results").rglob("*.json"):  # also what was asked a second time
        assert PASSWORD not in path.read_text(encoding="utf-8")
    return result["verdict"], cause(result)
