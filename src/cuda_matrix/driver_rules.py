"""Owns the rules on the driver: is it new enough for the image's CUDA, and does the container stack let it start.

Must not know machine code (code_rules) or how several rules make one answer (findings).
Rules: https://docs.nvidia.com/deploy/cuda-compatibility/ (minor-version and forward compatibility, FAQ).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Literal, NamedTuple

from cuda_matrix.cards import Card, find_gpu
from cuda_matrix.drivers import DriverTable, Toolkit
from cuda_matrix.facts import Certainty, major_minor, version_key
from cuda_matrix.findings import Finding, least
from cuda_matrix.host_facts import HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.requirement import Admission, Machine, evaluate, says_something
from cuda_matrix.tables import Reference

# full: everything works. minor: it starts, by minor-version compatibility alone. none: the runtime refuses the driver.
Level = Literal["full", "minor", "none", "unknown"]
_LIMITS_RULE = "minor-version-limits"


class Reach(NamedTuple):
    """How far a driver's word goes for one CUDA version. `oldest` is the oldest driver that starts it, where known."""

    level: Level
    certainty: Certainty
    oldest: str | None = None
    packaged: str | None = None


class DriverCuda(NamedTuple):
    """The newest CUDA that a driver reports: between two versions where its branch is in no table."""

    least: str | None
    most: str | None

    @property
    def exact(self) -> str | None:
        """The one version, where it is known."""
        return self.least if self.least == self.most else None


def driver_cuda(host: HostFacts, drivers: DriverTable) -> DriverCuda:
    """What the driver reports: as measured, else by its branch, else between the branches on either side."""
    if host.driver_cuda or host.driver is None:
        return DriverCuda(host.driver_cuda, host.driver_cuda)
    return _reported(host.driver, drivers)


@lru_cache(maxsize=1_024)
def _reported(driver: str, drivers: DriverTable) -> DriverCuda:
    known = drivers.cuda_of(driver)
    if known:
        return DriverCuda(known, known)
    branch = version_key(driver)[:1]
    older = [row.cuda for row in drivers.branches if version_key(row.branch) < branch]
    newer = [row.cuda for row in drivers.branches if version_key(row.branch) > branch]
    return DriverCuda(max(older, key=version_key, default=None), min(newer, key=version_key, default=None))


def reach(cuda: str, driver: str | None, reported: DriverCuda, drivers: DriverTable) -> Reach:
    """Whether a driver starts a program of CUDA `cuda` (`12.1`, `12.1.1`): the rule that NVIDIA's runtime applies.

    With a patch level the driver packaged with that very toolkit counts; without one, the oldest of its rows lets the
    program start, and the newest says that all of its features work.
    """
    rows = _packaged(cuda, drivers)
    lowest = min(rows, key=lambda row: version_key(row.driver), default=None)
    highest = max(rows, key=lambda row: version_key(row.driver), default=None)
    floor = next((row for row in drivers.floors if row.cuda_major == cuda.split(".", maxsplit=1)[0]), None)
    entries = [row for row in (lowest, floor) if row]
    first = min(entries, key=lambda row: version_key(row.driver), default=None)
    oldest = first.driver if first else None
    packaged = highest.driver if highest else None
    if driver is None or not entries:
        return Reach(_by_cuda(cuda, reported, drivers), "documented", oldest, packaged)
    above_floor = floor is not None and _at_least(driver, floor.driver)
    if highest and _at_least(driver, highest.driver):
        return Reach(
            "full", _best(highest.certainty, floor.certainty if floor and above_floor else None), oldest, packaged
        )
    if not highest and reported.least and _at_least(reported.least, _two(cuda)):
        return Reach("full", "documented", oldest, packaged)
    if above_floor and floor:
        return Reach("minor", floor.certainty, oldest, packaged)
    if lowest and _at_least(driver, lowest.driver):
        return Reach("minor", lowest.certainty, oldest, packaged)
    certainty: Certainty = first.certainty if first else "documented"
    if reported.least and drivers.runs(reported.least, cuda):
        # 525.60.11: below NVIDIA's floor, yet of CUDA 12.0, and that is all that the runtime itself asks for.
        certainty = least(certainty, "secondary")
    return Reach("none", certainty, oldest, packaged)


