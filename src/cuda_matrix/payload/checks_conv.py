"""Owns the convolution check: forward and both gradients, by precision, memory layout and library, against float64.

Must not know the limits (the table has them) nor how errors are judged (numerics).
"""

from __future__ import annotations

from . import checks_gemm, numerics, precisions
from .context import exception_line, failed, passed, ran_elsewhere, skipped

SEED = 20240507
# Samples, channels in and out, rows, columns, kernel side, stride, groups: one plain case, one with every oddity.
CASES = ((2, 16, 24, 14, 14, 3, 1, 1), (2, 16, 32, 15, 13, 5, 2, 4))
CUDA_CASES = ((4, 32, 64, 28, 28, 3, 1, 1), CASES[1])
TF32_FROM, TF32_TO = 5e-5, 1.5e-3  # F of a convolution in TF32: for the wording only
PRECISIONS = ("fp32", "fp16", "bf16")
LAYOUTS = ("contiguous_format", "channels_last")
PARTS = ("output", "input gradient", "weight gradient")
CUDNN_WITHOUT_OLD_CARDS = 91100  # from cuDNN 9.11 on, it has no kernels for compute capability below 7.5
OLDEST_CARD_OF_NEW_CUDNN = (7, 5)


def conv2d(context):
    """Every combination of precision, layout and library that this device has."""
    import torch

    precisions.set_strict(torch)
    device = torch.device(context.device)
    cudnn = device.type == "cuda" and bool(torch.backends.cudnn.is_available())
    torch.backends.cudnn.benchmark = False
    stuck = precisions.tf32_on(torch, device)
    tried = []
    for precision in PRECISIONS:
        for number, case in enumerate(CUDA_CASES if device.type == "cuda" else CASES):
            problem = Problem(torch, case, precision, SEED + number)
            for layout in LAYOUTS:
                for library in ("cuDNN", "native") if cudnn else ("native",):
                    torch.backends.cudnn.enabled = library == "cuDNN"
                    tried.append(_try(torch, device, problem, layout, library))
    limits = {(precision, part): _limits(context, precision, part, stuck) for precision in PRECISIONS for part in PARTS}
    verdict = judge(tried, limits, context.device)
    if stuck and verdict["status"] == "pass":
        verdict["summary"] += "; torch cannot switch TF32 off, so fp32 was judged as TF32"
    if cudnn and verdict["status"] == "fail" and _dropped_by_cudnn(torch, device):
        version = torch.backends.cudnn.version()
        verdict["evidence"] += f"\ncuDNN {version} has no kernels for compute capability below 7.5"
    verdict["numbers"]["cudnn"] = cudnn
    return verdict


