"""Owns what is wrong with a set of loaded CUDA libraries: pure judging of what checks_libraries.py has seen.

Must not read files, load libraries or know torch.
"""

from __future__ import annotations

import os
import re

from . import libraries, versions

CUDNN = "cudnn-version-mismatch"
MIXED = "nvlib-version-conflict"
FOREIGN_DRIVER = "compat-lib-mismatch"
STUB_DRIVER = "libcuda-stub"
FORWARD = "fwd-compat-unsupported"
STUB_LIBRARY = 34  # CUDA_ERROR_STUB_LIBRARY
_LISTED = 4  # entries of one kind that are quoted


class Finding:
    """One thing that is not as it should be: a sentence, the measured line behind it, and the cause it stands for."""

    def __init__(self, fails: bool, text: str, line: str, cause: str = ""):
        self.fails = fails
        self.text = text
        self.line = line
        self.cause = cause


def of(seen: dict) -> list:
    """Every finding, the gravest first within its kind."""
    found = _driver(seen.get("driver_library") or {})
    if seen.get("torch_cuda") is None:
        return found
    for look in (
        _cudnn_checks,
        _cudnn_parts,
        _cudnn_version,
        _shadowed,
        _copies,
        _runtime,
        _linalg,
        _work,
        _files,
        _path,
    ):
        found += look(seen)
    return sorted(found, key=lambda finding: not finding.fails)


def numbers(seen: dict) -> dict:
    """What a reader needs to judge for himself."""
    driver = seen.get("driver_library") or {}
    cudart = _mapped(seen, "libcudart")
    selects = seen.get("library_path_selects") or {}
    parts = _cudnn_files(seen)
    return {
        "libraries": len([path for path in seen.get("mapped", ()) if _is_nvidia(path)]),
        "cuda_compiled": versions.cuda(seen.get("compiled_cuda")),
        "cuda_runtime": seen.get("versions", {}).get(cudart[0]) if cudart else None,
        "cuda_runtime_path": ", ".join(cudart) or None,
        "cudnn_compiled": seen.get("compiled_cudnn"),
        "cudnn_runtime": versions.library(seen.get("cudnn_runtime")),
        "cudnn_checks_passed": len([said for said in seen.get("cudnn_checks", {}).values() if not said]),
        "cudnn_checks": len(seen.get("cudnn_checks", {})),
        "cudnn_directories": ", ".join(sorted({os.path.dirname(path) for path in parts})) or None,
        "copies": max([len(paths) for paths in _families(seen).values()], default=0),
        "record_files": seen.get("record_files"),
        "hashed_files": seen.get("hashed_files"),
        "record_differences": len(seen.get("record_differences", ())),
        "libcuda": driver.get("path"),
        "libcuda_cuinit": driver.get("cuinit"),
        "library_path_selects": selects.get("path"),
        "library_path_version": selects.get("version"),
        **{name + "_version": version for name, version in _named_versions(seen).items()},
    }


def _named_versions(seen):
    """Versions by short name: cublas, nccl, nvrtc and so on."""
    found = {}
    for path, version in sorted(seen.get("versions", {}).items()):
        name = libraries.family(os.path.basename(path))[3:]
        if name != "cudart" and not name.startswith("cudnn"):
            found[name] = version
    return found


def _driver(driver) -> list:
    """The libcuda that programs get must be the driver's own."""
    path, code = driver.get("path") or "", driver.get("cuinit")
    if not path:
        said = driver.get("error", "")
        return [Finding(False, "libcuda cannot be loaded", said)] if said else []
    line = f"libcuda.so.1 is {path}, cuInit gives {code}"
    if code == STUB_LIBRARY or "/stubs/" in path:
        text = "the libcuda that programs find is the stub for linking, not a driver"
        return [Finding(True, text, line, STUB_DRIVER)]
    if driver.get("proven"):
        return []  # it computes: whatever it is, it fits
    if "/compat/" in path or "/compat-" in path:
        geforce = re.search(r"geforce|titan", driver.get("device_name", ""), re.IGNORECASE)
        text = "libcuda is the image's forward-compatibility library, which works on data-centre cards only"
        return [Finding(bool(geforce), text, line, FORWARD)]
    return _drivers_own(driver, line)


def _drivers_own(driver, line) -> list:
    """The version in libcuda's name against the kernel module's; a mounted file is the driver's."""
    version = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)*)$", driver["path"])
    kernel = driver.get("kernel")
    if version is None or driver.get("mounted"):
        return []
    if kernel and version.group(1) != kernel:
        text = f"libcuda {version.group(1)} is in the image and hides that of the driver, {kernel}"
        return [Finding(True, text, line, FOREIGN_DRIVER)]
    if driver.get("cuinit") and not kernel:
        return [Finding(False, "the image contains a driver library of its own", line)]
    return []


def _cudnn_checks(seen) -> list:
    """The parts of cuDNN as cuDNN itself compares them."""
    bad = {name: said for name, said in sorted(seen.get("cudnn_checks", {}).items()) if said}
    if not bad:
        return []
    lines = [f"{name}: {said}" for name, said in list(bad.items())[:_LISTED]]
    differing = [each for each in seen.get("record_differences", ()) if "libcudnn" in each]
    text = "cuDNN's parts do not fit each other: {} of its {} checks of itself fail".format(
        len(bad), len(seen["cudnn_checks"])
    )
    return [Finding(True, text, "\n".join(lines + differing[:_LISTED]), CUDNN)]


def _cudnn_files(seen):
    return [path for path in seen.get("mapped", ()) if os.path.basename(path).startswith("libcudnn")]


