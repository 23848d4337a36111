"""Owns the process-wide switches that a check may turn: torch's own, the random state, the environment.

Checks that share a process must not hear of each other, so the series restores them in between. Must not know checks.
"""

from __future__ import annotations

import os
import random
import sys

# Attributes that are switches, by the module that has them. A torch that lacks one is older or newer than it.
_FLAGS = (
    ("backends.cuda.matmul", "allow_tf32"),
    ("backends.cuda.matmul", "allow_fp16_reduced_precision_reduction"),
    ("backends.cuda.matmul", "allow_bf16_reduced_precision_reduction"),
    ("backends.cudnn", "enabled"),
    ("backends.cudnn", "benchmark"),
    ("backends.cudnn", "deterministic"),
    ("backends.cudnn", "allow_tf32"),
)
# (module, getter, setter)
_PAIRS = (
    ("", "get_num_threads", "set_num_threads"),
    ("", "get_default_dtype", "set_default_dtype"),
    ("", "is_grad_enabled", "set_grad_enabled"),
    ("", "are_deterministic_algorithms_enabled", "use_deterministic_algorithms"),
    ("", "get_rng_state", "set_rng_state"),
    ("backends.cuda", "flash_sdp_enabled", "enable_flash_sdp"),
    ("backends.cuda", "mem_efficient_sdp_enabled", "enable_mem_efficient_sdp"),
    ("backends.cuda", "math_sdp_enabled", "enable_math_sdp"),
    ("backends.cuda", "cudnn_sdp_enabled", "enable_cudnn_sdp"),
)


def capture() -> dict:
    """Every switch as it stands."""
    state = {"environment": dict(os.environ), "random": random.getstate(), "torch": {}}
    torch = sys.modules.get("torch")
    if torch is None:
        return state
    for place, name in _FLAGS:
        value = _read(torch, place, name, call=False)
        if value is not None:
            state["torch"][place, name] = value
    for place, getter, _ in _PAIRS:
        value = _read(torch, place, getter, call=True)
        if value is not None:
            state["torch"][place, getter] = value
    return state


def restore(state: dict) -> None:
    """Turn every switch back; what stands right already is not touched."""
    for name in set(os.environ) - set(state["environment"]):
        del os.environ[name]
    for name, value in state["environment"].items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    random.setstate(state["random"])
    torch = sys.modules.get("torch")
    if torch is None:
        return
    for place, name in _FLAGS:
        before = state["torch"].get((place, name))
        if before is not None and _read(torch, place, name, call=False) != before:
            setattr(_module(torch, place), name, before)
    for place, getter, setter in _PAIRS:
        before = state["torch"].get((place, getter))
        if before is not None and (getter == "get_rng_state" or _read(torch, place, getter, call=True) != before):
            getattr(_module(torch, place), setter)(before)


def _module(torch, place):
    found = torch
    for part in place.split(".") if place else ():
        found = getattr(found, part)
    return found


def _read(torch, place, name, call):
    """The switch's value; None where this torch has none, or refuses to tell."""
    try:
        value = getattr(_module(torch, place), name)
        return value() if call else value
    except (AttributeError, AssertionError, RuntimeError, TypeError):
        return None
