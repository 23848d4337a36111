"""Owns the prediction: image facts x machine → one verdict, the rule that says it, and how sure that is.

Must not know how a rule decides (driver_rules, code_rules, image_rules), where facts come from, or what becomes of the
answer. A definite failure wins over what is not known, that over a condition, and a condition over a pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from cuda_matrix.cards import Card, close_names, find_gpu, is_other_maker
from cuda_matrix.code_rules import before_card, coverage_of, dropped
from cuda_matrix.driver_rules import admission, floor
from cuda_matrix.drivers import DriverTable
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.facts import version_key
from cuda_matrix.findings import Finding, least, prediction, settled
from cuda_matrix.host_facts import Access, HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.image_rules import c_library, memory, platform, torch_build
from cuda_matrix.prediction import Prediction
from cuda_matrix.tables import Reference

_DRIVER = re.compile(r"\d{2,4}(\.\d{1,4}){0,3}", re.ASCII)
_CAPABILITY = re.compile(r"(\d{1,2})\.(\d)|sm_(\d{1,2})(\d)", re.IGNORECASE | re.ASCII)
_CAPABILITIES = "https://developer.nvidia.com/cuda-gpus lists them"
_USUAL_MACHINE = "x86_64"
_LOCAL_CUDA = re.compile(r"\+cu(\d{2,3})$")
_DECIDING_PASSES = frozenset({"backward", "minor-version"})


def predict(image: ImageFacts, host: HostFacts, reference: Reference) -> Prediction:
    """What the facts say of this image on this machine. What is not known is named, and is never taken for a pass.

    Raising the driver never turns a pass into a fail, and neither does more machine code in the image.
    """
    image = _with_wheels_word(image)
    here = _said(image, host, reference)
    if here.needs_driver is None:
        return here
    return here.model_copy(update={"needs_driver": _enough(here.needs_driver, image, host, reference)})


def _enough(oldest: str, image: ImageFacts, host: HostFacts, reference: Reference) -> str | None:
    """The first driver from `oldest` on that no rule refuses; None: none does.

    What one rule asks for another may refuse: 525.60.13 starts CUDA 12.8, and its image asks for cuda>=12.8.
    """
    for driver in _from(oldest, reference.drivers):
        there = host.model_copy(update={"driver": driver, "driver_cuda": None})
        if not _said(image, there, reference).fails:
            return driver
    return None


@lru_cache(maxsize=256)
def _from(oldest: str, drivers: DriverTable) -> tuple[str, ...]:
    newer = {row.driver for row in drivers.toolkits if version_key(row.driver) > version_key(oldest)}
    return tuple(sorted({oldest, *newer}, key=version_key))


def _said(image: ImageFacts, host: HostFacts, reference: Reference) -> Prediction:
    gone = dropped(host, reference)
    by_image = [_trusted(finding, image) for finding in _on_the_gpu(image, host, reference) if finding]
    found = [gone, platform(image, host), *by_image, memory(image, host, reference)]
    findings = [finding for finding in found if finding]
    too_new = before_card(host, reference)
    if too_new and any(settled(finding).verdict in {"fail", "host-failed"} for finding in findings):
        too_new = too_new._replace(verdict="pass")  # it fails anyway, and of several failures the image's says more
    if too_new:
        findings.append(too_new)
    # A pass is explained by the driver's rule; what else holds is a remark.
    findings.sort(key=lambda finding: finding.verdict == "pass" and finding.rule not in _DECIDING_PASSES)
    return prediction(findings, reference.rules)


def _trusted(finding: Finding, image: ImageFacts) -> Finding:
    """No surer than the word that the image's torch and CUDA rest on."""
    if image.confirmed("torch") and image.confirmed("cuda"):
        return finding
    return finding._replace(certainty=least(finding.certainty, "secondary"))


def _on_the_gpu(image: ImageFacts, host: HostFacts, reference: Reference) -> Sequence[Finding | None]:
    build = torch_build(image, host, reference)
    if image.cuda == "none":
        return [build]
    return [
        admission(image, host, reference),
        floor(image, host, reference),
        build,
        coverage_of(image, host, reference),
        c_library(image, host, reference),
    ]


def host_facts(
    gpu: str | None,
    driver: str | None,
    reference: Reference,
    *,
    machine: str | None = None,
    access: Access = "hook",
) -> HostFacts:
    """A machine as a user names it. `gpu`: a card's name or id, what nvidia-smi prints, or a compute capability (8.6).

    A name that leaves memory or housing open (`A100`) has no `card`, only what its rows have in common. `machine` None:
    the CPU that such a card always comes with (Jetson, Grace), else x86_64.

    Raises:
        ConfigurationError: `gpu` is neither a card of the table nor a compute capability; `driver` is no version.
    """
    if driver is not None and not _DRIVER.fullmatch(driver):
        hint = 'write it as nvidia-smi shows it, for example "550.54.15"'
        msg = f"{driver[:60]!r} is not a driver version"
        raise ConfigurationError(msg, hint=hint)
    if gpu is None:
        return HostFacts(driver=driver, machine=machine or _USUAL_MACHINE, machine_assumed=not machine, access=access)
    given = _CAPABILITY.fullmatch(gpu.strip())
    rows = () if given else find_gpu(gpu, reference.cards)
    if not given and not rows:
        raise _no_card(gpu, reference.cards)
    capabilities = {f"{int(given[1] or given[3])}.{given[2] or given[4]}"} if given else {row.cc for row in rows}
    capability = capabilities.pop() if len(capabilities) == 1 else None
    told = machine or _machine(rows, capability, reference)
    return HostFacts(
        gpu=gpu,
        card=rows[0] if len(rows) == 1 else None,
        compute_capability=capability,
        driver=driver,
        machine=told or _USUAL_MACHINE,
        machine_assumed=not told,
        access=access,
    )


def _machine(rows: Sequence[Card], capability: str | None, reference: Reference) -> str | None:
    """The CPU that goes with a card, where it is soldered to one; None: it fits any."""
    row = reference.architectures.capability(capability) if capability else None
    named = {card.machine for card in rows} or {row.machine if row else None}
    return named.pop() if len(named) == 1 else None


def _with_wheels_word(image: ImageFacts) -> ImageFacts:
    """A torch such as 2.2.0+cu121 or 2.2.0+cpu says which CUDA it has, where nothing else does."""
    if image.torch is None or image.cuda is not None:
        return image
    if image.torch.endswith("+cpu"):
        return image.model_copy(update={"cuda": "none"})
    local = _LOCAL_CUDA.search(image.torch)
    return image.model_copy(update={"cuda": f"{local[1][:-1]}.{local[1][-1]}"}) if local else image


def _no_card(gpu: str, cards: tuple[Card, ...]) -> ConfigurationError:
    if is_other_maker(gpu):
        msg = f"{gpu[:60]!r} is no NVIDIA card: nothing that is said here holds for it"
        return ConfigurationError(msg, hint="give an NVIDIA card, for example RTX 3090, or a compute capability")
    meant = ", ".join(close_names(gpu, cards))
    capability = f"give its compute capability, for example 8.6 ({_CAPABILITIES})"
    hint = f"did you mean {meant}? Or {capability}" if meant else capability
    return ConfigurationError(f"{gpu[:60]!r} is neither a card of the table nor a compute capability", hint=hint)
