"""Owns the export check: a model that was saved, traced or exported, and loaded again, gives the same outputs.

What this torch or this image does not have is said and not judged. Must not touch a network or a registry of models.
"""

from __future__ import annotations

import importlib
import inspect
import os
import warnings

from . import numerics, scratch, versions
from .context import exception_line, failed, passed

SEED = 20240513
BATCH, CHANNELS, SIDE, CLASSES = 3, 3, 16, 5
# Torch's version; before, saving an exported program was a prototype that failed on convolutions.
EXPORT_FILE_FROM = (2, 6)
LINE_LENGTH = 300  # characters of an exception
ABSENT_ON_THIS_PYTHON = ("not supported on Python", "not yet supported on Python")


def roundtrip(context):
    """By state_dict (bit for bit), torch.jit.trace, torch.export and ONNX: each against the model that was saved."""
    import torch

    device = torch.device(context.device)
    ways = [("state_dict", _state_dict), ("jit", _jit)]
    if context.profile != "smoke":  # importing the exporter alone takes seconds
        ways += [("export", _export), ("onnx", _onnx)]
    findings = {}
    with scratch.Folder("export") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations, and the tracer's remarks
        model = _model(torch, SEED).to(device).eval()
        inputs = _inputs(torch, device)
        with torch.no_grad():
            expected = model(inputs)
            for name, way in ways:
                findings[name] = _attempt(way, (torch, model, inputs, expected), os.path.join(folder, name))
    return judge(findings, str(expected.device), context.thresholds)


class Finding:
    """What one way has shown: an error (relative, Frobenius), or why it is absent, or what is wrong with it."""

    def __init__(self, error=None, absent="", wrong=""):
        self.error = error
        self.absent = absent
        self.wrong = wrong


def judge(findings, device, thresholds):
    """The verdict on every way; state_dict must be exact, and must be there."""
    numbers = {
        name: each.error if each.error is not None else each.absent or each.wrong for name, each in findings.items()
    }
    keys = {"device": device, "numbers": numbers, "thresholds": dict(thresholds)}
    wrong = []
    for name, each in findings.items():
        limit = thresholds["state_dict" if name == "state_dict" else "frobenius"]
        if each.wrong:
            wrong.append(f"{name}: {each.wrong}")
        elif each.error is not None and not each.error <= limit:
            wrong.append(f"{name}: the outputs differ by F = {each.error:.3g}, above {limit:g}")
    if wrong:
        return failed("what was saved is not what is loaded: " + wrong[0], evidence="\n".join(wrong), **keys)
    equal = [name for name, each in findings.items() if each.error is not None]
    absent = [f"{name} ({each.absent})" for name, each in findings.items() if each.absent]
    text = f"on {device}: equal outputs after {', '.join(equal)}"
    return passed(text + (f"; not tried: {', '.join(absent)}" if absent else ""), **keys)


def _attempt(way, case, path):
    try:
        return way(*case, path)
    except Exception as error:  # one way that raises is a finding, and the others are still tried
        return Finding(wrong=exception_line(error)[:LINE_LENGTH])


def _state_dict(torch, model, inputs, expected, path):
    torch.save(model.state_dict(), path)
    safe = {"weights_only": True} if "weights_only" in inspect.signature(torch.load).parameters else {}
    loaded = torch.load(path, map_location=inputs.device, **safe)
    for name, tensor in model.state_dict().items():
        if not torch.equal(loaded[name], tensor):
            return Finding(wrong=f"the tensor {name} is not the one that was saved")
    other = _model(torch, SEED + 1).to(inputs.device).eval()
    if torch.equal(other(inputs), expected):
        return Finding(wrong="another model gives the same outputs: outputs do not depend on the weights")
    other.load_state_dict(loaded)
    return Finding(numerics.frobenius(other(inputs), expected))


def _jit(torch, model, inputs, expected, path):
    if not hasattr(torch, "jit") or not hasattr(torch.jit, "trace"):
        return Finding(absent="this torch has no torch.jit.trace")
    torch.jit.save(torch.jit.trace(model, inputs), path)
    loaded = torch.jit.load(path, map_location=inputs.device)
    # The first two runs are profiled, from the third on the optimised code runs.
    return Finding(max(numerics.frobenius(loaded(inputs), expected) for _ in range(3)))


def _export(torch, model, inputs, expected, path):
    try:
        import torch.export as exporter
    except ImportError:
        return Finding(absent="this torch has no torch.export")
    try:
        program = exporter.export(model, (inputs,))
    except RuntimeError as error:
        if any(words in str(error) for words in ABSENT_ON_THIS_PYTHON):
            return Finding(absent=exception_line(error)[:LINE_LENGTH])
        raise
    if versions.numbers(torch.__version__) >= EXPORT_FILE_FROM:
        exporter.save(program, path + ".pt2")
        program = exporter.load(path + ".pt2")
    loaded = program.module() if hasattr(program, "module") else program
    return Finding(numerics.frobenius(loaded(inputs), expected))


def _onnx(torch, model, inputs, expected, path):
    try:
        onnx = importlib.import_module("onnx")
    except ImportError:
        return Finding(absent="no package onnx")
    run = _onnx_runner(onnx, path)
    if run is None:
        return Finding(absent="onnx is there, but nothing that runs it: neither onnxruntime nor onnx.reference")
    # The exporter by tracing needs no further package; later versions must be asked for it.
    legacy = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    torch.onnx.export(model, (inputs,), path, input_names=["images"], output_names=["scores"], **legacy)
    onnx.checker.check_model(onnx.load(path))
    scores = torch.from_numpy(run(inputs.cpu().numpy()))
    return Finding(numerics.frobenius(scores, expected.cpu()))


def _onnx_runner(onnx, path):
    """A function from an array to the first output, by whatever this image has; None where it has nothing."""
    try:
        onnxruntime = importlib.import_module("onnxruntime")

        def run(array):
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            return session.run(None, {"images": array})[0]

    except ImportError:
        try:
            evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator
        except ImportError:
            return None

        def run(array):
            return evaluator(onnx.load(path)).run(None, {"images": array})[0]

    return run


def _inputs(torch, device):
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=generator).to(device)


def _model(torch, seed):
    torch.manual_seed(seed)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )
