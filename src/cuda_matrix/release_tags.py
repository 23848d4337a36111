"""Owns which release tags a configuration may name: each is one image's alone, and beside the image in its registry.

Pure. Must not know how a tag is given (adapters/registry_tags) or when (promote).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cuda_matrix.image_axes import Finding
from cuda_matrix.image_reference import parts_of, problem_of
from cuda_matrix.plan import PlannedImage


class _Home(NamedTuple):
    """Where a tag was named first."""

    image: str
    entry: int
    place: int


def tag_name(ref: str) -> str:
    """registry/repository:tag, in full: two references of one tag have one name. A digest in it decides nothing."""
    parts = parts_of(ref)
    return f"{parts.name}:{parts.tag or 'latest'}"


def release_findings(rows: Sequence[tuple[int, PlannedImage]]) -> Iterator[Finding]:
    """What is wrong with `release`, once per place. `rows`: index of the entry in `images`, and what it expanded to."""
    sources = {
        tag_name(row.ref): (row.id, index) for index, row in rows if not problem_of(row.ref) and "@" not in row.ref
    }
    homes: dict[str, _Home] = {}
    told: set[tuple[int, int]] = set()
    for index, row in rows:
        for place, target in enumerate(row.release):
            if (index, place) in told:
                continue
            found = _own(row, target) or _others(row.id, index, place, target, sources, homes)
            if found:
                told.add((index, place))
                yield found._replace(path=("images", index, "release", place))


def _own(row: PlannedImage, target: str) -> Finding | None:
    """What is wrong with one target by itself."""
    problem = problem_of(target)
    if problem:
        return Finding((), problem)
    parts = parts_of(target)
    if "@" in target:
        return Finding((), f"{target!r} names a digest: a release is a tag, for example {parts.repository}:latest")
    if parts.tag is None:
        return Finding((), f"say which tag: {target}:latest, for example")
    if problem_of(row.ref):
        return None  # told at its own place
    here = parts_of(row.ref).registry
    if parts.registry != here:
        text = f"{target!r} is of {parts.registry}, its image of {here}: layers are not copied between registries"
        return Finding((), text)
    return None


def _others(
    image: str, index: int, place: int, target: str, sources: dict[str, tuple[str, int]], homes: dict[str, _Home]
) -> Finding | None:
    """What is wrong with one target beside the others; `homes` learns it."""
    name = tag_name(target)
    if name in sources:
        tested, entry = sources[name]
        whose = "this image" if tested == image else f"the image {tested!r}"
        text = f"{target!r} is what {whose} is tested from: a release tag must be another one"
        return Finding((), text, other=("images", entry, "ref"))
    home = homes.setdefault(name, _Home(image, index, place))
    if home == _Home(image, index, place):
        return None
    if home.image == image:
        return Finding((), f"{target!r} stands twice in this list")
    if home.entry == index:
        text = f"several combinations would release {target!r}: put an {{axis}} placeholder into it"
        return Finding((), text)
    text = f"{target!r} is released by the image {home.image!r} already"
    return Finding((), text, other=("images", home.entry, "release", home.place))
