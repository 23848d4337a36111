"""Owns the attention check: scaled dot-product attention, each backend forced alone, against float64.

A fused kernel may round in another order than the plain formula, so its error is compared with the error of the plain
formula in the same precision. Must not know which card lacks which backend: torch says so when it is asked.
"""

from __future__ import annotations

import warnings

from . import attention, precisions
from .context import exception_line, failed, passed

SEED = 20240511
FIELDS = ("batch", "heads", "queries", "keys", "width", "causal")
# Odd lengths, and queries ≠ keys: kernels work in tiles, and an edge that a tile does not fill is where they go wrong.
CPU_CASES = ((2, 2, 33, 33, 16, True), (1, 2, 37, 61, 32, False))
CUDA_CASES = (
    (2, 4, 512, 512, 64, True),
    (1, 3, 257, 257, 64, True),
    (2, 3, 255, 129, 64, False),
    (1, 2, 300, 300, 128, True),
)
PRECISIONS = ("fp32", "fp16", "bf16")
CHOSEN = "chosen"  # nothing forced: the backend that torch takes by itself
# As torch names them: for torch.nn.attention (from 2.3), and for torch.backends.cuda.sdp_kernel (2.0 to 2.2).
BACKENDS = {
    "math": ("MATH", "enable_math"),  # first: its error belongs to the yardstick of the others
    "flash": ("FLASH_ATTENTION", "enable_flash"),
    "mem-efficient": ("EFFICIENT_ATTENTION", "enable_mem_efficient"),
    "cudnn": ("CUDNN_ATTENTION", None),
}
# What torch says where a backend does not serve this card, precision or shape.
ABSENT = ("No available kernel", "No viable backend")
REASON_LENGTH = 120  # characters


def sdpa(context):
    """Force each backend alone; compare output and gradients with float64 of the same rounded inputs."""
    import torch

    device = torch.device(context.device)
    precisions.set_strict(torch)
    bounds = Bounds(context.thresholds, device.type)
    found = Findings()
    for dtype_name in PRECISIONS:
        if precisions.too_old(torch, device, dtype_name):
            found.note("plain.bf16", "this card has no bfloat16")
            continue
        for case in CUDA_CASES if device.type == "cuda" else CPU_CASES:
            _examine(torch, _Problem(torch, device, dtype_name, dict(zip(FIELDS, case))), bounds, found)
    return judge(found, str(device), context.thresholds, attention.has_fused(torch))


class Bounds:
    """How large an error may be."""

    def __init__(self, thresholds: dict, device_type: str):
        self._thresholds = thresholds
        self._on_cpu = device_type == "cpu"

    def plain(self, dtype_name: str) -> float:
        """The largest error of the plain formula itself; half precision on a CPU may sum in half precision."""
        loose = self._on_cpu and dtype_name != "fp32"
        return self._thresholds["plain_error_half_cpu" if loose else "plain_error_" + dtype_name]

    def of(self, backend: str, yardstick):
        """The largest (error, gradient error) of a backend, given those of the yardstick.

        Torch's math path scales both factors before the product, in low precision: it may err more than the others.
        """
        limits = self._thresholds
        factor = limits["math_factor" if backend == "math" else "factor"]
        return factor * yardstick[0] + limits["floor"], limits["gradient_factor"] * yardstick[1] + limits[
            "gradient_floor"
        ]


class Findings:
    """Numbers for the reader (the worst of all cases under each name), and what is wrong, in order."""

    def __init__(self):
        self.numbers = {}
        self.wrong = []
        self.worked = set()

    def worst(self, name: str, value: float) -> None:
        """Keep the larger of two."""
        before = self.numbers.get(name)
        self.numbers[name] = max(value, before) if isinstance(before, float) else value

    def note(self, name: str, reason: str) -> None:
        """Say why there is no number; a number from another case stays."""
        self.numbers.setdefault(name, reason[:REASON_LENGTH])

    def complain(self, text: str) -> None:
        """Add what is wrong."""
        self.wrong.append(text)


class _Problem:
    """Seeded inputs of one case, and the true answer: float64 on the CPU, written out with exp and sum."""

    def __init__(self, torch, device, dtype_name: str, case: dict):
        generator = torch.Generator().manual_seed(SEED)
        self.dtype_name = dtype_name
        self.causal = case["causal"]
        self.name = "{batch}x{heads}x{queries}x{keys}x{width}".format(**case) + (" causal" if self.causal else "")
        lengths = (case["queries"], case["keys"], case["keys"])
        dtype = precisions.dtype(torch, dtype_name)
        self._inputs = [
            torch.randn(case["batch"], case["heads"], length, case["width"], generator=generator).to(device, dtype)
            for length in lengths
        ]
        shape = (case["batch"], case["heads"], case["queries"], case["width"])
        self._push = torch.randn(*shape, generator=generator).to(device, dtype)
        exact = [each.cpu().double() for each in self._inputs]
        self._truth = _forward_backward(torch, _exact(torch, self.causal), exact, self._push.cpu().double())

    def errors(self, torch, attend):
        """(largest error of the output, largest error of a gradient) of `attend(query, key, value)`."""
        results = _forward_backward(torch, attend, self._inputs, self._push)
        apart = [_largest_error(each, true) for each, true in zip(results, self._truth)]
        return apart[0], max(apart[1:])


