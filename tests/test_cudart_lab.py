"""The predictor's driver rule against NVIDIA's own libcudart over a stand-in driver, at every CUDA version since 11.4.

What the lab cannot ask, for the stand-in ends with "invalid argument" where the true driver's secret tables begin:

- whether a driver *release* below the floor of its branch (525.53, CUDA 12.0) is refused: libcudart asks for the CUDA
  version only, so the floors and the packaged drivers rest on NVIDIA's tables;
- CUDA 11 and older: their libcudart wants more of the driver than the stand-in has;
- whether machine code or PTX runs (errors 209 and 222), and what functions of a newer driver answer;
- forward compatibility (803, 804), which the true driver decides by the card; NVIDIA_REQUIRE_*, which the container
  toolkit decides; a driver that dropped the card, or is older than it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_matrix.drivers import cuda_of_number
from cuda_matrix.host_facts import HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.predict import host_facts, predict
from cuda_matrix.reference import load_reference
from lab import build, cudart

FOLDER = os.environ.get("CUDA_MATRIX_TEST_CUDART")
if not FOLDER:
    HOW = (
        "needs NVIDIA's runtimes (70 MB): tests/docker/lab/fetch_cudart.py FOLDER, then CUDA_MATRIX_TEST_CUDART=FOLDER"
    )
    pytestmark = pytest.mark.skip(reason=HOW)

# 11.4 to 13.4: every CUDA version that a driver of NVIDIA's table reports there (12.7 included), and 13.5.
DRIVERS = [
    *(f"11.{minor}" for minor in range(4, 9)),
    *(f"12.{minor}" for minor in range(10)),
    *(f"13.{m}" for m in range(6)),
]
RUNTIMES = [
    "12.1.105",
    "12.4.127",
    "12.8.90",
    "12.9.79",
    *("13.0.96", "13.1.80", "13.2.75", "13.3.29", "13.4.92", "13.5.37"),
]
INSUFFICIENT_DRIVER = (
    35,
    "cudaErrorInsufficientDriver",
    "CUDA driver version is insufficient for CUDA runtime version",
)
PAST_THE_GATE = (1, "cudaErrorInvalidValue", "invalid argument")
REFERENCE = load_reference()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build(tmp_path_factory.mktemp("libcuda"), ("libcuda.so.1",))


def asked(runtime: str, driver_cuda: str, stand_in: Path) -> dict[str, object]:
    (library,) = Path(FOLDER or "", runtime).glob("nvidia/*/lib/libcudart.so.*")
    major, minor = driver_cuda.split(".")
    environment = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(stand_in),
        "CM_FAKE_CUDA_VERSION": f"{int(major) * 1000 + int(minor) * 10}",
    }
    command = [sys.executable, cudart.__file__, str(library)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert cuda_of_number(answer["driver"]) == driver_cuda
    assert cuda_of_number(answer["runtime"]) == ".".join(runtime.split(".")[:2])
    return answer


@pytest.mark.parametrize("driver_cuda", DRIVERS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_predictor_agrees_with_nvidias_runtime(runtime: str, driver_cuda: str, stand_in: Path) -> None:
    answer = asked(runtime, driver_cuda, stand_in)
    said = (answer["code"], answer["name"], answer["words"])
    assert said in {INSUFFICIENT_DRIVER, PAST_THE_GATE}
    image = ImageFacts(cuda=".".join(runtime.split(".")[:2]), torch="none")
    # A card that CUDA 11.4 and 13.5 both know, so that the driver alone decides.
    here = predict(image, HostFacts(compute_capability="8.0", driver_cuda=driver_cuda), REFERENCE)
    expected = ("fail", "driver-too-old") if said == INSUFFICIENT_DRIVER else ("pass", None)
    assert (here.verdict, here.cause) == expected
    # And by the drivers of the table that report this CUDA, each at its branch's newest.
    for row in REFERENCE.drivers.branches:
        if row.cuda == driver_cuda:
            there = predict(image, host_facts("A100 80GB PCIe", f"{row.branch}.999.99", REFERENCE), REFERENCE)
            assert (there.verdict, there.cause) == expected


def test_the_folder_has_every_runtime_that_is_asked() -> None:
    assert sorted(path.name for path in Path(FOLDER or "").iterdir() if path.is_dir()) == sorted(RUNTIMES)
