"""Owns what is known of an image without running it, and where each fact comes from.

Must not know registries (adapters/registry) or what follows from a fact (predict). None or empty means "not known",
never "absent": an image that says nothing of its CUDA may well have one.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from cuda_matrix.model import Bytes, Frozen, Sha256

TAG = "tag"  # how the origin of a fact begins that the tag alone says
CONFIGURED = "configuration"  # the origin of what the user's own configuration expects of an image
NOT_CONFIRMED = " (not confirmed)"  # how the origin of a fact ends that nobody vouches for

# What an image may ask of a driver, variable by variable (NVIDIA_REQUIRE_CUDA and its relatives).
Requirements = dict[str, str]


class ImageFacts(Frozen):
    """One image. `origins` says for each known field where it comes from, for example `tag`, `env NV_CUDNN_VERSION`."""

    ref: str = ""
    digest: Sha256 | None = None
    torch: str | None = Field(
        default=None, description="Release, for example 2.5.1; `none` for an image without torch."
    )
    cuda: str | None = Field(
        default=None, description="CUDA of the build, major.minor[.patch]; `none` for a CPU image."
    )
    cudnn: str | None = None
    python: str | None = None
    os: str | None = Field(default=None, description="For example ubuntu22.04, debian12, rocky9.")
    glibc: str | None = None
    platforms: tuple[str, ...] = Field(default=(), description="os/architecture, for example linux/amd64.")
    arch_list: tuple[str, ...] = Field(default=(), description="sm_80, sm_90a, compute_90: what machine code it has.")
    require: Requirements = Field(default={}, description="NVIDIA_REQUIRE_… variables of the image.")
    disable_require: bool = Field(default=False, description="NVIDIA_DISABLE_REQUIRE is set to a true value.")
    compat: str | None = Field(default=None, description="CUDA version of the forward-compatibility package inside.")
    compat_driver: str | None = Field(
        default=None, description="The driver release that package comes from, for example 610.43.02."
    )
    flavour: str | None = Field(default=None, description="base, runtime, devel.")
    size_bytes: int | None = Field(default=None, ge=0, description="Sum of the compressed layers, as pulled.")
    created: datetime | None = None
    entrypoint: tuple[str, ...] | None = Field(default=None, description="Empty: the image has none.")
    user: str | None = Field(default=None, description="Empty: root.")
    mutable_tag: bool | None = Field(default=None, description="The reference is a tag that may move (`latest`).")
    gpu_memory_bytes: Bytes | None = Field(default=None, description="What its work needs on the card, where stated.")
    origins: dict[str, str] = Field(default={}, max_length=64)

    def over(self, below: ImageFacts) -> ImageFacts:
        """These facts, and those of `below` for every field that is not known here."""
        known = {name: getattr(self, name) for name in type(self).model_fields if self.knows(name)}
        other = {name: getattr(below, name) for name in type(self).model_fields if below.knows(name)}
        origins = {name: text for name, text in below.origins.items() if name not in known} | self.origins
        return ImageFacts(**{**other, **known, "origins": origins})

    @property
    def examined(self) -> bool:
        """Whether a registry showed the image's own configuration: what that does not say, the image does not have."""
        return self.origins.get("digest") == "registry"

    def by_tag(self, name: str) -> bool:
        """Whether this fact is what the tag says, and nothing else."""
        return self.origins.get(name, "").startswith(TAG)

    @property
    def maybe_own_build(self) -> bool:
        """Whether nobody but the configuration speaks of its torch, so that PyTorch may not have built it."""
        return self.origins.get("torch") == CONFIGURED

    def confirmed(self, name: str) -> bool:
        """False for a fact that is somebody's word: a stranger's tag, or a build step read as text."""
        return not self.origins.get(name, "").endswith(NOT_CONFIRMED)

    def knows(self, name: str) -> bool:
        """Whether this field says anything."""
        value = getattr(self, name)
        if name in {"entrypoint", "user", "mutable_tag"}:
            return value is not None
        return name != "origins" and value not in (None, "", (), {}, False)
