"""Owns what an image's configuration proves: environment, labels and history → facts, each with where it stands.

Must not know registries (adapters) or tags (image_tags). An image says what its builder wrote: a variable that is not
known to follow from a build step is not believed, and every value is bounded and checked for its form.

Names and traps: https://gitlab.com/nvidia/container-images/cuda (dist/*/Dockerfile),
https://github.com/pytorch/pytorch/blob/main/Dockerfile, https://docs.nvidia.com/deeplearning/frameworks/pytorch-release-notes/.
"""

from __future__ import annotations

import re
from typing import Any

from cuda_matrix import image_history, kernels
from cuda_matrix.image_facts import NOT_CONFIRMED, ImageFacts
from cuda_matrix.image_history import Install
from cuda_matrix.image_manifest import Configuration, Manifest
from cuda_matrix.model import size_bytes
from cuda_matrix.requirement import go_bool

GPU_MEMORY_LABEL = "cuda-matrix.gpu-memory"
_OLDEST_YEAR = 2013  # Docker's first; an older date is a reproducible build's stand-in for "unknown"
_REQUIREMENT_LIMIT = 8_000  # characters; NVIDIA's own longest has about 1,500
_REQUIREMENTS = 8
_ENTRYPOINT_LIMIT = (20, 300)  # words, and characters of each

_TORCH_VARIABLES = ("PYTORCH_BUILD_VERSION", "PYTORCH_VERSION", "TORCH_VERSION")

_NUMBERS = re.compile(r"\d{1,4}(?:\.\d{1,4}){1,3}", re.ASCII)
_UBUNTU = re.compile(r"\d{2}\.\d{2}", re.ASCII)
_UBI = re.compile(r"ubi\d{1,2}", re.ASCII)


def facts_of_image(manifest: Manifest, configuration: Configuration, platforms: tuple[str, ...] = ()) -> ImageFacts:
    """Everything that an image says of itself.

    `platforms` are those of the index that names it. What the environment proves stands over labels, and labels over
    the history; but a torch that a later step installed stands over the variables that the base image left.
    """
    environment = configuration.config.variables
    has_torch = any(name in environment for name in _TORCH_VARIABLES)
    installed = image_history.installed_torch(configuration.history, has_torch=has_torch)
    origins = {"size_bytes": "manifest", "platforms": "index" if platforms else "configuration"}
    for name in ("created", "entrypoint", "user"):
        origins[name] = "configuration"
    created = configuration.created
    words, longest = _ENTRYPOINT_LIMIT
    own = ImageFacts(
        platforms=platforms or ((configuration.platform,) if configuration.os and configuration.architecture else ()),
        size_bytes=sum(layer.size for layer in manifest.layers),
        created=created if created is not None and created.year >= _OLDEST_YEAR else None,
        entrypoint=tuple(word[:longest] for word in configuration.config.entrypoint[:words]),
        user=configuration.config.user[:100],
    )
    own = own.model_copy(update={"origins": {name: text for name, text in origins.items() if own.knows(name)}})
    layers = (
        _of_install(installed),
        _of_environment(environment, installed),
        _of_labels(configuration),
        _of_history(configuration),
    )
    for below in layers:
        own = own.over(below)
    return own


def _of_environment(environment: dict[str, str], installed: Install | None) -> ImageFacts:
    found = _Found()
    for name in _TORCH_VARIABLES:
        found.put("torch", image_history.torch_release(environment.get(name, ""))[0], f"env {name}")
    if installed is None:
        # A wheel brings its own CUDA: the toolkit of the base image is then not the CUDA of the build.
        found.put("cuda", _release(environment.get("CUDA_VERSION", "")), "env CUDA_VERSION")
        found.put("cuda", _release(environment.get("NV_CUDA_LIB_VERSION", "")), "env NV_CUDA_LIB_VERSION")
        cudart = _release(environment.get("NV_CUDA_CUDART_VERSION", ""))
        found.put("cuda", ".".join(cudart.split(".")[:2]) if cudart else None, "env NV_CUDA_CUDART_VERSION")
    for name in ("NV_CUDNN_VERSION", "CUDNN_VERSION"):
        found.put("cudnn", _release(environment.get(name, ""), parts=4), f"env {name}")
    found.put("python", _release(environment.get("PYTHON_VERSION", "")), "env PYTHON_VERSION")
    found.put("flavour", *_flavour(environment))
    if environment.get("NVIDIA_PYTORCH_VERSION"):
        # Elsewhere these say what a later build of an extension shall be for, not what torch was built for.
        for name in ("TORCH_CUDA_ARCH_LIST", "CUDA_ARCH_LIST"):
            found.put("arch_list", _arch_list(environment.get(name, "")), f"env {name}")
    _put_compat(found, environment)
    _put_requirements(found, environment)
    return found.facts()


def _put_compat(found: _Found, environment: dict[str, str]) -> None:
    package = image_history.compat_of(environment.get("NV_CUDA_COMPAT_PACKAGE", ""))
    found.put("compat", package, "env NV_CUDA_COMPAT_PACKAGE")
    if environment.get("_CUDA_COMPAT_PATH"):
        toolkit = _release(environment.get("CUDA_VERSION", ""))
        found.put(
            "compat", ".".join(toolkit.split(".")[:2]) if toolkit else None, "env _CUDA_COMPAT_PATH, CUDA_VERSION"
        )
        found.put("compat_driver", _release(environment.get("CUDA_DRIVER_VERSION", "")), "env CUDA_DRIVER_VERSION")