def _cudnn_parts(seen) -> list:
    """All parts from one directory and of one version."""
    found = []
    directories = sorted({os.path.dirname(path) for path in _cudnn_files(seen)})
    if len(directories) > 1:
        lines = "\n".join(_cudnn_files(seen)[:12])
        found.append(Finding(True, f"cuDNN's parts are loaded from {len(directories)} directories", lines, CUDNN))
    by_version = {}
    for path, version in sorted(seen.get("cudnn_versions", {}).items()):
        by_version.setdefault(version, []).append(path)
    if len(by_version) > 1:
        lines = "\n".join(f"{version}: {', '.join(paths)}" for version, paths in sorted(by_version.items()))
        found.append(Finding(True, "cuDNN's parts are of versions " + " and ".join(sorted(by_version)), lines, CUDNN))
    return found


def _cudnn_version(seen) -> list:
    """Runtime against compile version: older or another major fails, newer is worth a remark."""
    compiled, runtime = seen.get("compiled_cudnn"), versions.library(seen.get("cudnn_runtime"))
    if not compiled or not runtime or compiled == runtime:
        return []
    fails = not _newer_same_major(runtime, compiled)
    word = "does not fit" if fails else "is newer than"
    text = f"cuDNN {runtime} {word} the {compiled} that torch was compiled with"
    return [
        Finding(fails, text, f"cudnnGetVersion: {runtime}, torch was compiled with {compiled}", CUDNN if fails else "")
    ]


def _shadowed(seen) -> list:
    """A library that a wheel brought, but that was loaded from a place that belongs to no wheel."""
    found = []
    for path, own in sorted(seen.get("shadowed", {}).items()):
        had, wanted = seen.get("versions", {}).get(path), seen.get("wheel_versions", {}).get(own)
        fails = bool(had and wanted) and had != wanted and not _newer_same_major(had, wanted)
        name = os.path.basename(path)
        text = "{} {} is loaded in place of the wheel's own {}".format(
            name, had or "of unknown version", wanted or name
        )
        cause = CUDNN if name.startswith("libcudnn") else MIXED
        found.append(Finding(fails, text, f"{path} hides {own}", cause))
    return found


def _families(seen):
    """Real files by library, of those that may be there only once."""
    copies = {}
    for path in seen.get("mapped", ()):
        copies.setdefault(libraries.family(os.path.basename(path)), set()).add(path)
    return {name: paths for name, paths in sorted(copies.items()) if name in libraries.ONE_ONLY}


def _copies(seen) -> list:
    found = []
    for name, paths in _families(seen).items():
        if len(paths) > 1:
            text = f"{len(paths)} copies of {name} are loaded in one process"
            found.append(Finding(True, text, "\n".join(sorted(paths)), MIXED))
    return found


def _runtime(seen) -> list:
    """The CUDA runtime that is loaded against the one that torch was compiled with."""
    compiled = versions.cuda(seen.get("compiled_cuda"))
    found = []
    for path in _mapped(seen, "libcudart"):
        runtime = seen.get("versions", {}).get(path)
        if not compiled or not runtime or runtime == compiled:
            continue
        fails = not _newer_same_major(runtime, compiled)
        word = "does not fit" if fails else "is newer than"
        text = f"CUDA runtime {runtime} {word} the {compiled} that torch was compiled with"
        found.append(Finding(fails, text, f"{path}: {runtime}, torch was compiled with {compiled}", MIXED))
    return found


def _linalg(seen) -> list:
    said = seen.get("linalg_error", "")
    if not said or "libcuda.so.1" in said:  # without a driver that is no fault of the image
        return []
    return [Finding(True, "torch's CUDA linear algebra cannot be loaded", said)]


def _work(seen) -> list:
    said = seen.get("work_error", "")
    return [Finding(True, "a product, a convolution or a transform failed", said)] if said else []


def _files(seen) -> list:
    """Files that are not what the wheel brought: a swapped or an overwritten library, or a stripped one."""
    differing = list(seen.get("record_differences", ()))
    if not differing:
        return []
    names = sorted({os.path.basename(each.partition(":")[0]) for each in differing})
    more = "" if len(names) <= _LISTED else f" and {len(names) - _LISTED} more"
    text = "not the files that their wheels brought: " + ", ".join(names[:_LISTED]) + more
    return [Finding(False, text, "\n".join(differing[: 2 * _LISTED]))]


def _path(seen) -> list:
    """LD_LIBRARY_PATH offers another runtime than torch's: who loads it first in a process decides for both."""
    selects = seen.get("library_path_selects")
    compiled = versions.cuda(seen.get("compiled_cuda"))
    if not selects or not selects.get("version") or not compiled or selects["path"] in _mapped(seen, "libcudart"):
        return []
    if versions.numbers(selects["version"])[:2] == versions.numbers(compiled)[:2]:
        return []
    text = "LD_LIBRARY_PATH offers CUDA runtime {}, torch uses its own {}".format(selects["version"], compiled)
    line = "LD_LIBRARY_PATH selects {path} ({version}) for every program that does not name its own".format(**selects)
    return [Finding(False, text, line, MIXED)]


def _mapped(seen, family):
    return [path for path in seen.get("mapped", ()) if libraries.family(os.path.basename(path)) == family]


def _is_nvidia(path):
    return re.match(r"lib(cu|nccl|nv)", os.path.basename(path)) is not None


def _newer_same_major(had, wanted):
    mine, theirs = versions.numbers(had), versions.numbers(wanted)
    return mine[:1] == theirs[:1] and mine > theirs