@lru_cache(maxsize=256)
def _packaged(cuda: str, drivers: DriverTable) -> tuple[Toolkit, ...]:
    """The rows of this very patch level; those of major.minor where it is not given, or not listed."""
    same = tuple(row for row in drivers.toolkits if row.cuda == _two(cuda))
    patch = ".".join(cuda.split(".")[:3])
    exact = tuple(row for row in same if patch in row.release.replace("/", " ").split())
    return exact or same


def _by_cuda(cuda: str, reported: DriverCuda, drivers: DriverTable) -> Level:
    """The answer by CUDA versions alone."""
    if reported.least and _at_least(reported.least, _two(cuda)):
        return "full"
    if reported.least and drivers.runs(reported.least, cuda):
        return "minor"
    if reported.most and not drivers.runs(reported.most, cuda):
        return "none"
    return "unknown"


def admission(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding | None:
    """What the container stack says to NVIDIA_REQUIRE_* before the image starts; None where it asks for nothing."""
    if image.disable_require:
        return None
    if not says_something(image.require):
        return _not_seen(image, host, reference)
    answer = evaluate(image.require, machine_of(host, reference))
    if answer.admitted and (answer.lasting or host.access == "cdi"):
        return None
    has, sure = said_of(host, reference.drivers), reported_certainty(host, reference.drivers)
    if host.access == "cdi":
        return _unchecked(answer.unsatisfied, has)
    if not answer.admitted:
        return _refused(answer, has, sure, reference)
    text = (
        f"The image starts with {has} only by a clause of NVIDIA_REQUIRE_* for some drivers ({answer.opened_by}); "
        "a newer driver that no clause names may be refused."
    )
    return Finding("warn", "require-brand", text, sure)


def _not_seen(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding | None:
    """An image with NVIDIA's cuda-compat package has a requirement, too: a tag does not tell which drivers it names."""
    if image.compat is None or not image.by_tag("compat") or host.access == "cdi" or image.require:
        return None
    reported = driver_cuda(host, reference.drivers)
    if reported.least is None or _at_least(reported.least, image.compat):
        return None
    text = (
        f"Such images ask for cuda>={image.compat} or some older drivers (NVIDIA_REQUIRE_CUDA); whether "
        f"{said_of(host, reference.drivers)} is one of these, their registry knows and the tag does not tell."
    )
    needs = _driver_for(f"cuda>={image.compat}", reference)
    return Finding("unknown", "require-cuda-value", text, "documented", needs_driver=needs)


def _refused(answer: Admission, has: str, sure: Certainty, reference: Reference) -> Finding:
    wants, cause = answer.unsatisfied, "image-require-unsatisfied"
    needs = _driver_for(wants, reference)
    if answer.admitted is None:
        text = (
            f"Whether the image's requirement ({wants}, NVIDIA_REQUIRE_*) lets it start is not known: {answer.reason}."
        )
        return Finding("unknown", "require-syntax", text, sure, needs_driver=needs)
    if answer.reason:
        text = f"NVIDIA's container stack cannot read the image's requirement, and so refuses it: {answer.reason}."
        return Finding("fail", "require-syntax", text, "verified", cause)
    # Newer Docker hands --gpus to CDI where it can (https://github.com/moby/moby/pull/50228), and then nobody checks: a
    # refusal alone is not sure enough to leave a cell out.
    sure = least(sure, "secondary")
    text = (
        f"NVIDIA's container stack refuses to start the image (unsatisfied condition: {wants}) with {has}. "
        "Raise the driver, or take an image of an older CUDA. NVIDIA_DISABLE_REQUIRE=true skips the check alone."
    )
    return Finding("fail", "require-cuda-value", text, sure, cause, needs)


def _unchecked(wants: str, has: str) -> Finding:
    text = (
        f"Under CDI nobody evaluates NVIDIA_REQUIRE_*: the image asks for {wants}, and starts with {has} all the same."
    )
    return Finding("pass", "require-who", text, "verified", remarks=(text,))


def reported_certainty(host: HostFacts, drivers: DriverTable) -> Certainty:
    """How sure it is which CUDA the driver reports."""
    if host.driver_cuda or host.driver is None:
        return "verified"
    branch = host.driver.split(".", maxsplit=1)[0]
    return next((row.certainty for row in drivers.branches if row.branch == branch), "documented")


def machine_of(host: HostFacts, reference: Reference) -> Machine:
    """The properties that NVIDIA_REQUIRE_* is held against."""
    reported = driver_cuda(host, reference.drivers)
    brands = {brand: None for card in cards_of(host, reference) for brand in reference.drivers.brands_of(card.kind)}
    return Machine((reported.least, reported.most), host.driver, host.compute_capability, tuple(brands))


def cards_of(host: HostFacts, reference: Reference) -> tuple[Card, ...]:
    """The rows that the machine's card can be: several where its name leaves memory or housing open."""
    return (host.card,) if host.card else _named(host.gpu, reference) if host.gpu else ()


@lru_cache(maxsize=256)
def _named(gpu: str, reference: Reference) -> tuple[Card, ...]:
    return find_gpu(gpu, reference.cards)


def said_of(host: HostFacts, drivers: DriverTable) -> str:
    """`driver 470.129.06 (CUDA 11.4)`."""
    exact = driver_cuda(host, drivers).exact
    if host.driver is None:
        return f"a driver of CUDA {exact}" if exact else "an unknown driver"
    return f"driver {host.driver} (CUDA {exact})" if exact else f"driver {host.driver}"


def _driver_for(condition: str, reference: Reference) -> str | None:
    """`cuda>=12.8` → the oldest driver that reports CUDA 12.8."""
    match = re.match(r"cuda>=(\d+\.\d+)", condition)
    rows = _packaged(match[1], reference.drivers) if match else ()
    return min((row.driver for row in rows), key=version_key, default=None)


def floor(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding:
    """Whether the driver is new enough for the image's CUDA runtime."""
    cuda, drivers = image.cuda, reference.drivers
    if cuda is None or cuda == "none":
        text = "The CUDA version of the image is not known, so neither is the driver that it needs."
        return Finding("unknown", "unknown-image", text, "documented")
    reported = driver_cuda(host, drivers)
    here = reach(cuda, host.driver, reported, drivers)
    has, needs = said_of(host, drivers), _needs(cuda, here, drivers)
    if here.level == "unknown":
        unknown = "which driver the card has is not known" if host.driver is None else f"nothing is known of {has}"
        return Finding("unknown", "unknown-driver", f"{needs}; {unknown}.", here.certainty, needs_driver=here.oldest)
    if here.level == "none":
        return _with_forward_compatibility(image, host, here, reference)
    switched_on = _switched_on(image, host, reference)
    if switched_on:
        return switched_on
    if here.level == "full":
        text = f"What is built with CUDA {cuda} runs with {has}."
        return Finding("pass", "backward", text, here.certainty)
    text = f"{needs}; {has} is enough by minor-version compatibility."
    packaged = (f"All features of CUDA {cuda} need driver {here.packaged}.",) if here.packaged else ()
    limits = () if reported.least and _at_least(reported.least, _two(cuda)) else (_LIMITS_RULE,)
    remarks = (*packaged, *(reference.rules[rule].text for rule in limits))
    return Finding("pass", "minor-version", text, here.certainty, remarks=remarks)


def _needs(cuda: str, here: Reach, drivers: DriverTable) -> str:
    """`CUDA 12.1 needs a driver of CUDA 12 (525.60.13 or newer)`."""
    major = version_key(cuda)[0]
    of = f"CUDA {major}" if major >= drivers.first_minor_compatible else f"CUDA {_two(cuda)}"
    oldest = f" ({here.oldest} or newer)" if here.oldest else ""
    return f"CUDA {cuda} needs a driver of {of}{oldest}"


def _with_forward_compatibility(image: ImageFacts, host: HostFacts, here: Reach, reference: Reference) -> Finding:
    """The driver is too old on its own: NVIDIA's cuda-compat package inside the image may stand in for it."""
    cuda, drivers = image.cuda or "", reference.drivers
    driver = host.driver or "the driver"
    exact = driver_cuda(host, drivers).exact
    text = f"{_needs(cuda, here, drivers)}; {driver} is " + (f"CUDA {exact}." if exact else "older.")
    kinds = {card.kind for card in cards_of(host, reference)}
    sure = here.certainty if _compat_is_known(image, kinds, drivers) else least(here.certainty, "secondary")
    old = Finding("fail", "minor-version", text, sure, "driver-too-old", here.oldest)
    if version_key(cuda)[0] < drivers.first_minor_compatible:
        old = old._replace(rule="backward")
    if image.compat is None or not drivers.runs(image.compat, cuda):
        could = _could_bring_compat(image, host, kinds, drivers)
        return old._replace(remarks=(*_below_floor(cuda, driver, here, exact, drivers), *could))
    brings = f"{text} The image brings cuda-compat {image.compat}"
    classes = [row for kind in kinds if (row := drivers.compat(kind))]
    if classes and all(row.supported == "no" for row in classes):
        text = f"{brings}, which NVIDIA does not support on this card (error 804)."
        return Finding("fail", "forward-compat", text, classes[0].certainty, "fwd-compat-unsupported", here.oldest)
    if not classes or any(row.supported != "yes" for row in classes):
        text = f"{brings}; whether this card supports it is not known."
        return Finding("unknown", "forward-compat", text, "documented", needs_driver=here.oldest)
    accepted = _accepted_branch(image, host, reference)
    if accepted is None:
        text = f"{brings}; whether it accepts the branch of {driver} is not known."
        return Finding("unknown", "forward-compat", text, "documented", needs_driver=here.oldest)
    if not accepted:
        text = f"{brings}, which does not accept the branch of {driver}."
        sure = old.certainty if says_something(image.require) else least(old.certainty, "secondary")
        return old._replace(explanation=text, rule="forward-compat", certainty=sure)
    text = f"{brings}, which stands in for the driver on this data-centre card as long as it is found first."
    sure = "documented" if says_something(image.require) else "secondary"
    return Finding("warn", "forward-compat", text, sure, needs_driver=here.oldest)


def _could_bring_compat(
    image: ImageFacts, host: HostFacts, kinds: Collection[str], drivers: DriverTable
) -> tuple[str, ...]:
    """The advice to take an image with the compatibility package, where that is known to accept this driver."""
    cuda = image.cuda or ""
    if image.compat is not None or kinds != {"datacenter"} or host.driver is None:
        return ()
    if not drivers.compat_accepts(cuda, host.driver):
        return ()
    branch = host.driver.split(".", maxsplit=1)[0]
    text = (
        f"On this data-centre card an image with NVIDIA's package cuda-compat-{_two(cuda).replace('.', '-')} could do: "
        f"NVIDIA's own images name branch {branch} as one that it stands in for."
    )
    return (text,)


def _compat_is_known(image: ImageFacts, kinds: Collection[str], drivers: DriverTable) -> bool:
    """Whether the image's cuda-compat package, or its having none, is known, as far as the card could use one."""
    if image.compat is not None or image.examined or image.by_tag("cuda"):
        return True
    return bool(kinds) and all((row := drivers.compat(kind)) is not None and row.supported == "no" for kind in kinds)


def _below_floor(cuda: str, driver: str, here: Reach, exact: str | None, drivers: DriverTable) -> tuple[str, ...]:
    """What to know where the CUDA version that the driver reports would do, and only its release is too old."""
    if exact is None or not drivers.runs(exact, cuda):
        return ()
    text = (
        f"NVIDIA names {here.oldest} as the oldest driver; CUDA itself asks for the CUDA version alone, so that "
        f"{driver} ({exact}) may start it all the same."
    )
    return (text,)


def _accepted_branch(image: ImageFacts, host: HostFacts, reference: Reference) -> bool | None:
    """Whether the compatibility package takes this driver: the clauses of NVIDIA_REQUIRE_* are its list of branches.

    Where the image's are not known, those that NVIDIA's own images have: the package is the same.
    """
    if says_something(image.require):
        return evaluate(image.require, machine_of(host, reference)).admitted
    if image.compat is None or host.driver is None:
        return None
    return reference.drivers.compat_accepts(image.compat, host.driver)


def _switched_on(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding | None:
    """A compatibility package newer than the driver harms a GeForce card that would run the image without it."""
    least_reported = driver_cuda(host, reference.drivers).least
    if image.compat is None or least_reported is None or _at_least(least_reported, _two(image.compat)):
        return None
    classes = [reference.drivers.compat(card.kind) for card in cards_of(host, reference)]
    if not classes or any(row is None or row.supported != "no" for row in classes):
        return None
    text = (
        f"The driver is new enough for CUDA {image.cuda} as it is, but the image brings cuda-compat {image.compat}: "
        "where that is switched on (by the container toolkit or by the image), such a card ends in error 804."
    )
    return Finding("warn", "forward-compat-order", text, "documented")


def _at_least(version: str, wanted: str) -> bool:
    return _padded(version) >= _padded(wanted)


def _padded(version: str) -> tuple[int, ...]:
    return (*version_key(version), 0, 0, 0, 0)[:4]


def _two(cuda: str) -> str:
    return major_minor(cuda) or cuda


def _best(one: Certainty, other: Certainty | None) -> Certainty:
    return one if other is None or least(one, other) == other else other
