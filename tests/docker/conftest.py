"""The test bed as fixtures: real containers, two simulated cards, a registry (testbed.sh starts them).

Without CUDA_MATRIX_TEST_DOCKER=1 every test here is skipped by name; with it, an engine that does not answer is an
error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_bed import Bed

HERE = Path(__file__).parent
ENABLED = os.environ.get("CUDA_MATRIX_TEST_DOCKER") == "1"
HOW = 'needs real containers: eval "$(sudo tests/docker/testbed.sh up)"'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.docker)
            if not ENABLED:
                item.add_marker(pytest.mark.skip(reason=HOW))


@pytest.fixture(scope="session")
def engine() -> Bed:
    """The test bed that testbed.sh started; an error where it does not answer."""
    bed = Bed(
        registry=os.environ["CUDA_MATRIX_TEST_REGISTRY"],
        docker_host=os.environ["DOCKER_HOST"],
        card_file=Path(os.environ["CUDA_MATRIX_TESTBED_STATE"]) / "gpu",
    )
    bed.docker("version")
    return bed


def _used(engine: Bed, work: Path) -> Iterator[Bed]:
    bed = Bed(engine.registry, engine.docker_host, engine.card_file, work)
    yield bed
    for process in bed.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def bed(engine: Bed, tmp_path: Path) -> Iterator[Bed]:
    """The test bed for one test; afterwards no container of ours may be left."""
    yield from _used(engine, tmp_path)
    left = engine.containers()
    if left:
        engine.docker("rm", "--force", *left)
    assert not left, "the test left containers behind"


@pytest.fixture(scope="module")
def module_bed(engine: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The test bed for runs whose results many tests look at."""
    yield from _used(engine, tmp_path_factory.mktemp("bed"))


@pytest.fixture
def show_card(engine: Bed) -> Iterator[Callable[[str], int]]:
    """`show_card("a800")`: the simulated card of every container that starts from now on."""
    assert engine.card_file is not None
    yield engine.card_file.write_text
    engine.card_file.unlink(missing_ok=True)


@pytest.fixture
def bare_engine(engine: Bed, tmp_path: Path) -> Iterator[Bed]:
    """A second engine: empty, without GPU support, and free to be stopped. `docker_host` is its socket."""
    if os.geteuid() != 0:
        pytest.skip("a second engine can be started by root alone")
    # Short: a socket's path has at most 107 bytes. By chance a name ends in _, so here every one does (testbed.sh).
    state = Path(tempfile.mkdtemp(prefix="cm-", suffix="_"))
    environ = {**os.environ, "CUDA_MATRIX_TESTBED": str(state / "data"), "CUDA_MATRIX_TESTBED_STATE": str(state)}
    testbed = HERE / "testbed.sh"
    subprocess.run([testbed, "bare"], env=environ, check=True, timeout=90)
    second = Bed(engine.registry, f"unix://{state}/docker.sock", work=tmp_path)
    yield second
    for process in second.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    # A test may have killed it: only an engine that runs can remove the containers of its forerunner.
    subprocess.run([testbed, "bare"], env=environ, check=True, timeout=90)
    left = second.docker("ps", "--all", "--quiet").split()
    if left:
        second.docker("rm", "--force", *left)
    subprocess.run([testbed, "down"], env=environ, check=True, timeout=90)
    shutil.rmtree(state)
