"""What images say of themselves. The environments are those of the real images, shortened where they repeat."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.image_config import facts_of_image
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.image_manifest import Index, Manifest, NotAnImage, read_configuration, read_manifest

SHA = "sha256:" + "0" * 64
MANIFEST = {
    "schemaVersion": 2,
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": SHA, "size": 10},
    "layers": [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": SHA, "size": 3_000_000_000},
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": SHA, "size": 5},
    ],
}
REQUIRE = "cuda>=12.4 brand=tesla,driver>=470,driver<471 brand=unknown,driver>=470,driver<471"
CUDA_BASE = [
    "PATH=/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/bin",
    "NVARCH=x86_64",
    f"NVIDIA_REQUIRE_CUDA={REQUIRE}",
    "NV_CUDA_CUDART_VERSION=12.4.127-1",
    "NV_CUDA_COMPAT_PACKAGE=cuda-compat-12-4",
    "CUDA_VERSION=12.4.1",
    "NVIDIA_VISIBLE_DEVICES=all",
]
CUDA_DEVEL = [*CUDA_BASE, "NV_CUDA_LIB_VERSION=12.4.1-1", "NV_CUDA_CUDART_DEV_VERSION=12.4.127-1"]
UBUNTU = {"org.opencontainers.image.ref.name": "ubuntu", "org.opencontainers.image.version": "22.04"}
NGC = [
    "CUDA_VERSION=13.3.1.008",
    "CUDA_DRIVER_VERSION=610.43.02",
    "_CUDA_COMPAT_PATH=/usr/local/cuda/compat",
    "NVIDIA_REQUIRE_CUDA=cuda>=9.0",
    "NVIDIA_PYTORCH_VERSION=26.07",
    "PYTORCH_VERSION=2.13.0a0+9186a08",
    "PYTORCH_BUILD_VERSION=2.13.0a0+9186a08",
    "CUDA_ARCH_LIST=7.5 8.0 8.6 9.0 10.0 12.0",
    "TORCH_CUDA_ARCH_LIST=7.5 8.0 8.6 9.0 10.0 12.0+PTX",
    "CUDNN_VERSION=9.15.0.57",
]


def facts(
    env: list[str] | None = None, labels: dict[str, str] | None = None, steps: list[str] | None = None, **more: Any
) -> ImageFacts:
    document = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2024-10-29T17:30:29.123456789Z",
        "config": {"Env": env, "Labels": labels, "Entrypoint": None},
        "history": [{"created_by": step} for step in steps or []],
        **more,
    }
    manifest = read_manifest(json.dumps(MANIFEST).encode())
    assert isinstance(manifest, Manifest)
    return facts_of_image(manifest, read_configuration(json.dumps(document).encode()))


def test_nvidia_cuda() -> None:
    found = facts(CUDA_DEVEL, UBUNTU)
    assert (found.cuda, found.os, found.flavour, found.compat) == ("12.4.1", "ubuntu22.04", "devel", "12.4")
    assert found.require == {"NVIDIA_REQUIRE_CUDA": REQUIRE}
    assert found.torch is None, "that no torch is inside is nothing the configuration proves"
    assert found.origins["cuda"] == "env CUDA_VERSION"
    assert found.origins["os"] == "label org.opencontainers.image.version"
    assert facts(CUDA_BASE).flavour == "base"
    assert facts([*CUDA_BASE, "NV_CUDA_LIB_VERSION=12.4.1-1"]).flavour == "runtime"


def test_pytorch_runtime_says_its_cuda_in_the_build_arguments_alone() -> None:
    found = facts(
        ["PATH=/opt/conda/bin:/usr/bin", "NVIDIA_VISIBLE_DEVICES=all", "PYTORCH_VERSION=2.5.1"],
        {"com.nvidia.volumes.needed": "nvidia_driver", **UBUNTU},
        [
            "/bin/sh -c #(nop) ADD file:a in / ",
            "RUN |4 PYTORCH_VERSION=2.5.1 TRITON_VERSION= TARGETPLATFORM=linux/amd64 CUDA_VERSION=12.4.1 /bin/sh -c x",
            "COPY /opt/conda /opt/conda # buildkit",
        ],
    )
    assert (found.torch, found.cuda, found.require) == ("2.5.1", "12.4.1", {})
    assert (found.origins["torch"], found.origins["cuda"]) == (
        "env PYTORCH_VERSION",
        "history: build argument CUDA_VERSION",
    )


def test_ngc_is_read_by_what_is_no_constant() -> None:
    found = facts(NGC, {"com.nvidia.cuda.version": "9.0", "com.nvidia.pytorch.version": "2.13.0a0+9186a08"})
    assert (found.torch, found.cuda, found.cudnn) == ("2.13.0a0", "13.3.1", "9.15.0.57")
    assert (found.compat, found.compat_driver) == ("13.3", "610.43.02")
    assert found.arch_list == ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
    assert found.require == {"NVIDIA_REQUIRE_CUDA": "cuda>=9.0"}


def test_an_arch_list_for_later_builds_is_not_what_torch_was_built_for() -> None:
    assert facts(["TORCH_CUDA_ARCH_LIST=8.0 9.0+PTX", "PYTORCH_VERSION=2.5.1"]).arch_list == ()


def test_an_arch_list_that_is_not_understood_says_nothing() -> None:
    assert facts(["NVIDIA_PYTORCH_VERSION=26.07", "CUDA_ARCH_LIST=8.0 Ampere"]).arch_list == ()


@pytest.mark.parametrize(
    ("step", "torch", "cuda"),
    [
        ("RUN pip install torch==2.5.1 --index-url https://download.pytorch.org/whl/cu124", "2.5.1", "12.4"),
        ("RUN |1 X=y /bin/sh -c pip3 install --no-cache-dir 'torch==2.1.0+cu118' torchvision", "2.1.0", "11.8"),
        ("/bin/sh -c python3 -m pip install torch==1.13.1+cpu -f https://x/whl/torch_stable.html", "1.13.1", "none"),
        ('RUN uv pip install --system "torch==2.9.0" --index-url https://x/whl/cu130', "2.9.0", "13.0"),
        ("RUN conda install -y pytorch==2.1.0 torchvision pytorch-cuda=11.8 -c pytorch -c nvidia", "2.1.0", "11.8"),
        ("RUN mamba install -c pytorch torchvision cudatoolkit=11.3", None, "12.4.1"),
        (
            "RUN pip install https://download.pytorch.org/whl/cu118/torch-2.0.1%2Bcu118-cp310-cp310-linux_x86_64.whl",
            "2.0.1",
            "11.8",
        ),
        ("RUN apt-get update && pip install -U pip; pip install torch==2.2.0", "2.2.0", None),
        ("RUN pip install torchvision==0.20.1 torch-geometric", None, "12.4.1"),
        ("RUN pip install 'torch>=2.4,<3' --extra-index-url https://u:secret@host/whl/cu121", None, "12.1"),
        ("COPY torch==2.0.0 /install", None, "12.4.1"),
    ],
)
def test_a_step_that_installs_torch(step: str, torch: str | None, cuda: str | None) -> None:
    """Upon nvidia/cuda 12.4.1: a wheel brings its own CUDA, whatever the base image has."""
    found = facts(CUDA_DEVEL, steps=["FROM base", step, "CMD bash"])
    assert (found.torch, found.cuda) == (torch, cuda)
    assert "secret" not in found.model_dump_json()


def test_the_last_install_wins_over_the_base_image() -> None:
    env = [*CUDA_DEVEL, "PYTORCH_VERSION=2.1.0"]
    later = facts(env, steps=["RUN pip install torch==2.4.0+cu118", "RUN pip install torch==2.5.1+cu121"])
    assert (later.torch, later.cuda) == ("2.5.1", "12.1")
    same = facts(env, steps=["RUN pip install torch transformers"])
    assert (same.torch, same.cuda, same.origins["cuda"]) == ("2.1.0", "12.4.1", "env CUDA_VERSION")


def test_a_legacy_image_asks_for_its_cuda() -> None:
    """The toolkit: CUDA_VERSION without NVIDIA_REQUIRE_CUDA implies a demand."""
    found = facts(["CUDA_VERSION=10.2.89", "NVIDIA_REQUIRE_JETPACK=5", "NVIDIA_REQUIRE_DRIVER=driver>=418"])
    assert found.require == {"CUDA_VERSION": "cuda>=10.2", "NVIDIA_REQUIRE_DRIVER": "driver>=418"}


@pytest.mark.parametrize(("value", "disabled"), [("true", True), ("1", True), ("T", True), ("yes", False), ("", False)])
def test_requirements_switched_off(value: str, disabled: bool) -> None:
    assert facts([f"NVIDIA_DISABLE_REQUIRE={value}"]).disable_require is disabled


@pytest.mark.parametrize(
    ("labels", "steps", "os"),
    [
        (UBUNTU, [], "ubuntu22.04"),
        ({"org.opencontainers.image.ref.name": "ubuntu", "org.opencontainers.image.version": "v1.2"}, [], None),
        ({"name": "ubi9", "version": "9.4"}, [], "ubi9"),
        ({"name": "rhel/ubi8"}, [], "ubi8"),
        (
            {},
            ["RUN curl https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/k.deb"],
            "ubuntu24.04",
        ),
        ({}, ["RUN dnf config-manager --add-repo https://x/compute/cuda/repos/rhel9/x86_64/cuda.repo"], "rhel9"),
        ({}, ["RUN wget https://x/compute/cuda/repos/debian12/x86_64/cuda-keyring.deb"], "debian12"),
        ({}, [], None),
    ],
)
def test_the_system(labels: dict[str, str], steps: list[str], os: str | None) -> None:
    assert facts([], labels, steps).os == os


def test_size_age_and_start() -> None:
    found = facts([], created="2024-10-29T17:30:29.123456789Z", config={"Entrypoint": ["/a", "b"], "User": "app"})
    assert found.size_bytes == 3_000_000_005
    assert found.created == datetime(2024, 10, 29, 17, 30, 29, 123456, tzinfo=timezone.utc)
    assert (found.entrypoint, found.user, found.platforms) == (("/a", "b"), "app", ("linux/amd64",))
    assert found.origins["created"] == "configuration"


@pytest.mark.parametrize("created", ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "yesterday", None, 5.5])
def test_a_date_that_means_nothing(created: Any) -> None:
    found = facts([], created=created)
    assert found.created is None
    assert "created" not in found.origins


def test_an_image_without_entrypoint_and_user_is_known_to_have_none() -> None:
    found = facts([], config=None)
    assert (found.entrypoint, found.user) == ((), "")
    assert {"entrypoint", "user"} <= set(found.origins)


@pytest.mark.parametrize(("text", "size"), [("16g", 16 << 30), ("a lot", None), ("16", None)])
def test_the_memory_that_an_image_asks_for(text: str, size: int | None) -> None:
    assert facts([], {"cuda-matrix.gpu-memory": text}).gpu_memory_bytes == size


def test_every_fact_has_an_origin() -> None:
    for found in (facts(NGC, UBUNTU), facts(CUDA_DEVEL, UBUNTU, ["RUN pip install torch==2.5.1+cu124"])):
        known = {name for name in ImageFacts.model_fields if found.knows(name)}
        assert known == set(found.origins)


def test_the_index() -> None:
    row = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 5}
    body = {
        "manifests": [
            {
                **row,
                "digest": "sha256:" + "1" * 64,
                "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
            },
            {**row, "digest": "sha256:" + "2" * 64, "platform": {"os": "linux", "architecture": "amd64"}},
            {**row, "digest": "sha256:" + "3" * 64, "platform": {"os": "unknown", "architecture": "unknown"}},
        ]
    }
    index = read_manifest(json.dumps(body).encode())
    assert isinstance(index, Index)
    assert index.platforms == ("linux/arm64", "linux/amd64")
    assert index.chosen("linux/amd64").digest[-1] == "2"
    assert index.chosen("linux/s390x").digest[-1] == "1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("os", "architecture", "created", "config", "history", "layers", "manifests", "Env", "Labels", "schemaVersion")


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
def test_a_foreign_document_is_read_or_refused(document: dict[str, Any]) -> None:
    """Whatever a registry sends, nothing but NotAnImage comes out."""
    body = json.dumps(document).encode()
    manifest = read_manifest(json.dumps(MANIFEST).encode())
    assert isinstance(manifest, Manifest)
    for read in (read_manifest, lambda text: facts_of_image(manifest, read_configuration(text))):
        with contextlib.suppress(NotAnImage):
            read(body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"null", b"5"])
def test_bodies_that_are_no_document(body: bytes) -> None:
    with pytest.raises(NotAnImage):
        read_manifest(body)


def test_a_hostile_history_costs_little() -> None:
    step = "pip install " * 700 + "torch " * 300
    begin = time.process_time()
    facts(["A=" + "x" * 100_000] * 10, steps=[step] * 2_000)
    assert time.process_time() - begin < 2


def test_digits_of_other_scripts_are_no_version() -> None:
    found = facts(["CUDA_VERSION=١٢.١.١", "PYTORCH_VERSION=٢.٥.١"], steps=["RUN pip install torch==٢.٥.١"])
    assert (found.torch, found.cuda, found.require) == (None, None, {})


def test_a_step_that_is_read_as_text_is_nobodys_word() -> None:
    assert not facts(steps=["RUN pip install torch==2.5.1+cu124"]).confirmed("cuda")
    assert facts(CUDA_BASE).confirmed("cuda")
