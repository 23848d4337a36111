"""Owns the check libs.identity: does real work, then looks which CUDA libraries this process and its like have mapped.

Measures only; library_findings.py says what is wrong with what was seen. Without a card the libraries are loaded by the
same calls that work on a card would make: cuDNN's own version checks, torch's linear algebra library, libcuda by name.
Must not know what is right for an image.
"""

from __future__ import annotations

import os
import sys
import time

from . import distributions, isolated, libraries, library_findings, library_versions, nvidia
from .cgroup import read_text
from .context import exception_line, failed, passed, skipped, unknown, warned

_QUESTION_S = 15.0  # for one question to one library
_HASH_BLOCK = 1 << 20


def identity(context):
    """One copy of each library, all parts of one version, all from where this torch expects them."""
    import torch

    seen = {"torch_cuda": getattr(torch.version, "cuda", None)}
    _see_driver_library(seen, context)
    if seen["torch_cuda"] is not None:
        seen["compiled_cuda"], seen["compiled_cudnn"] = _compiled_versions(torch)
        loaded = _see_cudnn(seen)
        loaded.update(_see_linear_algebra(seen, torch))
        seen["work_error"] = _work(torch, context)
        loaded.update(libraries.mapped_paths())
        seen["mapped"] = sorted(loaded)
        context.fact("libraries", [{"soname": os.path.basename(path), "path": path} for path in seen["mapped"]])
        _see_versions(seen)
        # Hashing gigabytes may take half of the item's time; what is left then is compared by size alone.
        _see_wheels(seen, hash_until=time.monotonic() + context.limit_s / 2 if context.profile == "full" else 0.0)
        seen["library_path_selects"] = _on_library_path()
    return judge(seen, context.thresholds, context.device)


def judge(seen: dict, thresholds: dict, device) -> dict:
    """The verdict on everything that was seen."""
    findings = library_findings.of(seen)
    keys = {"numbers": library_findings.numbers(seen), "thresholds": thresholds, "device": device}
    worst = next((finding for finding in findings if finding.fails), None) or next(iter(findings), None)
    if worst is None:
        if seen["torch_cuda"] is None:
            return skipped("this torch is not built for CUDA: there is no CUDA library to compare", **keys)
        if not keys["numbers"]["libraries"]:
            return unknown("torch is built for CUDA, but no CUDA library of its is mapped: nothing to compare", **keys)
        return passed(
            "{libraries} CUDA libraries, each from one file and of one version".format(**keys["numbers"]), **keys
        )
    keys["evidence"] = "\n".join(finding.line for finding in findings)
    if worst.cause:
        keys["cause"] = worst.cause
    return failed(worst.text, **keys) if worst.fails else warned(worst.text, **keys)


def _compiled_versions(torch):
    """What torch was compiled with: CUDA as 12010, cuDNN as "8.9.2"; None where this build does not say."""
    cuda = getattr(torch._C, "_cuda_getCompiledVersion", lambda: None)()
    cudnn = getattr(torch._C, "_cudnn", None)
    if cudnn is None or not hasattr(cudnn, "getCompileVersion"):
        return cuda, None
    return cuda, ".".join(str(part) for part in cudnn.getCompileVersion())


def _see_cudnn(seen) -> set:
    """Let cuDNN load and check each of its parts, every check in a child; the paths that were loaded."""
    shims = [path for path in libraries.mapped_paths() if libraries.family(os.path.basename(path)) == "libcudnn"]
    seen["cudnn_checks"], seen["cudnn_versions"] = {}, {}
    if not shims:
        return set()
    shim, loaded = shims[0], set()
    runtime = isolated.call(lambda: {"number": library_versions.cudnn_runtime(shim)}, _QUESTION_S)
    seen["cudnn_runtime"] = runtime.value["number"] if runtime.value else None
    if not runtime.value:
        seen["cudnn_checks"]["cudnnGetVersion"] = runtime.said() or runtime.error
    survey = isolated.call(lambda: {"checks": library_versions.cudnn_checks_of(shim)}, _QUESTION_S)
    for name in survey.value["checks"] if survey.value else ():
        answer = isolated.call(lambda name=name: library_versions.cudnn_check(shim, name), _QUESTION_S)
        if answer.value is None:
            seen["cudnn_checks"][name] = f"{answer.said()} [{answer.error}]".strip()
            continue
        code, text = answer.value["code"], answer.value["text"]
        seen["cudnn_checks"][name] = f"{text or 'error'} ({code})" if code else ""
        seen["cudnn_versions"].update(answer.value["versions"])
        loaded.update(answer.value["paths"])
    return loaded


