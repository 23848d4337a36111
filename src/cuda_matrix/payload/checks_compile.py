"""Owns the torch.compile check: compiled code gives eager's results, and it really was compiled code that ran.

Must not know how fast it is; must not leave anything behind: its cache is a folder of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import time

from . import complaints, isolated, numerics, scratch
from .context import failed, passed, skipped, warned

SEED = 20240512
ROWS, COLUMNS = 257, 384  # odd on purpose: the last block is not full
SWITCHES_OFF = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")
EVIDENCE_LIMIT = 2000  # characters

# (words of the exception or of the compiler, what is missing, cause)
MISSING = (
    (r"failed to find C compiler", "a C compiler (gcc)", "compiler-missing"),
    (r"No working C\+\+ compiler found|InvalidCxxCompiler", "a C++ compiler (g++)", "compiler-missing"),
    (r"cannot execute .?cc1plus|cc1plus.{0,40}No such file", "a C++ compiler (g++)", "compiler-missing"),
    (r"No such file or directory: '[^']*(gcc|g\+\+|cc|clang)'", "a C compiler (gcc)", "compiler-missing"),
    (r"Python\.h: No such file", "Python.h (the package python3-dev)", None),
    (r"omp\.h: No such file", "omp.h (OpenMP's header)", None),
    (r"cannot find -lcuda\b|libcuda\.so cannot found", "libcuda.so for the linker (-lcuda)", "triton-libcuda-link"),
    (r"\bPTXASError\b|is not defined for option .gpu-name", "a ptxas that knows this card", "triton-ptxas-too-old"),
    (r"working triton installation|TritonMissing|No module named 'triton", "triton", None),
)
# What dynamo and Triton say where they do not serve this Python or this card: no defect of the image.
NOT_SERVED = (
    r"not (yet )?supported (on|for) Python",
    r"Python 3\.\d+\+? (is )?not (yet )?supported",
    r"too old to be supported by the tri",
    r"GPUTooOldForTriton",
    r"Windows not yet supported",
)


class Outcome:
    """What the compiled functions have shown.

    `errors`: relative Frobenius error against eager by name. `sources`, `machine_code`: generated files. `kernels`:
    Triton kernels that the profiler saw on the card, None where it saw no kernel at all.
    """

    def __init__(self, device: str):
        self.device = device
        self.errors = {}
        self.graphs = 0
        self.sources = 0
        self.machine_code = 0
        self.kernels = None
        self.first_s = 0.0
        self.again_s = 0.0


def inductor(context):
    """A pointwise function, a reduction, and an MLP with its gradients, compiled and against eager."""
    import torch

    if not hasattr(torch, "compile"):
        return skipped(f"torch {torch.__version__} has no torch.compile, which came with 2.0", device=context.device)
    words = complaints.Stderr()  # Triton runs gcc, and keeps only its exit code
    with scratch.Folder("compile") as folder:
        isolated.set_environment(scratch.compiler_caches(folder))
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # compile here, where stderr is read, and not in a pool
        try:
            with words:
                outcome = _compile(torch, torch.device(context.device), folder)
        except Exception as error:
            return judge_error(error, words.text, context.device, context.thresholds)
    off = [f"{name}={os.environ[name]}" for name in SWITCHES_OFF if os.environ.get(name, "0") not in ("", "0")]
    return judge(outcome, context.thresholds, off)


def judge(outcome, thresholds, switched_off=()):
    """The verdict on functions that ran."""
    worst = max(outcome.errors, key=outcome.errors.get)
    numbers = {f"frobenius.{name}": error for name, error in outcome.errors.items()}
    numbers.update(
        graphs=outcome.graphs,
        generated_sources=outcome.sources,
        machine_code_files=outcome.machine_code,
        first_call_s=round(outcome.first_s, 2),
        second_call_s=round(outcome.again_s, 4),
    )
    on_gpu = outcome.device.startswith("cuda")
    if on_gpu:
        numbers["triton_kernels_seen"] = "the profiler saw no kernel" if outcome.kernels is None else outcome.kernels
    keys = {"device": outcome.device, "numbers": numbers, "thresholds": dict(thresholds)}
    if not outcome.errors[worst] <= thresholds["frobenius"]:
        text = f"{worst}: F = {outcome.errors[worst]:.3g} against eager, above {thresholds['frobenius']:g}"
        return failed("compiled code gives other results", evidence=text, cause="numerics-wrong", **keys)
    made = outcome.machine_code if on_gpu else outcome.sources and outcome.machine_code
    if switched_off and not made:
        return skipped("torch.compile is switched off in this image: " + ", ".join(switched_off), **keys)
    if not made or not outcome.graphs:
        text = f"{outcome.graphs} graphs, {outcome.sources} generated sources, {outcome.machine_code} compiled files"
        return failed("torch.compile compiled nothing: the functions ran in eager mode", evidence=text, **keys)
    if outcome.kernels == 0:
        text = "the profiler saw kernels on the card, and none of Triton"
        return failed("the compiled functions ran no Triton kernel", evidence=text, **keys)
    if on_gpu and outcome.kernels is None:
        text = "the profiler saw no kernel on the card; Triton's machine code for it was made and gives eager's results"
        return warned("right, but it was not seen that Triton kernels ran", evidence=text, **keys)
    what = f"{outcome.kernels} Triton kernels seen" if on_gpu else "C++ code generated and compiled"
    return passed(f"on {outcome.device}: {what}, equal to eager; first call {outcome.first_s:.1f} s", **keys)


def judge_error(error, compiler_words: str, device, thresholds):
    """The verdict on an exception: what is missing, from its chain and from what compilers printed."""
    chain = complaints.exception_chain(error)
    said = "\n".join(chain)
    keys = {"device": device, "thresholds": dict(thresholds)}
    for pattern in NOT_SERVED:
        found = re.search(pattern, said)
        if found:
            line = complaints.line_of(said, found)
            return skipped("torch.compile does not serve this Python or this card", evidence=line, **keys)
    for pattern, what, cause in MISSING:
        found = re.search(pattern, said + "\n" + compiler_words, re.IGNORECASE)
        if found:
            line = complaints.line_of(said + "\n" + compiler_words, found)
            if cause:
                keys["cause"] = cause
            text = f"torch.compile cannot compile: {what} is missing"
            if cause and without_compiler():
                return warned(text + ", as any compiler is: this image was not made for it", evidence=line, **keys)
            return failed(text, evidence=line, **keys)
    evidence = "\n".join(chain + compiler_words.splitlines()[-5:])[:EVIDENCE_LIMIT]
    return failed("torch.compile raised " + type(error).__name__, evidence=evidence, **keys)


def without_compiler() -> bool:
    """Whether the image has no compiler at all: a runtime image, which works for everything that is not compiled."""
    return not any(shutil.which(name) for name in ("cc", "gcc", "clang", "c++", "g++", "clang++"))


def _compile(torch, device, folder):
    import torch._dynamo
    import torch._inductor.config

    torch._dynamo.reset()
    torch._dynamo.config.suppress_errors = False  # an image may have chosen to fall back silently
    torch._inductor.config.compile_threads = 1
    outcome = Outcome(str(device))
    calls = _functions(torch, device)
    eager = [call(function) for function, call in calls]
    started = time.perf_counter()
    compiled = [(torch.compile(function), call) for function, call in calls]
    for (function, call), references in zip(compiled, eager):
        for name, results in call(function).items():
            outcome.errors[name] = max(map(numerics.frobenius, results, references[name]))
    outcome.first_s = time.perf_counter() - started

    def again():
        for function, call in compiled:
            call(function)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        outcome.kernels = _triton_kernels(torch, again)
    started = time.perf_counter()
    again()
    outcome.again_s = time.perf_counter() - started
    outcome.graphs = int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    endings = (".py", (".cubin", ".hsaco")) if device.type == "cuda" else (".cpp", ".so")
    outcome.sources, outcome.machine_code = (_count(folder, ending) for ending in endings)
    return outcome


def _functions(torch, device):
    """Pairs of a function, and how to call it; a call gives {name: tensors}. Few, since each costs a compiler's run."""
    generator = torch.Generator().manual_seed(SEED)
    left, right = (torch.randn(ROWS, COLUMNS, generator=generator).to(device) for _ in range(2))
    torch.manual_seed(SEED)
    nn = torch.nn
    mlp = nn.Sequential(nn.Linear(COLUMNS, 128), nn.GELU(), nn.Linear(128, 16)).to(device)

    def vectors(first, second):
        pointwise = torch.sin(first) + torch.cos(second) * first.abs().sqrt()
        reduction = (first * second).sum(-1) - first.amax(-1) + torch.softmax(second, -1).var(-1)
        return pointwise, reduction

    def call(function):
        pointwise, reduction = function(left, right)
        return {"pointwise": [pointwise], "reduction": [reduction]}

    def train(model):
        mlp.zero_grad()
        output = model(left)
        output.square().mean().backward()
        gradients = [parameter.grad.detach().clone() for parameter in mlp.parameters()]
        return {"mlp": [output.detach()], "mlp.gradients": gradients}

    return [(vectors, call), (mlp, train)]


def _triton_kernels(torch, run):
    """How many Triton kernels the profiler sees on the card; None where it sees no kernel (not allowed to, say)."""
    activities = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activities.CPU, activities.CUDA]) as profile:
        run()
    on_card = [event.name for event in profile.events() if "CUDA" in str(getattr(event, "device_type", ""))]
    if not on_card:
        return None
    return sum(name.startswith("triton_") for name in on_card)


def _count(folder, ending):
    return sum(name.endswith(ending) for _, _, names in os.walk(folder) for name in names)
