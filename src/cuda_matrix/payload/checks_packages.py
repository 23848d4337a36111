"""Owns the checks packages.*: one small operation of each compiled GPU package, against plain torch.

Each runs only where the package is there and the GPU is proven; what is absent is skipped. None is imported at start.
Must not know how fast a package is.
"""

from __future__ import annotations

from . import attention, distributions, scratch
from .context import exception_line, failed, passed, skipped

_FLASH_FROM = (8, 0)  # compute capability
_LEARNING_RATE = 1e-2
_KERNEL = """
import triton
import triton.language as tl


@triton.jit
def add_kernel(left, right, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    tl.store(out + at, tl.load(left + at, mask=inside) + tl.load(right + at, mask=inside), mask=inside)


def add(left, right, out):
    count = left.numel()
    add_kernel[(triton.cdiv(count, 256),)](left, right, out, count, BLOCK=256)
"""


def flash_attn(context):
    """flash_attn_func against plain attention: its error may be twice that of the same precision done plainly."""
    reason = _missing("flash_attn", context)
    if reason:
        return skipped(reason)
    import torch

    if torch.cuda.get_device_capability(0) < _FLASH_FROM:
        return skipped("flash-attn needs compute capability 8.0", device=context.device)

    def run(query, key, value):
        from flash_attn import flash_attn_func

        return flash_attn_func(query, key, value, causal=True)

    return _attention(context, "flash-attn", run)


def xformers(context):
    """memory_efficient_attention against plain attention, judged as flash-attn is."""
    reason = _missing("xformers", context)
    if reason:
        return skipped(reason)

    def run(query, key, value):
        from xformers import ops

        return ops.memory_efficient_attention(query, key, value, attn_bias=ops.LowerTriangularMask())

    return _attention(context, "xformers", run)


def bitsandbytes(context):
    """One step of Adam8bit moves the parameters as Adam's first step does: by the learning rate."""
    reason = _missing("bitsandbytes", context)
    if reason:
        return skipped(reason)
    import torch

    try:
        import bitsandbytes as package

        torch.manual_seed(1)
        weights = torch.nn.Parameter(torch.randn(64, 128, device=context.device))
        before = weights.detach().clone()
        optimiser = package.optim.Adam8bit([weights], lr=_LEARNING_RATE)
        (weights * torch.randn(64, 128, device=context.device)).sum().backward()
        optimiser.step()
        moved = ((weights.detach() - before).abs() / _LEARNING_RATE).cpu()
    except (RuntimeError, ImportError, OSError, AttributeError, TypeError, ValueError) as error:
        return _broken("bitsandbytes", error, context)
    numbers = {"changed": float((moved > 0).float().mean()), "step_over_rate": float(moved.mean())}
    return judge_step(numbers, context.thresholds, context.device)


def judge_step(numbers, thresholds, device):
    """The share of parameters that changed, and the mean step in learning rates; NaN is no step."""
    keys = {"numbers": numbers, "thresholds": thresholds, "device": device}
    changed, step = numbers["changed"], numbers["step_over_rate"]
    if not changed >= thresholds["changed"]:
        text = f"one step of Adam8bit changed {changed:.1%} of the parameters"
        return failed(text, evidence=text, **keys)
    if not thresholds["step_low"] <= step <= thresholds["step_high"]:
        text = f"one step of Adam8bit moved the parameters by {step:.3g} learning rates, and 1 is right"
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    return passed("one step of Adam8bit moved the parameters as Adam does", **keys)


def triton(context):
    """A vector addition, compiled by triton for this card and compared with torch's, bit by bit."""
    reason = _missing("triton", context)
    if reason:
        return skipped(reason)
    import torch

    left = torch.randn(1000, device=context.device)
    right = torch.randn(1000, device=context.device)
    out = torch.zeros(1000, device=context.device)
    try:
        _kernel_module().add(left, right, out)
        torch.cuda.synchronize()
    except Exception as error:  # triton raises classes of its own, by version
        if "C compiler" in str(error):
            # compile.inductor is the check that names a missing compiler; here nothing of triton was tried
            return skipped("triton needs a C compiler, and there is none", evidence=exception_line(error))
        return _broken("triton", error, context)
    wrong = int((out != left + right).sum())
    return judge_sum(wrong, context.thresholds, context.device)


def judge_sum(wrong, thresholds, device):
    """A sum of two single-precision numbers has one right answer."""
    keys = {"numbers": {"wrong_elements": wrong}, "thresholds": thresholds, "device": device}
    if wrong > thresholds["wrong_elements"]:
        text = f"{wrong} of 1000 sums of a triton kernel are wrong"
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    return passed("a kernel was compiled and adds right", **keys)


def _kernel_module():
    """Triton reads a kernel's source from its file, and its `tl` from the module: so the kernel gets a file."""
    import importlib.util
    import linecache
    import os

    with scratch.Folder("triton") as folder:
        path = os.path.join(folder, "cuda_matrix_kernel.py")
        with open(path, "w") as stream:
            stream.write(_KERNEL)
        spec = importlib.util.spec_from_file_location("cuda_matrix_kernel", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        linecache.getlines(path)  # read before the file goes
    return module


def _missing(module, context):
    """Why there is nothing to try, or "". Looks for the package without importing it."""
    if not distributions.importable(module):
        return f"{module} is not installed"
    return "" if context.on_gpu else "needs a GPU"


def _attention(context, name, run):
    """Errors against single precision on the same rounded inputs, of the package and of plain torch."""
    import torch

    generator = torch.Generator().manual_seed(1)
    shape = (2, 127, 4, 64)  # batch, an odd length, heads, head size
    query, key, value = (torch.randn(shape, generator=generator).to(torch.float16).to(context.device) for _ in range(3))
    reference = _plain(torch, query.float(), key.float(), value.float())
    plain = _plain(torch, query, key, value)
    try:
        out = run(query, key, value)
    except (RuntimeError, ImportError, OSError, AttributeError, TypeError, ValueError, NotImplementedError) as error:
        return _broken(name, error, context)
    numbers = {
        "error": float((out.float().to(reference.device) - reference).abs().max()),
        "plain_error": float((plain.float() - reference).abs().max()),
    }
    return judge_attention(name, numbers, context.thresholds, str(out.device))


def _plain(torch, *parts):
    """The formula, with (batch, length, heads, size) in and out, as the packages have it."""
    return attention.plain(torch, *(part.transpose(1, 2) for part in parts)).transpose(1, 2)


def judge_attention(name, numbers, thresholds, device):
    """The rule of flash-attn's own tests: twice the error of the plain way, and a floor."""
    allowed = thresholds["times_plain"] * numbers["plain_error"] + thresholds["floor"]
    keys = {"numbers": {**numbers, "allowed": allowed}, "thresholds": thresholds, "device": device}
    if not device.startswith("cuda"):
        text = f"{name} gave a result on {device}"
        return failed(text, evidence=text, cause="silent-cpu-fallback", **keys)
    if not numbers["error"] <= allowed:
        text = f"{name} is off by {numbers['error']:.3g}, and {allowed:.3g} is allowed"
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    return passed(f"{name} agrees with plain attention within {numbers['error']:.2g}", **keys)


def _broken(name, error, context):
    import traceback

    traceback.print_exc()
    return failed(f"{name} raised {type(error).__name__}", evidence=exception_line(error), device=context.device)
