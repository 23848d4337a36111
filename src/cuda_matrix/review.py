"""Owns what tables and dates say of a configuration whose types are right: mistakes, and what its author should know.

Pure: tables and the day come in as arguments. Must not know where they are read from, or how a warning is shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import date

from cuda_matrix.cards import Card, find_gpu
from cuda_matrix.config import Config, Image
from cuda_matrix.diagnose import NONE
from cuda_matrix.explain import near, nearest
from cuda_matrix.image_axes import Finding
from cuda_matrix.image_tags import names_no_release
from cuda_matrix.payload_items import ItemTable, Kind, matches

# Of what an image is expected to hold, these are no Python distributions, or known by their import name.
_WITHOUT_DISTRIBUTION = frozenset({"torch", "cuda", "cudnn", "python"})
_AXIS = re.compile(r"\{([^{}]*)\}")


def unknown_causes(config: Config, causes: Collection[str]) -> Iterator[Finding]:
    """Causes that no failure can have. `causes`: the catalogue's codes."""
    for index, entry in enumerate(config.policy.expect_fail):
        place = ("policy", "expect_fail", index, "cause")
        if entry.cause == NONE:
            text = f"{NONE!r} means that nothing failed: name the cause that is expected, or leave `cause` out for any"
            yield Finding(place, text)
        elif entry.cause is not None and entry.cause not in causes:
            yield Finding(place, f"{entry.cause!r} is no cause of the catalogue{nearest(entry.cause, causes)}")


def unmatched_items(config: Config, items: ItemTable) -> Iterator[Finding]:
    """Globs that name nothing in the payload's table."""
    yield from _unmatched("check", items.ids("check"), config.payload.checks)
    yield from _unmatched("benchmark", items.ids("benchmark"), config.payload.benchmarks)


def remarks(config: Config, cards: tuple[Card, ...], today: date) -> Iterator[Finding]:
    """What is allowed, and yet probably not meant."""
    for index, image in enumerate(config.images):
        tag = _moving_tag(image)
        if tag is not None:
            what = f"the tag {tag!r} is pushed again and again" if tag else "no tag means `latest`, which changes"
            text = f"{what}: write the tag of one release, or a digest (name@sha256:…)"
            yield Finding(("images", index, "ref"), text)
    for index, image in enumerate(config.images):
        for name in sorted(image.expect.keys() - _WITHOUT_DISTRIBUTION):
            if near(name, _WITHOUT_DISTRIBUTION):
                text = f"{name!r} is looked up as a Python distribution{nearest(name, _WITHOUT_DISTRIBUTION)}"
                yield Finding(("images", index, "expect", name), text, key=True)
    for name, runner in config.runners.items():
        if runner.gpu is not None and not find_gpu(runner.gpu, cards):
            text = f"{runner.gpu!r} is no card that cuda-matrix knows{_nearest_card(runner.gpu, cards)}"
            yield Finding(("runners", name, "gpu"), text)
    for index, entry in enumerate(config.policy.expect_fail):
        if date.fromisoformat(entry.until) < today:
            text = f"{entry.until} has passed: this failure is no longer accepted (mend it, or set a new day)"
            yield Finding(("policy", "expect_fail", index, "until"), text)


def left_out(config: Config, items: ItemTable) -> Iterator[Finding]:
    """Globs whose items belong to other profiles: allowed, since one configuration may serve several."""
    profile = config.payload.profile
    for field, globs in (("checks", config.payload.checks), ("benchmarks", config.payload.benchmarks)):
        for index, glob in enumerate(globs):
            found = [item for item in items.items if f"{item.kind}s" == field and matches(item.id, glob)]
            if found and not any(profile in item.limits_s for item in found):
                others = ", ".join(sorted({name for item in found for name in item.limits_s}))
                text = f"{glob!r} is not in the profile {profile}: nothing runs for it (it is in {others})"
                yield Finding(("payload", field, index), text)


def _unmatched(kind: Kind, known: list[str], globs: tuple[str, ...]) -> Iterator[Finding]:
    for index, glob in enumerate(globs):
        if not any(matches(name, glob) for name in known):
            hint = nearest(glob, known) or f"; known: {', '.join(known)}"
            yield Finding(("payload", f"{kind}s", index), f"{glob!r} matches no {kind}{hint}")


def _moving_tag(image: Image) -> str | None:
    """A tag that moves (empty where there is none), or None. A placeholder stands for each value of its axis."""
    name, digest, _ = image.ref.partition("@")
    if digest:
        return None
    _, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return None if _AXIS.search(name.rpartition("/")[2]) else ""  # an axis may bring the tag with it
    axis = _AXIS.fullmatch(tag)
    tags = image.axes.get(axis[1], ()) if axis else () if _AXIS.search(tag) else (tag,)
    return next((each for each in tags if names_no_release(each)), None)


def _nearest_card(name: str, cards: tuple[Card, ...]) -> str:
    """Brand names are left out on both sides: they make every card look like every other."""
    brand = re.compile(r"\b(nvidia|geforce|tesla|quadro)\s+", re.IGNORECASE)
    shown = {brand.sub("", card.name).lower(): brand.sub("", card.name) for card in cards}
    found = near(brand.sub("", name).lower(), shown) or near(name.lower(), [card.id for card in cards])
    return f"; did you mean {shown.get(found, found)!r}?" if found is not None else ""
