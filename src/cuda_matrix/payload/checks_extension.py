"""Owns the check extension.build: an image with a compiler must be able to build and run an extension of torch.

With nvcc a CUDA kernel, else a C++ function. Without a compiler there is nothing to promise. Leaves nothing behind.
Must not know torch from the inside: only its own builder is called.
"""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import time

from . import checks_torch, scratch
from .context import exception_line, failed, passed, skipped

_CPP = """
torch::Tensor doubled(torch::Tensor input);
"""
_CPP_ALONE = """
torch::Tensor doubled(torch::Tensor input) { return input + input; }
"""
_CUDA = """
__global__ void twice(const float* in, float* out, int count) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count) out[at] = 2.0f * in[at];
}
torch::Tensor doubled(torch::Tensor input) {
  auto output = torch::empty_like(input);
  int count = input.numel();
  twice<<<(count + 127) / 128, 128>>>(input.data_ptr<float>(), output.data_ptr<float>(), count);
  return output;
}
"""
_COUNT = 1000  # elements
_COMPLAINT = re.compile(r"\berror\b ?:|\bfatal\b|undefined (symbol|reference)|cannot find|not found|No such file")


def build(context):
    """Compile with torch's own builder, load, run, compare."""
    import torch

    tools = find_tools()
    reason = why_not(tools)
    if reason:
        return skipped(reason, numbers=tools)
    started = time.monotonic()
    cuda = bool(tools["nvcc"]) and torch.version.cuda is not None
    try:
        with scratch.Folder("extension") as directory:
            _steer(torch, context, cuda)
            device = torch.device(context.device) if cuda and context.on_gpu else torch.device("cpu")
            wrong = _build_and_run(torch, directory, cuda, device, run=not cuda or context.on_gpu)
    except Exception as error:  # whatever the builder, the compiler or the loader raises
        return judge_error(error, tools, context.device)
    seen = {**tools, "kind": "CUDA" if cuda else "C++", "wrong_elements": wrong}
    seen["build_s"] = round(time.monotonic() - started, 1)
    return judge(seen, context.thresholds, str(device))


def find_tools() -> dict:
    """Where the tools of a build are, as torch looks for them; None where there is none."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = os.path.join(home, "bin", "nvcc")
    headers = sysconfig.get_paths().get("include", "")
    return {
        "compiler": shutil.which(os.environ.get("CXX", "").partition(" ")[0] or "c++") or shutil.which("g++"),
        "nvcc": shutil.which("nvcc") or (nvcc if os.access(nvcc, os.X_OK) else None),
        "ninja": shutil.which("ninja"),
        "python_headers": headers if os.path.exists(os.path.join(headers, "Python.h")) else None,
    }


def why_not(tools: dict) -> str:
    """What an image lacks that was never meant for building, or ""."""
    if not tools["compiler"]:
        return "no C++ compiler here: this image was not made for building"
    if not tools["python_headers"]:
        return "a compiler, but no Python.h: this image was not made for building extensions"
    return "" if tools["ninja"] else "no ninja, which torch's builder needs"


def _steer(torch, context, cuda):
    """Build for this card alone, or where there is none for one architecture that this torch knows."""
    os.environ["MAX_JOBS"] = "2"
    if not cuda:
        return
    if context.on_gpu:
        os.environ["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability(0))
        return
    flags = checks_torch.arch_list(torch)
    native = [match.group(1) for match in (re.match(r"sm_(\d+)$", flag) for flag in flags) if match]
    if native:
        os.environ["TORCH_CUDA_ARCH_LIST"] = native[-1][:-1] + "." + native[-1][-1]


def _build_and_run(torch, directory, cuda, device, run):
    """How many elements came out wrong; None where it was built and could not be run."""
    from torch.utils import cpp_extension

    module = cpp_extension.load_inline(
        name="cuda_matrix_extension",
        cpp_sources=_CPP if cuda else _CPP_ALONE,
        cuda_sources=_CUDA if cuda else None,
        functions=["doubled"],
        build_directory=directory,
        with_cuda=cuda,
        extra_cflags=["-O0"],  # its speed is nobody's concern, its build time is
    )
    if not run:
        return None
    numbers = torch.arange(_COUNT, dtype=torch.float32, device=device)
    return int((module.doubled(numbers) != 2 * numbers).sum())


def judge(seen, thresholds, device):
    """Every element must be right; what was only built is said to be only built."""
    keys = {"numbers": seen, "thresholds": thresholds, "device": device}
    if seen["wrong_elements"] is None:
        return passed(
            "a {kind} extension was built in {build_s} s; not run, since that needs a GPU".format(**seen), **keys
        )
    if seen["wrong_elements"] > thresholds["wrong_elements"]:
        text = "a {kind} extension was built, and {wrong_elements} of its results are wrong".format(**seen)
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    return passed("a {kind} extension was built in {build_s} s, and computes right".format(**seen), **keys)


def judge_error(error, tools, device):
    """The compiler's own line is the evidence."""
    text = str(error)
    line = compiler_line(text) or exception_line(error)
    keys = {"evidence": line, "log": text, "numbers": tools, "device": device}
    if "mismatches the version that was used to compile" in text:
        keys["cause"] = "nvcc-mismatch"
    return failed("an extension cannot be built, though the compiler is here", **keys)


def compiler_line(text: str) -> str:
    """The first line in which a compiler, linker or loader names an error."""
    for line in text.splitlines():
        if _COMPLAINT.search(line) and "Error building extension" not in line:
            return line.strip()
    return ""
