"""Owns the benchmarks of single operations, forward and backward: attention, LayerNorm, softmax, embedding.

Each is first compared with a plain formula in float64, at a size where that is cheap; a wrong one is not timed. On the
CPU: fp32 and small shapes, which prove the path and rank nothing. Must not know how a step is timed.
"""

from __future__ import annotations

from . import attention, figures, numerics, precisions, timing
from .context import failed, skipped

SEED = 20240506
# Shapes by device. attention: batch, heads, tokens, values of a head. layernorm, softmax: rows, columns.
# embedding: tokens, rows of the table, columns.
SHAPES = {
    "cuda": {
        "sdpa": (8, 16, 2048, 64),
        "layernorm": (16384, 4096),
        "softmax": (16384, 4096),
        "embedding": (32768, 50304, 768),
    },
    "cpu": {
        "sdpa": (1, 2, 128, 32),
        "layernorm": (256, 256),
        "softmax": (256, 256),
        "embedding": (256, 512, 64),
    },
}
# Where an operation is compared with its formula: odd on purpose, so that the last block of a kernel is not full.
SMALL_SHAPES = {
    "sdpa": (2, 3, 129, 64),
    "layernorm": (67, 1025),
    "softmax": (67, 1025),
    "embedding": (129, 257, 65),
}


class Operation:
    """One operation: its inputs, itself, the same as a plain formula, and the work of one forward and backward pass."""

    def __init__(self, inputs, apply, formula, work):
        self.inputs = inputs  # (torch, shape) → float tensors with gradients, and what has none
        self.apply = apply  # (torch, *inputs) → output
        self.formula = formula
        self.work = work  # (shape, bytes per element) → (name, amount per pass in 1e9 bytes or 1e12 FLOP)


def sdpa(context):
    """Causal attention."""
    return _benchmark(context, "sdpa")


def layernorm(context):
    """LayerNorm with weight and bias."""
    return _benchmark(context, "layernorm")


def softmax(context):
    """Softmax over the last dimension."""
    return _benchmark(context, "softmax")


def embedding(context):
    """Rows of a table, with a dense gradient."""
    return _benchmark(context, "embedding")


def _sdpa_inputs(torch, shape):
    return [torch.randn(shape) for _ in range(3)], []


def _sdpa(torch, query, key, value):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def _sdpa_work(shape, _itemsize):
    batch, heads, tokens, width = shape
    # Two products forward, five backward, of which causality needs half.
    return "tflops", 3.5 * 4.0 * batch * heads * tokens * tokens * width / 2 / 1e12


def _layernorm_inputs(torch, shape):
    return [torch.randn(shape), 1.0 + 0.1 * torch.randn(shape[1]), 0.1 * torch.randn(shape[1])], []


def _layernorm(torch, rows, weight, bias):
    return torch.nn.functional.layer_norm(rows, (rows.shape[1],), weight, bias)


def _layernorm_formula(_torch, rows, weight, bias):
    centred = rows - rows.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def _softmax_inputs(torch, shape):
    return [torch.randn(shape)], []


def _softmax(torch, rows):
    return torch.softmax(rows, -1)