class Problem:
    """One convolution in one precision: its rounded operands on the CPU, and its float64 results."""

    def __init__(self, torch, case, precision, seed):
        samples, channels, features, rows, columns, side, stride, groups = case
        generator = torch.Generator().manual_seed(seed)
        self.dtype = precisions.dtype(torch, precision)
        self.precision = precision
        self.keys = {"stride": stride, "padding": side // 2, "groups": groups}
        self.label = f"{side}x{side} kernel, stride {stride}, {groups} groups"

        def rounded(*shape):
            return torch.randn(*shape, generator=generator).to(self.dtype)

        self.image = rounded(samples, channels, rows, columns)
        self.weight = rounded(features, channels // groups, side, side)
        image, weight = (each.double().requires_grad_() for each in (self.image, self.weight))
        output = torch.nn.functional.conv2d(image, weight, **self.keys)
        self.upstream = rounded(*output.shape)
        output.backward(self.upstream.double())
        self.references = (output.detach(), image.grad, weight.grad)


def _try(torch, device, problem, layout, library):
    """A dict that says what one combination gave: `errors`, `lacking`, or `raised`."""
    found = {"precision": problem.precision, "layout": layout, "library": library, "case": problem.label}
    memory_format = getattr(torch, layout)
    try:
        image, weight, upstream = (
            each.to(device, copy=True).contiguous(memory_format=memory_format)
            for each in (problem.image, problem.weight, problem.upstream)
        )
        image.requires_grad_()
        weight.requires_grad_()
        output = torch.nn.functional.conv2d(image, weight, **problem.keys)
        output.backward(upstream)
        parts = (output.detach(), image.grad, weight.grad)
        found["ran_on"] = str(output.device)
        found["errors"] = dict(
            zip(PARTS, (numerics.errors(part, right) for part, right in zip(parts, problem.references)))
        )
    except RuntimeError as error:
        lacking = checks_gemm.lacks(torch, device, problem.precision, error)
        found["lacking" if lacking else "raised"] = exception_line(error)
    return found


def _limits(context, precision, part, stuck):
    """The limits of a product, gradients wider by a factor; half precision on a CPU by its own rule."""
    thresholds = context.thresholds
    kind = "tf32" if stuck and precision == "fp32" else precision
    limits = numerics.Limits(thresholds["frobenius_" + kind], thresholds["max_over_mean_" + kind])
    if part != "output":
        limits = limits.times(thresholds["gradient_factor"])
    return checks_gemm.half_limits(context, precision, limits, _terms(part))


def _terms(part):
    """The most products that any element of a part sums, over the cases of a CPU."""
    sums = []
    for samples, channels, features, rows, columns, side, stride, groups in CASES:
        kernel = side * side
        sums.append(
            {
                "output": kernel * channels // groups,
                "input gradient": kernel * features // groups,
                "weight gradient": samples * (rows // stride + 1) * (columns // stride + 1),
            }[part]
        )
    return max(sums)


def judge(tried: list, limits: dict, device: str) -> dict:
    """The verdict on every combination that was tried; a wrong one is compared with its twin in the other library."""
    ran = [each for each in tried if "lacking" not in each]
    lacking = [each for each in tried if "lacking" in each]
    numbers = {"combinations": len(ran), "not_implemented": len(lacking)}
    for each in ran:
        for part, (frobenius, max_over_mean) in each.get("errors", {}).items():
            for name, value in (("frobenius", frobenius), ("max_over_mean", max_over_mean)):
                key = "{}_{}_{}".format(each["precision"], part.replace(" ", "_"), name)
                numbers[key] = max(numbers.get(key, 0.0), value)
    if not ran:
        return skipped("convolutions are not implemented here", evidence=lacking[0]["lacking"], numbers=numbers)
    thresholds = {}
    for (precision, part), limit in limits.items():
        for name, value in limit.as_thresholds().items():
            thresholds["{}_{}_{}".format(precision, part.replace(" ", "_"), name)] = value
    elsewhere = sorted({each["ran_on"] for each in ran if "ran_on" in each} - {device})
    keys = {"device": elsewhere[0] if elsewhere else device, "numbers": numbers, "thresholds": thresholds}
    if elsewhere:
        return ran_elsewhere(device, **keys)
    complaints = [(each, _complaint(each, limits)) for each in ran]
    wrong = [(each, complaint) for each, complaint in complaints if complaint]
    if wrong:
        evidence = "\n".join(_line(each, complaint) for each, complaint in wrong[:6])
        text = f"{len(wrong)} of {len(ran)} convolutions are wrong" + _blame(wrong, ran)
        if not any("raised" in each for each, _ in wrong):  # an exception's text names its cause better than we can
            keys["cause"] = "numerics-wrong"
        return failed(text, evidence=evidence, **keys)
    precisions = [precision for precision in PRECISIONS if any(each["precision"] == precision for each in ran)]
    summary = "{} convolutions on {}, forward and gradients: {}".format(len(ran), device, ", ".join(precisions))
    absent = [precision for precision in PRECISIONS if precision not in precisions]
    return passed(summary + ("; not implemented: " + ", ".join(absent) if absent else ""), **keys)


def _complaint(each, limits):
    """What is wrong with one combination, or ""."""
    if "raised" in each:
        return each["raised"]
    for part, (frobenius, max_over_mean) in each["errors"].items():
        limit = limits[each["precision"], part]
        wrong = numerics.beyond(frobenius, max_over_mean, limit)
        if wrong and each["precision"] == "fp32" and TF32_FROM <= frobenius <= TF32_TO:
            return f"{part}: {wrong}: the size of TF32's rounding, though TF32 is off"
        if wrong:
            return f"{part}: {wrong}"
    return ""


def _line(each, complaint):
    return "{precision}, {layout}, {library}, {case}: ".format(**each) + complaint


def _blame(wrong, ran):
    """Which library is at fault, where the other one is right."""
    at_fault = {each["library"] for each, _ in wrong}
    if len({each["library"] for each in ran}) == 2 and len(at_fault) == 1:
        return ", only with cuDNN: with cuDNN disabled all are right" if "cuDNN" in at_fault else ", only without cuDNN"
    return ""


def _dropped_by_cudnn(torch, device):
    version = torch.backends.cudnn.version()
    return (version or 0) >= CUDNN_WITHOUT_OLD_CARDS and (
        torch.cuda.get_device_capability(device) < OLDEST_CARD_OF_NEW_CUDNN
    )
