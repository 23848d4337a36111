"""Owns the check that says how the build's kernels get onto this card: as machine code, compiled by the driver, or not.

The verdict is what happened when kernels ran, each time in a fresh process; the build's list of architectures only
explains it. Must not touch CUDA in its own process.
"""

from __future__ import annotations

import re
import time

from . import checks_torch, isolated, scratch
from .context import failed, passed, skipped, unknown, warned

_NATIVE_SHARE = 0.4  # of the item's seconds; compiling everything takes longer than loading it
_JIT_SHARE = 0.5
_NO_KERNEL = ("no kernel image", "PTX JIT compilation was disabled", "device kernel image is invalid")
_OLD_DRIVER = "unsupported toolchain"


def execution(context):
    """Run kernels with the driver's compiler forbidden; where that fails, with it allowed."""
    import torch

    architectures = checks_torch.arch_list(torch) if getattr(torch.version, "cuda", None) else []
    if not architectures:
        return skipped("this torch has no kernels for a GPU")
    native = attempt(context.limit_s * _NATIVE_SHARE, allow_jit=False)
    if native.answer.get("available") is False:
        return skipped("torch finds no GPU here: nothing can be run")
    jit = attempt(context.limit_s * _JIT_SHARE, allow_jit=True) if lacks_code(native.answer.error) else None
    answers = [each.answer for each in (native, jit) if each is not None]
    return isolated.with_log(judge_execution(native, jit, architectures), *answers)


class Attempt:
    """What kernels in a fresh process gave (isolated.Answer), and how many bytes the driver compiled for them."""

    def __init__(self, answer, cache_bytes=None):
        self.answer = answer
        self.cache_bytes = cache_bytes


def attempt(limit_s: float, allow_jit: bool) -> Attempt:
    """Run torch's own kernels in a fresh process with an empty cache. CUDA_FORCE_PTX_JIT would hide the build."""
    with scratch.DriverCache() as cache:
        environment = [*cache.environment, ("CUDA_FORCE_PTX_JIT", None)]
        environment.append(("CUDA_DISABLE_PTX_JIT", None if allow_jit else "1"))
        answer = isolated.call(run_kernels, limit_s, environment)
        return Attempt(answer, cache.written_bytes())


def run_kernels() -> dict:
    """Kernels of torch itself (not of cuBLAS, which has its own machine code), against the CPU."""
    import torch

    if not torch.cuda.is_available():
        return {"available": False}
    torch.cuda.init()
    capability = "{}.{}".format(*torch.cuda.get_device_capability(0))
    started = time.perf_counter()
    data = torch.arange(1, 1001, dtype=torch.float32)
    on_card = data.to("cuda:0")
    pairs = [
        (on_card * 3 + 1, data * 3 + 1),  # elementwise
        (on_card.sum(), data.sum()),  # reduction
        (on_card.flip(0).sort()[0], data),  # sort
        (on_card[on_card > 500], data[data > 500]),  # compaction
        (on_card.half().cumsum(0, dtype=torch.float32), data.half().cumsum(0, dtype=torch.float32)),  # scan, conversion
    ]
    right = all(torch.equal(got.cpu(), expected) for got, expected in pairs)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {"available": True, "right": bool(right), "kernels_s": round(seconds, 3), "capability": capability}


def lacks_code(error: str) -> bool:
    """Whether an error says that there is no machine code for this card. Nothing else is mended by the compiler."""
    return _OLD_DRIVER in error or any(words in error for words in _NO_KERNEL)


def judge_execution(native, jit, architectures) -> dict:
    """The verdict on two attempts; `jit` is None where the first one did not fail for want of machine code."""
    capability = native.answer.get("capability") or (jit.answer.get("capability") if jit else None)
    numbers = {
        "capability": capability,
        "arch_list": " ".join(architectures),
        "native": bool(native.answer.get("right")),
        "native_s": native.answer.get("kernels_s"),
        "native_error": native.answer.error or None,
    }
    keys = {"device": "cuda:0", "numbers": numbers}
    listed = explain(capability, architectures)
    if native.answer.get("right"):
        return passed(f"machine code for this card is in the build ({listed})", **keys)
    if not lacks_code(native.answer.error):
        return judge_native(native.answer, listed, keys)
    numbers.update(
        jit=bool(jit.answer.get("right")),
        jit_s=jit.answer.get("kernels_s"),
        jit_bytes=jit.cache_bytes,
        jit_error=jit.answer.error or None,
    )
    if jit.answer.get("right"):
        text = "no machine code for this card: the driver compiled the kernels, {} s before they ran ({})".format(
            jit.answer.get("kernels_s"), listed
        )
        return warned(text, evidence=native.answer.error, **keys)
    if jit.answer.timed_out:
        text = f"no machine code for this card, and the driver compiled for longer than the time ({listed})"
        return unknown(text, evidence=f"without: {native.answer.error}\nwith: {jit.answer.error}", **keys)
    if not jit.answer.error:
        text = "the results of the kernels that the driver compiled are wrong"
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    if lacks_code(jit.answer.error):
        keys["cause"] = "ptx-toolchain" if _OLD_DRIVER in jit.answer.error else "arch-no-kernel"
    return failed(f"no kernel of this build runs on this card ({listed})", evidence=jit.answer.error, **keys)


def judge_native(answer, listed: str, keys: dict) -> dict:
    """The verdict on a first attempt that failed, and not for want of machine code."""
    if answer.timed_out:
        return unknown(f"the kernels did not run within the time ({listed})", evidence=answer.error, **keys)
    if answer.error:
        what = "a kernel ends its process" if answer.crashed else "a kernel fails"
        return failed(f"{what}: {answer.error} ({listed})", evidence=answer.error, **keys)
    text = "the kernels' results are wrong"
    return failed(text, evidence=text, cause="numerics-wrong", **keys)


def explain(capability, architectures) -> str:
    """What the build's list promises this card, in words."""
    if capability is None:
        return "compute capability unknown; the build has " + " ".join(architectures)
    major, _, minor = capability.partition(".")
    card = (int(major), int(minor))
    native = [name for name in architectures if serves(name, card, "sm")]
    ptx = [name for name in architectures if serves(name, card, "compute")]
    if native:
        return f"compute capability {capability}, {native[-1]} in its list"
    if ptx:
        return f"compute capability {capability}, only {ptx[-1]} in its list"
    return "compute capability {}, none of {} serves it".format(capability, " ".join(architectures))


def serves(name: str, card, kind: str) -> bool:
    """Whether an entry is code of this kind (`sm`: machine code, `compute`: PTX) that can run on the card.

    Machine code runs on its own major from its minor on; PTX on everything newer. The suffix a means this very
    architecture, and f its family: the same major from that minor on.
    """
    match = re.match(r"(sm|compute)_(\d+)(\d)([af]?)$", name)
    if match is None or match.group(1) != kind:
        return False
    built = (int(match.group(2)), int(match.group(3)))
    if match.group(4) == "a":
        return card == built
    same_major = built[0] == card[0] and built[1] <= card[1]
    return same_major if kind == "sm" or match.group(4) == "f" else built <= card
