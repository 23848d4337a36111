"""Owns the GEMM numerics checks: products in one precision against float64 of the same rounded inputs.

Must not know the limits (the table has them) nor how errors are judged (numerics).
"""

from __future__ import annotations

import os

from . import numerics, precisions, ranks
from .context import exception_line, failed, passed, ran_elsewhere, skipped, warned

SEED = 20240501
ODD = (257, 193, 131)  # rows, inner, columns: no multiple of any tile
CUDA_SQUARE = (1024, 1024, 1024)
CUDA_LARGE = {"smoke": (2048, 2048, 2048)}  # by profile
CUDA_LARGE_OTHERWISE = (4096, 4096, 4096)
CPU_SHAPES = ((256, 256, 256), ODD)
CPU_HALF_SHAPES = ((128, 128, 128), (97, 113, 61))  # few terms: the rule for half precision on a CPU grows with them
# fp8: few terms, so that a lost one (F = 1/√terms) is above its wide limit. Both: multiples of 16, as cuBLAS asks.
_SMALL_SHAPES = ((128, 128, 128), (144, 112, 80))
_SHAPES = {
    "fp8": {"cpu": _SMALL_SHAPES, "cuda": ((512, 512, 512), (1024, 512, 256), (272, 208, 144))},
    "int8": {"cpu": _SMALL_SHAPES, "cuda": (CUDA_SQUARE, (272, 208, 144))},
}
BATCH = (3, 33, 47, 29)  # batches, rows, inner, columns
TRUTH_SHAPE = (1024, 512, 1024)
CPU_REFERENCE_UP_TO = 1024  # larger references are computed on the GPU, after its float64 agreed with the CPU's
SHORT = 300  # characters of an exception that lists every dispatch key there is
REPEATS = {"cpu": 5, "cuda": 20}
FIXED_WORKSPACE_LIMIT_S = 60.0  # of the process that repeats the products with it: it imports torch
FIXED_WORKSPACE = ":4096:8"  # CUBLAS_WORKSPACE_CONFIG: cuBLAS promises bitwise equal repeats with it
_REFUSALS = ("not implemented for", "not compiled for", "is only supported")


def fp32(context):
    """IEEE single precision, TF32 switched off."""
    return _check(context, "fp32")


def tf32(context):
    """Single precision with TF32 switched on: 10 bits of mantissa on a card's tensor cores."""
    return _check(context, "tf32")


def fp16(context):
    """Half precision, sums kept in single precision."""
    return _check(context, "fp16")


def bf16(context):
    """bfloat16, sums kept in single precision."""
    return _check(context, "bf16")


def fp8(context):
    """E4m3 with one scale a tensor, bfloat16 out."""
    return _check(context, "fp8")


def int8(context):
    """Integers: exact or wrong."""
    return _check(context, "int8")


def tf32_truth(context):
    """What torch reports about TF32, against what a product's error shows."""
    import torch

    if not context.on_gpu:
        return skipped("TF32 is a mode of NVIDIA cards: needs a GPU", device=context.device)
    device = torch.device(context.device)
    if precisions.too_old(torch, device, "tf32"):
        return skipped(precisions.needs(torch, device, "tf32"), device=context.device)
    switch = torch.backends.cuda.matmul
    found = bool(switch.allow_tf32)
    observed = [_observe(torch, device)]
    for wanted in (True, False):
        switch.allow_tf32 = wanted
        observed.append(_observe(torch, device))
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    cublas_override = os.environ.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
    numbers = {
        "found_on": found,
        "found_frobenius": observed[0]["frobenius"],
        "on_frobenius": observed[1]["frobenius"],
        "off_frobenius": observed[2]["frobenius"],
        "switches_off": not observed[2]["flag"],
        "cudnn_allow_tf32": bool(torch.backends.cudnn.allow_tf32),
        "NVIDIA_TF32_OVERRIDE": override,
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": cublas_override,
    }
    wrong, remarks = numerics.judge_switches(observed, override, context.thresholds)
    keys = {"device": context.device, "numbers": numbers}
    if wrong:
        return failed("TF32 is not what the switch says", evidence=wrong, cause="numerics-wrong", **keys)
    if observed[2]["flag"]:
        text = f"torch cannot switch TF32 off: TORCH_ALLOW_TF32_CUBLAS_OVERRIDE={cublas_override}"
        return warned(text, evidence=text, **keys)
    by = f" by TORCH_ALLOW_TF32_CUBLAS_OVERRIDE={cublas_override}" if found and cublas_override else ""
    state = ("on" if found else "off") + by
    return passed("; ".join([f"TF32 for products is {state} in this image, as torch reports", *remarks]), **keys)


