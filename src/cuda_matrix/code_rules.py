"""Owns the rules on machine code: has the image code that runs on this card, and do driver and toolkit know the card.

Must not know how code and card are matched (kernels) or how several rules make one answer (findings).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from cuda_matrix.architectures import ArchitectureTable, Capability
from cuda_matrix.driver_rules import driver_cuda, reported_certainty, said_of
from cuda_matrix.facts import Certainty, major_minor, version_key
from cuda_matrix.findings import Finding, least
from cuda_matrix.host_facts import HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.kernels import codes, coverage, parsed
from cuda_matrix.releases import TorchBuild, TorchRelease
from cuda_matrix.tables import Reference

# NVIDIA's monthly images and nightly builds are compiled apart from the published wheels: 2.6.0a0+df5bbc09d1.
_OWN_BUILD = re.compile(r"\d[\d.]*(a|b|rc|\.dev|dev)\d*")
_SURE: frozenset[Certainty] = frozenset({"verified", "documented"})


class Code(NamedTuple):
    """The machine code of an image: entries, and in words whose they are."""

    entries: tuple[str, ...]
    whose: str
    certainty: Certainty
    published: bool


def build_of(image: ImageFacts, host: HostFacts, reference: Reference) -> TorchBuild | None:
    """The published build that the image's torch is; None for a build of its own, and where none is listed."""
    if image.torch in {None, "none"} or image.cuda in {None, "none"} or own_build(image):
        return None
    return _published(image.torch or "", image.cuda or "", host.machine, reference)


@lru_cache(maxsize=1_024)
def _published(torch: str, cuda: str, machine: str, reference: Reference) -> TorchBuild | None:
    return reference.releases.build(torch, cuda, machine)


def own_build(image: ImageFacts) -> bool:
    """Whether the version says that this torch is not a published wheel."""
    return image.torch is not None and _OWN_BUILD.match(image.torch) is not None


def code_of(image: ImageFacts, host: HostFacts, reference: Reference) -> Code | None:
    """What machine code the image has: as measured or given, else that of the published build of its torch."""
    if codes(image.arch_list):
        return Code(image.arch_list, "The image", "verified", published=False)
    build = build_of(image, host, reference)
    if build is None or not build.arch_list:
        return None
    return Code(build.arch_list, f"torch {image.torch} for CUDA {build.cuda}", of_pytorch(image, build), published=True)


def of_pytorch(image: ImageFacts, build: TorchBuild) -> Certainty:
    """How sure it is that the image's torch is the published build: conda-forge and others build the same release."""
    return least(build.certainty, "secondary") if image.maybe_own_build else build.certainty


def dropped(host: HostFacts, reference: Reference) -> Finding | None:
    """The driver no longer knows the card: nothing runs there, whatever the image."""
    capability, table = host.compute_capability, reference.architectures
    if host.driver is None or capability is None or table.knows(host.driver, capability) is not False:
        return None
    architecture = table.architecture(capability)
    assert architecture is not None
    text = (
        f"{_card(host)} is {architecture.name}, which drivers know up to branch {architecture.last_branch}, and not "
        f"{said_of(host, reference.drivers)}. Install branch {architecture.last_branch} or older."
    )
    return Finding("host-failed", "driver-dropped-card", text, architecture.certainty)


def before_card(host: HostFacts, reference: Reference) -> Finding | None:
    """The driver is older than the card. Only a sure row fails the machine; any other makes a remark."""
    row = _row(host, reference)
    most = driver_cuda(host, reference.drivers).most
    if row is None or row.first_toolkit is None or most is None or _reaches(most, row.first_toolkit):
        return None
    first = [each for each in reference.drivers.branches if _reaches(each.cuda, row.first_toolkit)]
    oldest = min((each.branch for each in first), key=version_key, default=None)
    text = (
        f"{_card(host)} is compute capability {row.capability}, which CUDA {row.first_toolkit} was the first to know; "
        f"{said_of(host, reference.drivers)} is older than the card."
    )
    if row.certainty in _SURE:
        return Finding("host-failed", "driver-before-card", text, row.certainty, needs_driver=oldest)
    return Finding("pass", "driver-before-card", text, "documented", remarks=(text,))