def _forward_backward(torch, attend, inputs, push):
    """The output and the gradients of query, key and value."""
    leaves = [each.detach().clone().requires_grad_(True) for each in inputs]
    output = attend(*leaves)
    return (output.detach(), *torch.autograd.grad(output, leaves, push))


def _largest_error(tensor, true):
    difference = (tensor.cpu().double() - true).abs().max()
    return float(difference) if bool(difference.isfinite()) else float("inf")


def _exact(torch, causal):
    def attend(query, key, value):
        scores = attention.scores(torch, query, key, causal)
        weights = (scores - scores.amax(-1, keepdim=True).detach()).exp()
        return weights @ value / weights.sum(-1, keepdim=True)

    return attend


def _plain(torch, causal):
    def attend(query, key, value):
        return attention.plain(torch, query, key, value, causal)

    return attend


def _fused(torch, causal):
    def attend(query, key, value):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)

    return attend


def _examine(torch, problem, bounds, found):
    """One case: the plain formula, then each backend alone, then what torch chooses by itself."""
    dtype_name = problem.dtype_name
    try:
        plain = problem.errors(torch, _plain(torch, problem.causal))
    except RuntimeError as error:
        if "not implemented for" not in str(error):
            raise
        found.note("plain." + dtype_name, exception_line(error))
        return
    found.worst(f"plain.{dtype_name}.error", plain[0])
    if not plain[0] <= bounds.plain(dtype_name):
        limit = bounds.plain(dtype_name)
        found.complain(f"plain attention in {dtype_name}, {problem.name}: error {plain[0]:.3g}, above {limit:g}")
        return
    if not attention.has_fused(torch):
        return
    yardstick = plain
    for name in (*BACKENDS, CHOSEN):
        answer = _attempt(torch, name, problem)
        if isinstance(answer, str):
            found.note(f"{name}.{dtype_name}", "absent: " + answer)
            if name in (CHOSEN, "math"):
                found.complain(f"{name} attention in {dtype_name}, {problem.name}: {answer}")
        elif isinstance(answer, RuntimeError):
            found.complain(f"{name} attention in {dtype_name}, {problem.name}: {exception_line(answer)}")
        else:
            found.worked.add(name)
            right = _compare(name, problem, answer, bounds.of(name, yardstick), found)
            if name == "math" and right:
                yardstick = tuple(map(max, answer, plain))


def _compare(name, problem, errors, limits, found):
    """Whether output and gradients are within their limits."""
    found.worst(f"{name}.{problem.dtype_name}.of_bound", errors[0] / limits[0])
    found.worst(f"{name}.{problem.dtype_name}.gradient_of_bound", errors[1] / limits[1])
    for what, error, limit in zip(("output", "gradient"), errors, limits):
        if not error <= limit:
            where = f"{name} attention in {problem.dtype_name}, {problem.name}"
            found.complain(f"{where}: {what} is off by {error:.3g}, above {limit:.3g}")
    return errors[0] <= limits[0] and errors[1] <= limits[1]


def _attempt(torch, name, problem):
    """(error, gradient error), or why the backend is absent (a text), or what it raised."""
    attend = _fused(torch, problem.causal)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if name == CHOSEN:
                return problem.errors(torch, attend)
            forced = _force(torch, name)
            if forced is None:
                return "this torch cannot force it"
            with forced:
                return problem.errors(torch, attend)
        except RuntimeError as error:
            if any(words in str(error) for words in ABSENT):
                return _reason(caught) or exception_line(error)
            if problem.dtype_name != "fp32" and "not implemented for" in str(error):
                return exception_line(error)
            return error


def _reason(caught):
    """Torch warns twice, `X not used because:` and then why: the why."""
    said = [str(each.message).split(" (Triggered")[0].strip() for each in caught]
    return next((line for line in said if line and "deprecated" not in line and not line.endswith("because:")), "")


def _force(torch, name):
    """A context in which one backend alone is allowed, or None where this torch does not know it."""
    new_name, old_name = BACKENDS[name]
    attention = getattr(torch.nn, "attention", None)
    if hasattr(attention, "sdpa_kernel"):
        backend = getattr(attention.SDPBackend, new_name, None)
        return attention.sdpa_kernel(backend) if backend is not None else None
    if old_name is None or not hasattr(torch.backends.cuda, "sdp_kernel"):
        return None
    switches = {"enable_flash": False, "enable_mem_efficient": False, "enable_math": False}
    return torch.backends.cuda.sdp_kernel(**{**switches, old_name: True})


def judge(found, device: str, thresholds: dict, has_fused: bool):
    """The verdict on all findings."""
    keys = {"device": device, "numbers": found.numbers, "thresholds": dict(thresholds)}
    if found.wrong:
        text = found.wrong[0]
        keys["numbers"]["wrong"] = len(found.wrong)
        return failed(
            "attention is wrong: " + text, evidence="\n".join(found.wrong[:8]), cause="numerics-wrong", **keys
        )
    if not has_fused:
        return passed(f"on {device}: attention by matmul and softmax; this torch has no fused attention", **keys)
    forced = [name for name in BACKENDS if name in found.worked]
    absent = [name for name in BACKENDS if name not in found.worked]
    text = f"on {device}: right with each of {', '.join(forced)}"
    return passed(text + (f"; not available here: {', '.join(absent)}" if absent else ""), **keys)
