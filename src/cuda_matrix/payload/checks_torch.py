"""Owns the checks of the installed torch: that it imports, how it was built, that it is the expected one.

None of them touches a device. Written for torch 1.13 and everything newer.
Must not know where libraries lie (libraries).
"""

from __future__ import annotations

import sys

from . import distributions, libraries, versions
from .context import GOOD, exception_line, failed, passed, result, skipped


def import_failed(error, expect=None):
    """The result of `torch.import` (called by the worker) where `import torch` raised; `expect` as in the request."""
    evidence = exception_line(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        if (expect or {}).get("torch") == "none":
            return skipped("no torch here, as declared", evidence=evidence)
        elsewhere = libraries.torch_elsewhere()
        summary = "torch is not installed for " + (sys.executable or "this Python")
        if elsewhere:
            evidence += " (but it lies in {}, which {} does not use)".format(", ".join(elsewhere), sys.executable)
        return failed(summary, evidence=evidence, cause="torch-missing")
    import traceback

    log = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return failed("import torch raised " + type(error).__name__, evidence=evidence, log=log)


def imported(context):
    """`import torch` has succeeded in the worker: say which torch it is, and how long it took."""
    import torch

    version = getattr(torch, "__version__", None)
    path = getattr(torch, "__file__", None)
    if version is None or path is None:
        where = str(getattr(torch, "__path__", "an unknown place"))
        return failed("`import torch` gives something that is no PyTorch", evidence=where, cause="torch-missing")
    context.fact("torch", str(version))
    context.fact("torch_path", str(path))
    context.fact("torch_cuda", _cuda_version(torch) or "none")
    seconds = context.import_seconds
    numbers = {"torch": str(version), "import_s": None if seconds is None else round(seconds, 3)}
    return passed(f"torch {version}", numbers=numbers)


def cuda_build(context):
    """Step 2 of the diagnosis: which CUDA, cuDNN, NCCL and architectures torch was built with."""
    import torch

    cuda = _cuda_version(torch)
    if cuda is None:
        return _cpu_build(torch, context)
    architectures = arch_list(torch)
    context.fact("arch_list", architectures)
    try:
        cudnn = versions.library(torch.backends.cudnn.version())
    except RuntimeError as error:  # torch checks that the cuDNN it finds is the one it was built with
        return failed("cuDNN does not belong to this torch", evidence=exception_line(error), numbers={"cuda": cuda})
    nccl = _nccl(torch)
    context.fact("cudnn", cudnn)
    context.fact("nccl", nccl)
    numbers = {"cuda": cuda, "cudnn": cudnn, "nccl": nccl, "arch_list": " ".join(architectures)}
    summary = f"built for CUDA {cuda}, cuDNN {cudnn or 'none'}, NCCL {nccl or 'none'}"
    return passed(summary, numbers=numbers)


def _cpu_build(torch, context):
    hip = getattr(torch.version, "hip", None)
    build = f"a ROCm {hip} build" if hip else "a CPU build"
    evidence = f"torch.version.cuda is None (torch {torch.__version__})"
    numbers = {"cuda": "none", "hip": hip}
    if context.gpu_needed:
        text = f"{build}: it cannot use an NVIDIA GPU"
        return failed(text, evidence=evidence, cause="cpu-only-torch", numbers=numbers)
    if context.expect.get("cuda") == "none":
        return passed(f"{build}, as declared", evidence=evidence, numbers=numbers)
    return skipped(f"{build}, and no GPU is required here", evidence=evidence, numbers=numbers)


def _cuda_version(torch):
    return getattr(getattr(torch, "version", None), "cuda", None)


def arch_list(torch):
    """Architectures with native code in this build. `torch.cuda.get_arch_list` hides them where no driver answers."""
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()
    if flags:
        return flags.split()
    return list(torch.cuda.get_arch_list())


def _nccl(torch):
    try:
        version = torch.cuda.nccl.version()
    except (AttributeError, RuntimeError, ImportError):  # a build without NCCL
        return None
    return ".".join(str(part) for part in version) if isinstance(version, tuple) else versions.library(version)


def expect(context):
    """The versions found are the versions expected: of torch's build, of Python, and of any Python distribution."""
    if not context.expect:
        return skipped("no version is expected")
    found, unreadable = {}, []
    torch = _torch_if_importable(context)
    packages = distributions.installed()
    for key in context.expect:
        version = _found(key, torch, packages, context.expect)
        if version is None:
            unreadable.append(key)
        else:
            found[key] = version
    return judge_expectations(context.expect, found, unreadable)


def _torch_if_importable(context):
    """The imported torch; None where its check failed, and where the image shall have none."""
    if context.expect.get("torch") == "none":
        return None
    if context.results.get("torch.import", {}).get("status", "pass") not in GOOD:
        return None
    try:
        import torch
    except Exception:  # torch.import is the check that says why; alone or with it, this check's verdict is the same
        return None
    return torch


def _found(key, torch, packages, expected):
    """One version as text; "none" for what is not there; None where it cannot be known without importing torch."""
    if key == "python":
        return versions.python()
    if key not in ("torch", "cuda", "cudnn"):
        distribution = packages.get(distributions.normalised(key))
        return distribution.version if distribution else "none"
    if expected.get("torch") == "none":
        return _found_without_torch(key, packages)
    return None if torch is None else _found_in_torch(key, torch)


def _found_in_torch(key, torch):
    if key == "torch":
        return str(torch.__version__)
    if key == "cuda":
        return _cuda_version(torch) or "none"
    return versions.library(torch.backends.cudnn.version()) or "none"


def _found_without_torch(key, packages):
    """What an image that shall have no torch has of it, and of CUDA's own libraries."""
    if key == "torch":
        return packages["torch"].version if "torch" in packages else "none"
    if key == "cudnn":
        return libraries.cudnn_version() or "none"
    runtimes = libraries.runtimes(libraries.site_directories(sys.path))
    return next((runtime["version"] for runtime in runtimes if runtime["version"]), "none")


def judge_expectations(expected, found, unreadable=()):
    """Compare versions; what cannot be read, because torch cannot be imported, passes nothing and accuses nobody."""
    numbers = {"found_" + key: found[key] for key in sorted(expected) if key in found}
    thresholds = {"expected_" + key: value for key, value in sorted(expected.items())}
    wrong = [key for key in sorted(expected) if key in found and not same_version(expected[key], found[key])]
    if wrong:
        evidence = "; ".join(f"{key}: expected {expected[key]}, found {found[key]}" for key in wrong)
        text = ", ".join(wrong) + " is not what was expected"
        return failed(text, evidence=evidence, cause="expectation-mismatch", numbers=numbers, thresholds=thresholds)
    if unreadable:
        text = "torch could not be imported, so these versions are not known: " + ", ".join(sorted(unreadable))
        return skipped(text, numbers=numbers, thresholds=thresholds)
    found_text = ", ".join(f"{key} {found[key]}" for key in sorted(expected))
    return result("pass", found_text, numbers=numbers, thresholds=thresholds)


def same_version(expected: str, found: str) -> bool:
    """`12.1` matches 12.1 and 12.1.105; `2.2.0` matches 2.2.0+cu121, but `2.2.0+cu118` does not."""
    if expected == found:
        return True
    if "+" in expected:
        return False
    wanted, had = expected.split("."), found.partition("+")[0].split(".")
    return had[: len(wanted)] == wanted
