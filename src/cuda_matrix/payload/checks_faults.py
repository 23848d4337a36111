"""Owns the checks that a fault on the card is reported, and survived: a failed assertion, and too large an allocation.

Each runs in children of its own: a failed assertion spoils the process in which it happens.
Must not touch the card in its own process.
"""

from __future__ import annotations

from . import batches, isolated
from .context import exception_line, failed, passed

_ROWS = 16
_OUTSIDE = 1000000  # an index that the table of 16 rows does not have
_SHARE = 0.4  # of the item's seconds for each child
# What is asked for: no machine has it. WSL2 grants twice the card's memory, out of the system's.
_TOO_MUCH_BYTES = 1 << 50
_TOO_MANY_CARDS = 64  # times the card's memory, where that is more
_SIDE = 512  # of the product that proves a process able to work


def device_assert(context):
    """An index out of range on the card must end as an error, and only that process may suffer."""
    limit_s = context.limit_s * _SHARE
    fault = isolated.call(look_up_outside, limit_s)
    after = isolated.call(work, limit_s)
    result = judge_assert(fault, after, context.thresholds["product_error"], context.device)
    return isolated.with_log(result, fault, after)


def look_up_outside() -> dict:
    """Look up a row that is not there, and wait: kernels report late."""
    import torch

    table = torch.ones(_ROWS, 8, device="cuda:0")
    index = torch.tensor([0, _OUTSIDE], device="cuda:0")
    found = torch.nn.functional.embedding(index, table)
    torch.cuda.synchronize()
    return {"raised": False, "value": float(found.sum())}


def work() -> dict:
    """A verified product in this process: how far it is from the CPU's, relative to its largest element."""
    import torch

    generator = torch.Generator().manual_seed(3)
    left = torch.randn(_SIDE, _SIDE, generator=generator)
    right = torch.randn(_SIDE, _SIDE, generator=generator)
    expected = left.double() @ right.double()
    product = left.to("cuda:0") @ right.to("cuda:0")
    difference = (product.cpu().double() - expected).abs().max()
    return {"error_of_product": float(difference / expected.abs().max())}


def judge_assert(fault, after, product_error: float, device) -> dict:
    """The verdict on the process with the fault and on a fresh one after it (isolated.Answer)."""
    numbers = {
        "raised": bool(fault.error) and not fault.timed_out,
        "error_type": fault.error_type or None,
        "works_after": works(after, product_error),
    }
    keys = {"device": device, "numbers": numbers}
    if fault.timed_out:
        return failed("an index out of range hangs instead of raising", evidence=fault.error, **keys)
    if not fault.error:
        text = f"row {_OUTSIDE} of {_ROWS} was looked up on {device}, and nothing was raised"
        return failed(text, evidence=text, **keys)
    if not numbers["works_after"]:
        return failed("after a failed assertion, a fresh process cannot use the card", evidence=_why(after), **keys)
    if "assert" not in fault.error:
        # An illegal address instead: the kernel has no assertion, and read what is not its own.
        return failed("an index out of range is not caught by an assertion", evidence=fault.error, **keys)
    return passed("an index out of range is raised as an error, and only in its own process", **keys)


def works(outcome, product_error: float) -> bool:
    """Whether a child's `work` was right."""
    error = outcome.get("error_of_product")  # NaN comes as None
    return not outcome.error and error is not None and error <= product_error


def _why(outcome):
    """What was wrong with a child's `work`."""
    wrong = "a product is wrong by {}".format(outcome.get("error_of_product"))
    return outcome.error or outcome.get("error_of_work") or wrong


def out_of_memory(context):
    """An allocation larger than the card must raise, and the same process must be able to work on."""
    outcome = isolated.call(allocate_too_much, context.limit_s * 2 * _SHARE)
    result = judge_oom(outcome, context.thresholds["product_error"], context.device)
    return isolated.with_log(result, outcome)


def allocate_too_much() -> dict:
    """Ask for what cannot exist, then work."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    before = torch.cuda.memory_allocated(0)
    asked = max(_TOO_MUCH_BYTES, _TOO_MANY_CARDS * total)
    seen = {"asked_gb": round(asked / 1e9, 1), "raised": False, "is_out_of_memory": False, "error_type": None}
    try:
        block = torch.empty(asked, dtype=torch.uint8, device="cuda:0")
        seen["got"] = block.numel()
        del block
    except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one
        seen["raised"] = True
        seen["error_type"] = type(error).__name__
        seen["said"] = str(error)[:500]
        seen["is_out_of_memory"] = batches.does_not_fit(str(error))
    seen["left_bytes"] = torch.cuda.memory_allocated(0) - before
    try:
        seen.update(work())
    except Exception as error:
        seen["error_of_work"] = exception_line(error)
    return seen


def judge_oom(outcome, product_error: float, device) -> dict:
    """The verdict on the process that asked for too much (isolated.Answer)."""
    seen = outcome.value or {}
    numbers = {name: seen.get(name) for name in ("asked_gb", "raised", "error_type", "is_out_of_memory", "left_bytes")}
    numbers["works_after"] = works(outcome, product_error)
    keys = {"device": device, "numbers": numbers}
    if "raised" not in seen:
        return failed("too large an allocation ends the process", evidence=outcome.error, **keys)
    if not seen["raised"]:
        text = "{asked_gb} GB, more than any machine has, were allocated without an error".format(**seen)
        return failed(text, evidence=text, **keys)
    if not seen["is_out_of_memory"]:
        return failed("too large an allocation raises, but not `out of memory`", evidence=seen["said"], **keys)
    if not numbers["works_after"]:
        return failed("after `out of memory` the process cannot work on", evidence=_why(outcome), **keys)
    if seen["left_bytes"]:
        text = "the failed allocation keeps {left_bytes} bytes".format(**seen)
        return failed(text, evidence=text, **keys)
    return passed("out of memory is raised, and the process works on", **keys)