def lacks(torch, device, dtype_name: str, error: Exception) -> bool:
    """Whether the exception says that this device or this torch has no such operation in this precision.

    Narrow on purpose: on a card that has the precision, "not supported" is a failure and no reason to skip.
    """
    text = str(error)
    if device.type == "cpu":
        return isinstance(error, NotImplementedError) or "not implemented for" in text or "supported" in text
    return any(refusal in text for refusal in _REFUSALS) or precisions.too_old(torch, device, dtype_name)


def half_limits(context, dtype_name: str, limits, terms: int):
    """The limits as they are; on a CPU, in half precision, as `numerics.cpu_half_limits` widens them."""
    if context.on_gpu or dtype_name not in ("fp16", "bf16"):
        return limits
    root_term = context.thresholds["cpu_root_term_" + dtype_name]
    return numerics.cpu_half_limits(limits, root_term, context.thresholds["cpu_max_over_frobenius"], terms)


def fixed_repeats(job) -> dict:
    """Called in a fresh process (ranks): whether repeats are equal there, with the workspace it was started with."""
    import torch

    precisions.set_strict(torch, tf32=job["precision"] == "tf32")
    kind = Kind(torch, torch.device(job["device"]), job["precision"])
    return {"equal": _repeats_equal(kind, torch.Generator().manual_seed(SEED), kind.shapes("standard")[0])}


def _check(context, dtype_name):
    import torch

    device = torch.device(context.device)
    reason = _cannot(torch, device, dtype_name)
    if reason:
        return skipped(reason, device=context.device)
    precisions.set_strict(torch, tf32=dtype_name == "tf32")
    kind = Kind(torch, device, dtype_name)
    try:
        measured = _measure(kind, kind.shapes(context.profile))
    except RuntimeError as error:
        if not lacks(torch, device, dtype_name, error):
            raise
        text = f"{dtype_name} products are not implemented on {device} in this torch"
        return skipped(text, device=context.device, evidence=exception_line(error)[:SHORT])
    return _verdict(context, dtype_name, measured, stuck=dtype_name == "fp32" and precisions.tf32_on(torch, device))


def _cannot(torch, device, dtype_name):
    """Why there is nothing to measure, or ""."""
    if dtype_name == "tf32" and device.type == "cpu":
        return "TF32 is a mode of NVIDIA cards: needs a GPU"
    if dtype_name in ("tf32", "fp8") and precisions.too_old(torch, device, dtype_name):
        return precisions.needs(torch, device, dtype_name)
    return precisions.missing(torch, dtype_name)


def _verdict(context, dtype_name, measured, stuck):
    """The result; a first finding of repeats that differ is tried again with a fixed workspace."""
    thresholds = dict(context.thresholds)
    terms, ran_on = measured.pop("terms"), measured.pop("ran_on")
    if dtype_name != "int8":
        limits = numerics.Limits(thresholds["frobenius"], thresholds["max_over_mean"])
        if stuck:
            limits = numerics.Limits(thresholds["tf32_to"], thresholds["tf32_max_over_mean"])
        thresholds.update(half_limits(context, dtype_name, limits, terms).as_thresholds())
    keys = {"device": ran_on, "numbers": measured, "thresholds": thresholds}
    elsewhere = ran_elsewhere(context.device, **keys)
    if elsewhere:
        return elsewhere
    wrong, remark = numerics.judge(dtype_name, measured, thresholds, stuck)
    if wrong == numerics.REPEATS_DIFFER and context.on_gpu:
        measured["repeats_equal_with_fixed_workspace"] = _fixed_repeats_elsewhere(context, dtype_name)
        if measured["repeats_equal_with_fixed_workspace"]:
            text = f"{wrong}, unless CUBLAS_WORKSPACE_CONFIG={FIXED_WORKSPACE} is set"
            return warned(f"{dtype_name} products: {text}", evidence=text, **keys)
    if wrong:
        return failed(f"{dtype_name} products are wrong", evidence=wrong, cause="numerics-wrong", **keys)
    if stuck:
        text = "torch cannot switch TF32 off (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE): there is no IEEE fp32 product to judge"
        return warned(text, evidence=text, **keys)
    return passed(_summary(dtype_name, ran_on, measured, remark), **keys)


def _summary(dtype_name, ran_on, measured, remark):
    said = ["exact" if dtype_name == "int8" else "F {frobenius:.2g}, M {max_over_mean:.2g}".format(**measured)]
    if dtype_name == "fp8":
        said.append("{sqnr_db:.3g} dB".format(**measured))
    if ran_on == "cpu" and dtype_name in ("fp16", "bf16"):
        said.append("by the CPU's own wide limits")
    return f"{dtype_name} on {ran_on}: " + ", ".join(said) + (f"; {remark}" if remark else "")


