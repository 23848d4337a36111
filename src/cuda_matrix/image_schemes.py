"""Owns what the tags of known repositories say: one grammar each, and NVIDIA's monthly PyTorch images row by row.

Must not know how a reference is taken apart (image_tags) or what else an image says of itself (registry).
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from cuda_matrix.config import Version
from cuda_matrix.facts import Fact, major_minor, version_key
from cuda_matrix.model import Frozen

# What a tag may say. release: NVIDIA's month (25.10); channel: lts, latest and other names that move.
GROUPS = frozenset({"torch", "cuda", "cudnn", "flavour", "os", "release", "channel", "igpu", "python"})
_LONGEST = 300  # characters of a repository or tag: longer ones are no reference (image_reference)


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        msg = f"{value!r} is no regular expression: {error}"
        raise ValueError(msg) from error
    return value


def _whole(pattern: str, text: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, text, re.ASCII)


Pattern = Annotated[str, AfterValidator(_regex)]


class SystemSince(Frozen):
    """The operating system of a scheme's images from one torch release on."""

    torch: Version
    os: str | None = Field(description="None: not looked up for releases from here on.")


class CompatInside(Frozen):
    """Which images of a scheme bring NVIDIA's forward-compatibility package of their own CUDA."""

    since_cuda: Version
    flavours: tuple[str, ...] = Field(default=(), description="None: all.")
    until_torch: Version | None = Field(default=None, description="The last release that does; None: all.")


class Scheme(Fact):
    """The tags of one kind of repository. Patterns match the whole repository name or tag."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: str
    repository: Pattern = Field(description="The name with its registry, without tag and digest.")
    tag: Pattern
    examples: tuple[str, ...] = Field(min_length=1, description="repository:tag")
    traps: tuple[str, ...] = Field(default=(), description="What must be known when reading such a tag.")
    os_since: tuple[SystemSince, ...] = Field(default=(), description="Where the scheme fixes the system.")

    compat: CompatInside | None = Field(default=None, description="None: not known.")
    require: str | None = Field(default=None, description="NVIDIA_REQUIRE_CUDA, where it is the same in all of them.")

    @model_validator(mode="after")
    def _known_groups(self) -> Scheme:
        unknown = set(re.compile(self.tag).groupindex) - GROUPS
        if unknown:
            msg = f"{self.id}: a tag says {', '.join(sorted(GROUPS))}, not {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        return self

    def os_of(self, torch: str) -> str | None:
        """The operating system of this scheme's image of one torch release; None where it is not fixed."""
        rows = [row for row in self.os_since if version_key(row.torch) <= version_key(torch)[:2]]
        return max(rows, key=lambda row: version_key(row.torch)).os if rows else None

    def compat_of(self, cuda: str, torch: str | None = None, flavour: str | None = None) -> str | None:
        """The CUDA version of the forward-compatibility package inside; None where none is known of."""
        inside = self.compat
        if inside is None or version_key(cuda) < version_key(inside.since_cuda):
            return None
        if inside.flavours and flavour not in inside.flavours:
            return None
        last = inside.until_torch
        if last is not None and (torch is None or version_key(torch)[:2] > version_key(last)):
            return None
        return major_minor(cuda)


class NgcImage(Fact):
    """One month of nvcr.io/nvidia/pytorch."""

    release: Annotated[str, Field(pattern=r"^\d\d\.\d\d$")]
    torch: Version | None = None
    cuda: Version | None = None
    cuda_driver: Version | None = Field(
        default=None, description="CUDA_DRIVER_VERSION: of the driver inside the image."
    )


class TagReading(NamedTuple):
    """A tag that a grammar understands: `says` holds what its groups matched, without those that matched nothing."""

    scheme: Scheme
    says: dict[str, str]


class SchemeTable(Frozen):
    """data/image-schemes.yml."""

    sources: dict[str, str]
    schemes: tuple[Scheme, ...]
    ngc: tuple[NgcImage, ...]

    def read(self, repository: str, tag: str) -> TagReading | None:
        """What the tag says by the first scheme that has this repository and understands it; None where none does."""
        if len(repository) > _LONGEST or len(tag) > _LONGEST:
            return None
        for scheme in self.schemes:
            match = _whole(scheme.tag, tag) if _whole(scheme.repository, repository) else None
            if match:
                return TagReading(scheme, {name: text for name, text in match.groupdict().items() if text})
        return None

    def ngc_image(self, release: str) -> NgcImage | None:
        """`25.10` → the row of that month; None where it is not listed."""
        return next((row for row in self.ngc if row.release == release), None)
