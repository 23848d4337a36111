"""Owns what the build steps of an image tell: which torch was installed, on which system, for which CUDA.

Must not know what else the configuration says (image_config). A step is anybody's text: it is read word by word, in
bounds, and never quoted, because it may hold somebody's password for a package index.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cuda_matrix.image_manifest import Step

STEPS_LIMIT = 300  # the last ones count
STEP_LIMIT = 10_000  # characters of one step that are read
NONE = "none"  # the CUDA of a build for the CPU

_INSTALLERS = {"pip", "pip3", "conda", "mamba", "micromamba"}
_CHANNEL = {"-c", "--channel"}
_TORCH = re.compile(
    r"(\d{1,2}\.\d{1,2}(?:\.\d{1,2})?(?:(?:a|b|rc|\.dev|\.post)\d{1,8})?)(?:\+([a-z]{2,4}\d{0,4}))?", re.ASCII
)
# torch, torch==2.5.1+cu124, pytorch=2.1.0, pytorch::pytorch=2.1, torch>=2; never torchvision or pytorch-cuda.
_PACKAGE = re.compile(r"(?:\w{1,40}::)?(?:torch|pytorch)(?:={1,3}(?P<release>.{1,60})|[<>~!\[].{0,60})?")
_WHEEL = re.compile(r"/torch-(\d[\w.]{0,20}(?:(?:%2B|\+)\w{1,10})?)-", re.ASCII)
_WHEEL_CUDA = re.compile(r"cu(\d{2,3})", re.ASCII)
_CONDA_CUDA = re.compile(r"(?:\w{1,40}::)?(?:pytorch-cuda|cudatoolkit)={1,2}(\d{1,2}\.\d{1,2})(?:\.\d{1,3})?", re.ASCII)
_INDEX = re.compile(r"/whl/(?:nightly/|test/)?(cu\d{2,3}|cpu)\b", re.ASCII)
_BUILD_ARGUMENTS = re.compile(r"\|(\d{1,2}) ", re.ASCII)
_COMPAT_PACKAGE = re.compile(r"cuda-compat-(\d{1,2})-(\d{1,2})", re.ASCII)
_NVIDIA_REPOSITORY = re.compile(r"compute/cuda/repos/([a-z]{3,8})(\d{1,2})(\d\d)?/", re.ASCII)


class Install(NamedTuple):
    """The last step that installs torch. None: that step does not say."""

    torch: str | None
    cuda: str | None


def installed_torch(steps: tuple[Step, ...], *, has_torch: bool) -> Install | None:
    """The torch that the history installs last; None where no step does.

    `has_torch`: a base image already has one. `pip install torch transformers` then installs no other.
    """
    for step in reversed(steps[-STEPS_LIMIT:]):
        for arguments in reversed(list(_installs(step.created_by[:STEP_LIMIT]))):
            found = _install(arguments)
            if found and (found != Install(None, None) or not has_torch):
                return found
    return None


def build_arguments(step: Step) -> dict[str, str]:
    """BuildKit writes `RUN |2 NAME=value OTHER=value /bin/sh -c …`."""
    line = step.created_by[:STEP_LIMIT]
    count = _BUILD_ARGUMENTS.search(line[:20])
    if not count:
        return {}
    words = line[count.end() :].split(maxsplit=int(count[1]))[: int(count[1])]
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def compat_of(text: str) -> str | None:
    """The CUDA version of a forward-compatibility package: `… cuda-compat-12-4 …` → 12.4."""
    package = _COMPAT_PACKAGE.search(text[:STEP_LIMIT])
    return f"{package[1]}.{package[2]}" if package else None


def system_of(step: Step) -> str | None:
    """The system, by the folder of NVIDIA's package repository that a step uses: ubuntu2204 → ubuntu22.04, rhel9."""
    found = _NVIDIA_REPOSITORY.search(step.created_by[:STEP_LIMIT])
    return f"{found[1]}{found[2]}{f'.{found[3]}' if found[3] else ''}" if found else None


def torch_release(text: str) -> tuple[str | None, str | None]:
    """`2.5.1+cu124` → 2.5.1 and cu124; `2.9.0a0+145a3a7bda` → 2.9.0a0: a commit is no build."""
    match = _TORCH.match(text[:80])
    return (match[1], match[2]) if match else (None, None)


def _installs(line: str) -> Iterator[list[str]]:
    """The words after each `pip install`, `conda install` and the like."""
    for command in re.split(r"[&;|\n]+", line.replace("\\\n", " ")):
        if "install" not in command:
            continue
        words = [word.strip("\"'()") for word in command.split()]
        tool = next((at for at, word in enumerate(words) if word.rpartition("/")[2] in _INSTALLERS), None)
        if tool is not None and "install" in words[tool:]:
            yield words[words.index("install", tool) + 1 :]


def _install(arguments: list[str]) -> Install | None:
    torch = build = cuda = None
    found = False
    for before, word in zip(["", *arguments], arguments, strict=False):
        package, wheel, index = _PACKAGE.fullmatch(word), _WHEEL.search(word), _INDEX.search(word)
        if (package and before not in _CHANNEL) or wheel:
            found = True
            release = wheel[1].replace("%2B", "+") if wheel else (package and package["release"]) or ""
            torch, local = torch_release(release)
            build = local or build
        conda = _CONDA_CUDA.fullmatch(word)
        cuda = conda[1] if conda else cuda
        build = build or (index[1] if index else None)
    return Install(torch, cuda or _wheel_cuda(build)) if found else None


def _wheel_cuda(build: str | None) -> str | None:
    """`cu124` → 12.4; `cpu` → none."""
    if build == "cpu":
        return NONE
    match = _WHEEL_CUDA.fullmatch(build or "")
    return f"{match[1][:-1]}.{match[1][-1]}" if match else None