class Kind:
    """One precision on one device: how its operands are made, multiplied, and read back as float64."""

    def __init__(self, torch, device, dtype_name: str):
        self.torch = torch
        self.device = device
        self.name = dtype_name
        self.dtype = precisions.dtype(torch, dtype_name)

    def shapes(self, profile: str):
        """(rows, inner, columns) of every product; the first one is also repeated."""
        if self.name in _SHAPES:
            return _SHAPES[self.name][self.device.type]
        if self.device.type == "cuda":
            return (CUDA_SQUARE, CUDA_LARGE.get(profile, CUDA_LARGE_OTHERWISE), ODD)
        return CPU_SHAPES if self.name == "fp32" else CPU_HALF_SHAPES

    def random(self, generator, rows: int, columns: int):
        """Numbers of the CPU's generator, so that every card gets the same ones, before they are rounded."""
        if self.name == "int8":
            return self.torch.randint(-128, 128, (rows, columns), generator=generator)
        return self.torch.randn(rows, columns, generator=generator)

    def operand(self, values, right=False):
        """(on the device and rounded, its scale)."""
        if self.name != "fp8":
            return values.to(device=self.device, dtype=self.dtype), 1.0
        scale = float(values.abs().max()) / precisions.FP8_LARGEST
        scaled = values.to(self.device) / scale
        if right:  # cuBLAS wants the right one column by column
            return scaled.t().contiguous().to(self.dtype).t(), scale
        return scaled.to(self.dtype), scale

    def multiply(self, left, right):
        """The product of two operands."""
        if self.name == "int8":
            return self.torch._int_mm(left[0], right[0])
        if self.name == "fp8":
            scales = [self.torch.tensor(scale, device=self.device) for _, scale in (left, right)]
            keys = {"scale_a": scales[0], "scale_b": scales[1], "out_dtype": self.torch.bfloat16}
            answer = self.torch._scaled_mm(left[0], right[0], **keys)
            return answer[0] if isinstance(answer, tuple) else answer  # up to torch 2.4 with its largest value
        return left[0] @ right[0]

    def exact(self, operand):
        """The operand as it is multiplied, in float64, where it lies."""
        tensor = operand[0].float() if self.name == "fp8" else operand[0]
        return tensor.double() * operand[1]


def _measure(kind, shapes):
    """The worst errors over every shape, and the two exact properties."""
    torch = kind.torch
    generator = torch.Generator().manual_seed(SEED)
    measured = {"frobenius": 0.0, "max_over_mean": 0.0}
    if kind.name == "int8":
        measured = {"wrong_elements": 0}
    for rows, inner, columns in shapes:
        values = kind.random(generator, rows, inner), kind.random(generator, inner, columns)
        left, right = kind.operand(values[0]), kind.operand(values[1], right=True)
        product = kind.multiply(left, right)
        measured["ran_on"] = str(product.device)
        if product.device != kind.device:
            return dict(measured, terms=inner)  # that is the verdict
        reference = _reference(kind.exact(left), kind.exact(right), max(rows, inner, columns), measured)
        shape = f"{rows}x{inner}x{columns}"
        _note(kind, measured, f"a @ b, {shape}", product, reference)
        if (rows, inner, columns) in (shapes[0], shapes[-1]):
            _measure_layouts(kind, (left[0], right[0]), reference, measured, shape)
        if kind.name == "fp8":
            whole, _ = numerics.errors(product, values[0].double() @ values[1].double())
            measured["sqnr_db"] = min(measured.get("sqnr_db", float("inf")), numerics.decibels(whole))
    _measure_batch(kind, generator, measured)
    measured["identity_exact"] = _identity_exact(kind, generator, shapes[0][0])
    measured["repeats_equal"] = _repeats_equal(kind, generator, shapes[0])
    measured["repeats"] = REPEATS[kind.device.type]
    measured["terms"] = max(inner for _, inner, _ in shapes)
    measured["shapes"] = ", ".join("x".join(str(side) for side in shape) for shape in shapes)
    return measured


def _note(kind, measured, what, product, reference):
    """Keep the worst errors, and which product has the largest F (of integers: the last one that is wrong)."""
    if kind.name == "int8":
        wrong = int((product.to(reference.device).double() != reference).sum())
        measured["wrong_elements"] += wrong
        if wrong:
            measured["worst_product"] = what
        return
    frobenius, max_over_mean = numerics.errors(product, reference)
    if "worst_product" not in measured or not frobenius <= measured["frobenius"]:
        measured["worst_product"] = what
    measured["frobenius"] = max(measured["frobenius"], frobenius)
    measured["max_over_mean"] = max(measured["max_over_mean"], max_over_mean)