def coverage_of(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding:
    """Whether there is machine code for the card, or PTX that this driver compiles."""
    if host.compute_capability is None:
        what = f"Nothing is known of {host.gpu!r}" if host.gpu else "The card is not known"
        return Finding(
            "unknown", "unknown-card", f"{what}: neither is whether the image has code for it.", "documented"
        )
    removed = _removed(image, host, reference)
    code = code_of(image, host, reference)
    if code is None:
        return removed or _by_toolkit(image, host, reference)
    how = coverage(code.entries, host.compute_capability, reference.architectures.exact)
    listed = " ".join(code.entries)
    if how == "sass":
        text = f"{code.whose} has machine code for compute capability {host.compute_capability} ({listed})."
        return Finding("pass", "sass", text, code.certainty)
    if how == "ptx":
        return _compiled(image, host, reference, code)
    text = f"{code.whose} has code for {listed}; {_card(host)} is compute capability {host.compute_capability}."
    remarks = _builds_for(image, host, reference)
    rule = "no-ptx-in-pypi-wheels" if code.published else "sass"
    certainty, row = code.certainty, _row(host, reference)
    if row is not None and row.exact and coverage(code.entries, host.compute_capability):
        # Only the chip's being apart speaks against it, and reports on that differ (Orin and sm_80).
        certainty = least(certainty, row.certainty)
    return Finding("fail", rule, text, certainty, "arch-no-kernel", remarks=remarks)


def _compiled(image: ImageFacts, host: HostFacts, reference: Reference, code: Code) -> Finding:
    """PTX runs where the driver knows the PTX of the toolkit that made it."""
    reported, has = driver_cuda(host, reference.drivers), said_of(host, reference.drivers)
    card = f"{code.whose} has only PTX for {_card(host)} (compute capability {host.compute_capability})"
    toolkit = major_minor(image.cuda or "")
    if toolkit is None or reported.least is None:
        missing = "the toolkit that made it" if toolkit is None else "the driver that must compile it"
        return Finding("unknown", "ptx", f"{card}; {missing} is not known.", code.certainty)
    sure = least(code.certainty, reported_certainty(host, reference.drivers))
    if _reaches(reported.least, toolkit):
        remark = "The driver compiles every kernel at the first start: it is slow, and is kept in ~/.nv/ComputeCache."
        return Finding("pass", "ptx", f"{card}, and {has} compiles it.", sure, remarks=(remark,))
    rows = [row.driver for row in reference.drivers.toolkits if row.cuda == toolkit]
    needs = min(rows, key=version_key, default=None)
    text = f"{card}, made by CUDA {toolkit}: {has} cannot compile it (error 222)."
    if reported.most is None or _reaches(reported.most, toolkit) or image.compat:
        return Finding("unknown", "minor-version-limits", text, sure, needs_driver=needs)
    return Finding("fail", "minor-version-limits", text, sure, "ptx-toolchain", needs)


def _removed(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding | None:
    """The toolkit makes no code for the card any more: nothing built with it can have some."""
    row = _row(host, reference)
    if row is None or row.removed_in is None or image.cuda in {None, "none"}:
        return None
    if not _reaches(image.cuda or "", row.removed_in):
        return None
    text = (
        f"CUDA {row.removed_in} dropped compute capability {row.capability}: what is built with CUDA {image.cuda} has "
        f"no code for {_card(host)}."
    )
    remarks = _builds_for(image, host, reference)
    return Finding("fail", "toolkit-dropped-card", text, row.certainty, "arch-no-kernel", remarks=remarks)


def _by_toolkit(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding:
    """Nobody says what code the image has: what its toolkit can make is all there is to go by."""
    capability, row = host.compute_capability or "", _row(host, reference)
    if image.cuda in {None, "none"}:
        return Finding("unknown", "unknown-image", "Which machine code the image has is not known.", "documented")
    known_torch = image.torch not in {None, "none"} and not own_build(image)
    if known_torch:
        text = f"For which cards torch {image.torch} of CUDA {image.cuda} has code is not known."
        return Finding("unknown", "unknown-image", text, "documented", remarks=_builds_for(image, host, reference))
    if row is None or row.first_toolkit is None:
        text = f"Whether CUDA {image.cuda} makes code for compute capability {capability} is not known."
        return Finding("unknown", "unknown-image", text, "documented")
    if _reaches(image.cuda or "", row.first_toolkit):
        remark = (
            f"For which cards the image's own programs have code is not known; CUDA {image.cuda} can make it for "
            f"compute capability {capability}."
        )
        return Finding("pass", "sass", remark, least(row.certainty, "secondary"), remarks=(remark,))
    sibling = _older_sibling(image.cuda or "", row, reference.architectures)
    came = f"compute capability {capability} came with CUDA {row.first_toolkit}"
    text = f"CUDA {image.cuda} is older than {_card(host)} ({came})"
    if sibling:
        text = f"{text}; code for {sibling.capability} runs there, if the image has it."
        return Finding("pass", "toolkit-before-card", text, "secondary", remarks=(text,))
    text = f"{text}: it runs there only what holds PTX, which is not known of this image."
    return Finding("unknown", "toolkit-before-card", text, row.certainty, remarks=_builds_for(image, host, reference))


def _older_sibling(cuda: str, row: Capability, table: ArchitectureTable) -> Capability | None:
    """A capability of the same major whose code runs on the card, and which the toolkit knows."""
    if row.exact:
        return None
    card = parsed(row.capability)
    siblings = [
        each
        for architecture in table.rows
        for each in architecture.capabilities
        if not each.exact and parsed(each.capability)[0] == card[0] and parsed(each.capability)[1] < card[1]
    ]
    return next((each for each in siblings if table.compiles(cuda, each.capability)), None)


def _builds_for(image: ImageFacts, host: HostFacts, reference: Reference) -> tuple[str, ...]:
    """Which published builds of torch have code for the card: its own release's, else the first and the newest."""
    capability = host.compute_capability
    return _builds(image.torch or "", capability, host.machine, reference) if capability else ()


@lru_cache(maxsize=1_024)
def _builds(torch: str, capability: str, machine: str, reference: Reference) -> tuple[str, ...]:
    releases = reference.releases.releases

    def fitting(rows: Iterable[TorchRelease]) -> Iterator[TorchBuild]:
        for row in rows:
            for variant in row.variants:
                build = reference.releases.build(row.torch, variant.cuda, machine)
                if build and coverage(build.arch_list, capability, reference.architectures.exact):
                    yield build

    has = f"code for compute capability {capability}"
    own = reference.releases.release(torch)
    named = ", ".join(dict.fromkeys(build.cuda for build in fitting([own]))) if own else ""
    if own and named:
        return (f"Of torch {own.torch}, the published builds for CUDA {named} have {has}.",)
    first, last = next(fitting(releases), None), next(fitting(reversed(releases)), None)
    if first is None or last is None:
        return (f"No published build of torch in our tables has {has}.",)
    lead = (
        f"No published build of torch {own.torch} has {has}; of those that have, the"
        if own
        else f"Of the published builds of torch with {has}, the"
    )
    newest = f", the newest in our tables torch {last.torch} for CUDA {last.cuda}" if last != first else ""
    return (f"{lead} first is torch {first.torch} for CUDA {first.cuda}{newest}.",)


def _row(host: HostFacts, reference: Reference) -> Capability | None:
    return _known(host.compute_capability, reference.architectures) if host.compute_capability else None


@lru_cache(maxsize=256)
def _known(capability: str, table: ArchitectureTable) -> Capability | None:
    return table.capability(capability)


def _card(host: HostFacts) -> str:
    return host.card.name if host.card else host.gpu or "the card"


def _reaches(version: str, wanted: str) -> bool:
    return version_key(version)[:2] >= version_key(wanted)[:2]