def _see_linear_algebra(seen, torch) -> set:
    """Torch loads its CUDA linear algebra, and cuSOLVER with it, at the first use."""
    path = os.path.join(os.path.dirname(torch.__file__ or ""), "lib", "libtorch_cuda_linalg.so")
    if not os.path.exists(path):
        return set()

    def load():
        import ctypes

        ctypes.CDLL(path)
        return {"paths": libraries.mapped_paths()}

    answer = isolated.call(load, _QUESTION_S)
    if answer.value is None:
        seen["linalg_error"] = answer.error
        return set()
    return set(answer.value["paths"])


def _work(torch, context):
    """A product, a convolution and a transform, as any program does them; what was raised, or ""."""
    device = torch.device(context.device if context.on_gpu else "cpu")
    try:
        matrix = torch.randn(64, 64, device=device)
        matrix @ matrix
        image = torch.randn(1, 3, 32, 32, device=device)
        torch.nn.functional.conv2d(image, torch.randn(4, 3, 3, 3, device=device))
        torch.fft.rfft(image)
        if context.on_gpu:
            torch.cuda.synchronize()
    except RuntimeError as error:
        return exception_line(error)
    return ""


def _see_versions(seen):
    """Ask the loaded libraries for their versions."""
    nvidia_only = [path for path in seen["mapped"] if not os.path.basename(path).startswith("libcudnn")]
    answer = isolated.call(lambda: library_versions.versions(nvidia_only), _QUESTION_S)
    seen["versions"] = dict(answer.value or {})
    seen["versions"].update(seen["cudnn_versions"])


def _see_wheels(seen, hash_until):
    """Compare the files of torch's and NVIDIA's wheels with their RECORD, and what is mapped with these files."""
    mapped_by_name = {os.path.basename(path): path for path in seen["mapped"]}
    differences, shadowed, count, hashed = [], {}, 0, 0
    recorded = {}
    for distribution in _wheels():
        for path, digest, size in distribution.files(".so"):
            name = os.path.basename(path)
            if ".so" not in name:
                continue
            count += 1
            recorded.setdefault(name, []).append(path)
            deep = bool(digest) and time.monotonic() < hash_until
            hashed += deep
            said = difference(path, size, digest if deep else "")
            if said:
                differences.append(f"{path}: {said} ({distribution.name} {distribution.version})")
    for name, path in mapped_by_name.items():
        wheels = recorded.get(name, ())
        if wheels and os.path.realpath(path) not in [os.path.realpath(each) for each in wheels]:
            shadowed[path] = wheels[0]
    seen["record_files"], seen["record_differences"], seen["shadowed"] = count, differences, shadowed
    seen["hashed_files"] = hashed
    if shadowed:
        own = [path for path in shadowed.values() if os.path.exists(path)]
        answer = isolated.call(lambda: library_versions.versions(own), _QUESTION_S)
        seen["wheel_versions"] = dict(answer.value or {})


def _wheels():
    """The distributions that bring torch and CUDA's libraries."""
    found = distributions.installed()
    return [found[name] for name in sorted(found) if name == "torch" or name.startswith("nvidia-")]


def difference(path, size, digest):
    """How a file differs from its RECORD, or ""."""
    try:
        actual = os.stat(path).st_size
    except OSError:
        return "recorded, but not there"
    if size is not None and actual != size:
        return f"{size} bytes recorded, {actual} bytes here"
    if digest and _sha256(path) != digest:
        return "another SHA-256 than recorded"
    return ""


def _sha256(path):
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_HASH_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _see_driver_library(seen, context):
    """Which libcuda a program gets, and whose it is. On a proven GPU the mapped one is looked at, not started anew."""
    answer = isolated.call(library_versions.driver_library, _QUESTION_S)
    found = dict(answer.value or {"error": answer.error})
    if found.get("path"):
        found["path"] = os.path.realpath(found["path"])
        found["mounted"] = mount_of(found["path"], read_text("/proc/self/mountinfo", 1 << 20)) != "/"
    found["kernel"] = nvidia.kernel_driver(read_text(nvidia.PROC_VERSION))
    found["device_name"] = (context.kept.get("device") or {}).get("name", "")
    found["proven"] = context.on_gpu
    seen["driver_library"] = found


def mount_of(path: str, mountinfo: str) -> str:
    """The mount point that a file lies on: the driver's files are mounted one by one, the image's lie on "/"."""
    best = "/"
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        point = fields[4].replace("\\040", " ") if len(fields) > 4 else "/"
        if len(point) > len(best) and (path == point or path.startswith(point.rstrip("/") + "/")):
            best = point
    return best


def _on_library_path():
    """The libcudart that LD_LIBRARY_PATH puts first: {path, version} or None."""
    path = libraries.on_path(os.environ.get("LD_LIBRARY_PATH", ""))
    if path is None:
        return None
    answer = isolated.call(lambda: library_versions.versions([path]), _QUESTION_S)
    version = (answer.value or {}).get(path) or libraries.runtime_version(path)
    return {"path": path, "version": version, "python": sys.executable}
