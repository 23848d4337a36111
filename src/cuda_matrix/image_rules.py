"""Owns the rules that ask neither driver nor machine code: platform, torch's build, C library, memory.

Must not know how several rules make one answer (findings).
"""

from __future__ import annotations

from cuda_matrix.code_rules import build_of, own_build
from cuda_matrix.driver_rules import cards_of
from cuda_matrix.facts import Certainty, version_key
from cuda_matrix.findings import Finding, least
from cuda_matrix.host_facts import HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.machine_names import platform_name
from cuda_matrix.tables import Reference

_USUAL = "amd64"
# Of a card's memory the driver and the CUDA context keep a part: about half a gigabyte to one.
_FREE_FOR_WORK = 0.94


def platform(image: ImageFacts, host: HostFacts) -> Finding | None:
    """Whether the image is for the machine's CPU. Nothing to say of an image that does not tell, on the usual one."""
    wanted = platform_name(host.machine)
    # Without attestations of BuildKit (unknown/unknown), and without half a platform, which says nothing.
    named = [entry for entry in image.platforms if "unknown" not in entry and "/" in entry]
    if not named:
        if wanted == _USUAL:
            return None
        text = f"Whether the image exists for linux/{wanted} is not known."
        return Finding("unknown", "platform", text, "documented")
    if any(entry.split("/")[:2] == ["linux", wanted] for entry in named):
        return None
    text = f"The image is for {', '.join(named)}; the machine is linux/{wanted} ({host.machine})."
    if host.machine_assumed:
        text = f"{text[:-1]}, as most are: nobody says so."
    sure: Certainty = "secondary" if host.machine_assumed else "documented"
    return Finding("fail", "platform", text, sure, "platform-mismatch")


def torch_build(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding | None:
    """Whether the image's torch can use a card, and whether PyTorch published such a build."""
    if image.cuda == "none":
        if image.torch in {None, "none"}:
            text = "The image has no CUDA, and what of it would use a card is not known."
            return Finding("unknown", "unknown-image", text, "documented")
        text = f"torch {image.torch} is a CPU build: it uses no card, whatever the driver."
        return Finding("fail", "cpu-only-torch", text, "documented", "cpu-only-torch")
    if image.torch in {None, "none"} or image.cuda is None or own_build(image):
        return None
    release = reference.releases.release(image.torch or "")
    if release is None or build_of(image, host, reference):
        return None
    published = ", ".join(variant.cuda for variant in release.variants)
    text = (
        f"PyTorch published torch {release.torch} for CUDA {published}, and not for {image.cuda}: the image was "
        "built by somebody else, or is not what its name says."
    )
    rule = "torch-build-never-published"
    if image.arch_list:  # somebody looked into it, so that it is there
        return Finding("pass", rule, text, release.certainty, remarks=(text,))
    return Finding("unknown", rule, text, release.certainty)


def c_library(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding | None:
    """Whether the published torch wheel loads with the image's glibc. Nothing to say where either is not known."""
    build = build_of(image, host, reference)
    system = reference.systems.system(image.os) if image.os else None
    has = image.glibc or (system.glibc if system else None)
    if build is None or has is None:
        return None
    floor = reference.systems.wheel_floor(image.torch or "", image.cuda, host.machine)
    if floor is None or version_key(has) >= version_key(floor.glibc):
        return None
    certainty = "verified" if image.glibc else system.certainty if system else "uncertain"
    where = f"{image.os} has" if image.os else "the image has"
    wheel = f"The wheel of torch {image.torch} for CUDA {image.cuda}"
    text = f"{wheel} needs glibc {floor.glibc} ({floor.tag}); {where} {has}."
    certainty = least(certainty, floor.certainty, "secondary" if image.maybe_own_build else "verified")
    return Finding("fail", "glibc", text, certainty, "glibc-too-old")


def memory(image: ImageFacts, host: HostFacts, reference: Reference) -> Finding | None:
    """Whether the work fits on the card, where the image says what it needs. The smallest of several sizes counts."""
    need = image.gpu_memory_bytes
    if need is None:
        return None
    cards = cards_of(host, reference)
    sizes = sorted({size for card in cards for size in card.memory_gb})
    wanted = f"The work needs {_gib(need)} of memory on the card"
    if not sizes:
        return Finding("unknown", "memory", f"{wanted}; that of the card is not known.", "documented")
    # A card "of 24 GB" has 24 x 2^30 bytes as nvidia-smi counts them.
    least_bytes, most_bytes = sizes[0] * 2**30, sizes[-1] * 2**30
    sold = " or ".join(f"{size:g}" for size in sizes)
    text = f"{wanted}; {cards[0].name if len(cards) == 1 else host.gpu} has {sold} GB."
    if need > most_bytes:
        return Finding("fail", "memory", text, "documented", "gpu-oom")
    if need > least_bytes:
        return Finding("warn", "memory", f"{text} It fits on the larger one only.", "documented")
    if need > least_bytes * _FREE_FOR_WORK:
        return Finding("warn", "memory", f"{text} The driver and the CUDA context keep a part of that.", "documented")
    return None


def _gib(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"