def _softmax_formula(_torch, rows):
    powers = (rows - rows.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def _five_tensors(shape, itemsize):
    rows, columns = shape
    return "gb_per_s", 5.0 * rows * columns * itemsize / 1e9


def _embedding_inputs(torch, shape):
    tokens, rows, columns = shape
    return [torch.randn(rows, columns)], [torch.randint(rows, (tokens,))]


def _embedding(torch, table, tokens):
    return torch.nn.functional.embedding(tokens, table)


def _embedding_formula(torch, table, tokens):
    return torch.nn.functional.one_hot(tokens, table.shape[0]).to(table.dtype) @ table


def _embedding_work(shape, itemsize):
    tokens, rows, columns = shape
    return "gb_per_s", (4.0 * tokens + rows) * columns * itemsize / 1e9


OPERATIONS = {
    "sdpa": Operation(_sdpa_inputs, _sdpa, attention.plain, _sdpa_work),
    "layernorm": Operation(_layernorm_inputs, _layernorm, _layernorm_formula, _five_tensors),
    "softmax": Operation(_softmax_inputs, _softmax, _softmax_formula, _five_tensors),
    "embedding": Operation(_embedding_inputs, _embedding, _embedding_formula, _embedding_work),
}


def _benchmark(context, name):
    import torch

    if name == "sdpa" and not attention.has_fused(torch):
        text = f"torch {torch.__version__} has no scaled_dot_product_attention, which came with 2.0"
        return skipped(text, device=context.device)
    device = torch.device(context.device)
    operation, shape = OPERATIONS[name], SHAPES[device.type][name]
    dtype_name = half_precision(torch, device)
    dtype = precisions.dtype(torch, dtype_name)
    torch.manual_seed(SEED)
    numbers = {"shape": "×".join(str(each) for each in shape), "precision": dtype_name}
    numbers.update(errors(torch, operation, SMALL_SHAPES[name], device, dtype))
    wrong = judge_errors(numbers, context.thresholds["error_" + dtype_name])
    if wrong:
        return failed(wrong, evidence=wrong, cause="numerics-wrong", device=str(device), numbers=numbers)
    step, leaves = _step(torch, operation, shape, device, dtype)
    measurement = yield from timing.measured(context, torch, step)
    what = "forward and backward, {shape}, {precision}".format(**numbers)
    answer = figures.judged(context, measurement, 1.0, numbers, str(leaves[0].grad.device), what)
    if "samples" in answer:
        unit, amount = operation.work(shape, leaves[0].element_size())
        answer["numbers"][unit] = float("{:.4g}".format(amount / (answer["samples"]["median"] / 1e3)))
    answer["thresholds"]["error"] = context.thresholds["error_" + dtype_name]
    return answer


def half_precision(torch, device) -> str:
    """What networks are trained in on this device."""
    if device.type == "cpu":
        return "fp32"
    return "fp16" if precisions.too_old(torch, device, "bf16") else "bf16"


def errors(torch, operation, shape, device, dtype) -> dict:
    """Relative Frobenius errors of output and gradients against the formula in float64 of the same rounded inputs."""
    floats, others = operation.inputs(torch, shape)
    rounded = [each.to(dtype) for each in floats]
    leaves = [each.to(device).requires_grad_() for each in rounded]
    output = operation.apply(torch, *leaves, *(each.to(device) for each in others))
    weights = torch.randn(output.shape).to(dtype)
    gradients = torch.autograd.grad(output, leaves, weights.to(device))
    exact = [each.double().requires_grad_() for each in rounded]
    expected = operation.formula(torch, *exact, *others)
    expected_gradients = torch.autograd.grad(expected, exact, weights.double())
    return {
        "error_output": numerics.frobenius(output, expected),
        "error_gradients": max(map(numerics.frobenius, gradients, expected_gradients)),
    }


def judge_errors(numbers: dict, most: float) -> str:
    """What is wrong with an operation, or "": its errors must be at most `most`."""
    for name, what in (("error_output", "output"), ("error_gradients", "gradients")):
        if not numbers[name] <= most:
            return f"the {what} is {numbers[name]:.2g} off the formula in float64, above {most:g}"
    return ""


def _step(torch, operation, shape, device, dtype):
    """(forward and backward as one function, the tensors that get gradients)."""
    floats, others = operation.inputs(torch, shape)
    leaves = [each.to(device=device, dtype=dtype).requires_grad_() for each in floats]
    others = [each.to(device) for each in others]
    with torch.no_grad():
        gradient = torch.randn_like(operation.apply(torch, *leaves, *others))

    def step():
        for leaf in leaves:
            leaf.grad = None
        operation.apply(torch, *leaves, *others).backward(gradient)

    return step, leaves