def _put_requirements(found: _Found, environment: dict[str, str]) -> None:
    """What the toolkit would evaluate, a "legacy" image's implied demand included.

    https://github.com/NVIDIA/nvidia-container-toolkit/blob/main/internal/config/image/cuda_image.go (GetRequirements).
    """
    asked = {
        name: value[:_REQUIREMENT_LIMIT]
        for name, value in environment.items()
        if name.startswith("NVIDIA_REQUIRE_") and not name.startswith("NVIDIA_REQUIRE_JETPACK") and value
    }
    origin = "env " + ", ".join(sorted(asked)[:3])
    toolkit = _release(environment.get("CUDA_VERSION", ""))
    if toolkit and not environment.get("NVIDIA_REQUIRE_CUDA"):
        asked["CUDA_VERSION"] = f"cuda>={'.'.join(toolkit.split('.')[:2])}"
        origin = "env CUDA_VERSION without NVIDIA_REQUIRE_CUDA"
    found.put("require", dict(sorted(asked.items())[:_REQUIREMENTS]), origin)
    found.put("disable_require", go_bool(environment.get("NVIDIA_DISABLE_REQUIRE", "")), "env NVIDIA_DISABLE_REQUIRE")


def _flavour(environment: dict[str, str]) -> tuple[str | None, str]:
    """Which of NVIDIA's three stages the base image is."""
    for name, flavour in (
        ("NV_CUDA_CUDART_DEV_VERSION", "devel"),
        ("NV_CUDA_LIB_VERSION", "runtime"),
        ("NV_CUDA_CUDART_VERSION", "base"),
    ):
        if environment.get(name):
            return flavour, f"env {name}"
    return None, ""


def _of_labels(configuration: Configuration) -> ImageFacts:
    labels = {name: value[:500] for name, value in configuration.config.labels.items()}
    found = _Found()
    found.put("gpu_memory_bytes", _size(labels.get(GPU_MEMORY_LABEL, "")), f"label {GPU_MEMORY_LABEL}")
    torch, _ = image_history.torch_release(labels.get("com.nvidia.pytorch.version", ""))
    found.put("torch", torch, "label com.nvidia.pytorch.version")
    cudnn = _release(labels.get("com.nvidia.cudnn.version", ""), parts=4)
    found.put("cudnn", cudnn, "label com.nvidia.cudnn.version")
    # com.nvidia.cuda.version is 9.0 in every image of NGC, whatever is inside: it is not read.
    version = labels.get("org.opencontainers.image.version", "")
    if labels.get("org.opencontainers.image.ref.name") == "ubuntu" and _UBUNTU.fullmatch(version):
        found.put("os", f"ubuntu{version}", "label org.opencontainers.image.version")
    if _UBI.fullmatch(labels.get("name", "").rpartition("/")[2]):
        found.put("os", labels["name"].rpartition("/")[2], "label name")
    return found.facts()


def _of_history(configuration: Configuration) -> ImageFacts:
    found = _Found()
    for step in reversed(configuration.history[-image_history.STEPS_LIMIT :]):
        arguments = image_history.build_arguments(step)
        found.put("python", _release(arguments.get("PYTHON_VERSION", "")), "history: build argument PYTHON_VERSION")
        if "PYTORCH_VERSION" in arguments:
            # The runtime flavour of pytorch/pytorch says its CUDA nowhere else.
            found.put("cuda", _release(arguments.get("CUDA_VERSION", "")), "history: build argument CUDA_VERSION")
            torch, _ = image_history.torch_release(arguments["PYTORCH_VERSION"])
            found.put("torch", torch, "history: build argument PYTORCH_VERSION")
        found.put("compat", image_history.compat_of(step.created_by), "history: cuda-compat package")
        found.put("os", image_history.system_of(step), "history: NVIDIA's package repository")
    return found.facts()


def _of_install(installed: Install | None) -> ImageFacts:
    found = _Found()
    if installed is not None:
        # A later step may install another as a dependency of something else, which no text of a step tells.
        origin = f"history: the step that installs torch{NOT_CONFIRMED}"
        found.put("torch", installed.torch, origin)
        found.put("cuda", installed.cuda, origin)
    return found.facts()


def _release(text: str, parts: int = 3) -> str | None:
    """`12.4.1-1` → 12.4.1; `13.3.1.008` → 13.3.1."""
    match = _NUMBERS.match(text[:80])
    return ".".join(match[0].split(".")[:parts]) if match else None


def _arch_list(text: str) -> tuple[str, ...]:
    """`8.0 9.0a 12.0+PTX` → sm_80, sm_90a, sm_120, compute_120; nothing where one word is not understood."""
    words = re.split(r"[\s;,]+", text[:500].strip())
    read = [kernels.codes([word]) for word in words]
    return tuple(dict.fromkeys(code.name for codes in read for code in codes)) if all(read) else ()


def _size(text: str) -> int | None:
    try:
        return size_bytes(text)
    except ValueError:
        return None


class _Found:
    """Facts as they are found: the first that is put stays."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}

    def put(self, name: str, value: Any, origin: str) -> None:
        if value and name not in self._values:
            self._values[name] = value
            self._origins[name] = origin[:200]

    def facts(self) -> ImageFacts:
        return ImageFacts(**self._values, origins=self._origins)