def _measure_layouts(kind, operands, reference, measured, shape):
    """The same product of operands that are stored transposed, as backward passes have them, and with a bias."""
    torch = kind.torch
    left, right = operands
    by_columns = right.t().contiguous()
    if kind.name == "int8":
        _try(kind, measured, f"a @ b.t(), {shape}", lambda: torch._int_mm(left, by_columns.t()), reference)
    if kind.name in ("int8", "fp8"):
        return  # fp8 is stored by columns already
    bias = kind.random(torch.Generator().manual_seed(SEED), 1, right.shape[1])[0].to(right)
    biased = reference + bias.to(reference)
    rows_first = left.t().contiguous()
    linear = torch.nn.functional.linear
    _try(kind, measured, f"a @ b.t(), {shape}", lambda: left @ by_columns.t(), reference)
    _try(kind, measured, f"a.t() @ b, {shape}", lambda: rows_first.t() @ right, reference)
    _try(kind, measured, f"linear with a bias, {shape}", lambda: linear(left, by_columns, bias), biased)


def _measure_batch(kind, generator, measured):
    """One small batch of products, where the precision has them."""
    if kind.name in ("int8", "fp8"):
        return
    batch, rows, inner, columns = BATCH
    left, right = (
        kind.operand(kind.random(generator, batch * size[0], size[1]))[0].reshape(batch, *size)
        for size in ((rows, inner), (inner, columns))
    )
    reference = kind.torch.bmm(left.cpu().double(), right.cpu().double())
    what = "bmm, " + "x".join(str(side) for side in BATCH)
    _try(kind, measured, what, lambda: kind.torch.bmm(left, right), reference)


def _try(kind, measured, what, multiply, reference):
    """Note a product, but on a CPU one that this torch does not have is only named."""
    try:
        product = multiply()
    except RuntimeError as error:
        if kind.device.type != "cpu" or not lacks(kind.torch, kind.device, kind.name, error):
            raise
        measured["not_implemented"] = "; ".join(filter(None, [measured.get("not_implemented"), what]))
        return
    _note(kind, measured, what, product, reference)


def _reference(left, right, largest, measured):
    """The product in float64, on the CPU; a large one on the GPU, whose float64 is compared with the CPU's first."""
    if left.device.type == "cpu" or largest <= CPU_REFERENCE_UP_TO:
        return left.cpu() @ right.cpu()
    part = slice(0, 512)
    small_left, small_right = left[part, part].contiguous(), right[part, part].contiguous()
    frobenius, _ = numerics.errors(small_left @ small_right, small_left.cpu() @ small_right.cpu())
    measured["fp64_error"] = max(measured.get("fp64_error", 0.0), frobenius)
    return left @ right


def _identity_exact(kind, generator, size):
    """A product with the identity gives back the other factor; where TF32 is on, one of few enough bits for it."""
    torch = kind.torch
    values = kind.random(generator, size, size)
    if kind.dtype == torch.float32 and precisions.tf32_on(torch, kind.device):
        values = values.bfloat16().float()
    square = kind.operand(values)[0], 1.0
    one = torch.eye(size).to(device=kind.device, dtype=kind.dtype), 1.0
    product = kind.multiply(square, (one[0].t(), 1.0) if kind.name == "fp8" else one)
    return bool(torch.equal(product.double(), kind.exact(square)))


def _repeats_equal(kind, generator, shape):
    rows, inner, columns = shape
    left = kind.operand(kind.random(generator, rows, inner))
    right = kind.operand(kind.random(generator, inner, columns), right=True)
    first = kind.multiply(left, right)
    return all(bool(kind.torch.equal(kind.multiply(left, right), first)) for _ in range(REPEATS[kind.device.type]))


def _observe(torch, device):
    """What torch reports about TF32 now, and the error of a product computed so."""
    generator = torch.Generator().manual_seed(SEED)
    rows, inner, columns = TRUTH_SHAPE
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(inner, columns, generator=generator)
    flag = bool(torch.backends.cuda.matmul.allow_tf32)
    frobenius, _ = numerics.errors(left.to(device) @ right.to(device), left.double() @ right.double())
    return {"flag": flag, "frobenius": frobenius}


def _fixed_repeats_elsewhere(context, dtype_name):
    """Whether repeats are equal in a fresh process with a fixed workspace; None where that process says nothing.

    CUBLAS_WORKSPACE_CONFIG is read once a process, at its first product: too late for this one.
    """
    limit_s = max(1.0, min(FIXED_WORKSPACE_LIMIT_S, context.limit_s / 2))
    job = {"precision": dtype_name, "device": context.device}
    variables = {"CUBLAS_WORKSPACE_CONFIG": FIXED_WORKSPACE}
    outcome = ranks.run("checks_gemm:fixed_repeats", 1, job, limit_s, variables)
    return next((answer["equal"] for answer in outcome.answers()), None)
