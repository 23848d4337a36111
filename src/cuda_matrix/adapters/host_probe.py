"""Owns looking at card and driver of this machine: the PCI bus, /proc, /dev, nvidia-smi, the kernel's log.

Needs no root; what may not be read is "not seen", and why. Must not know what a finding means (host_rules).
`root` stands before every path of the kernel, so that tests bring their own machine.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cuda_matrix.adapters import nvidia_smi
from cuda_matrix.examination import DeviceNode, PciDevice, ProgramAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cuda_matrix.adapters.programs import Programs

_VENDOR = "0x10de"
_READ_LIMIT = 1 << 16  # bytes of one file of the kernel
_DEVICES, _XIDS, _LINE = 256, 200, 500
_VERSION = re.compile(r"\s(\d{2,4}\.\d{1,4}(?:\.\d{1,4})?)\s")
_LIBRARY = re.compile(r"(libcuda|libnvidia-ml)\.so\.(\d{2,4}\.\d{1,4}(?:\.\d{1,4})?)")
_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "usr/lib/wsl/lib")
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_NODE = re.compile(r"nvidia(?:\d{1,3}|ctl|-uvm|-uvm-tools|-modeset|-nvswitch\d{1,3}|-nvswitchctl)|dxg")


def probes(root: Path, programs: Programs) -> dict[str, Callable[[], dict[str, object]]]:
    """The looks, each independent of the others: name → a call that gives fields of HostSeen."""
    return {
        "PCI bus": lambda: _pci(root, programs),
        "driver": lambda: _driver(root, programs),
        "nvidia-smi": lambda: {"smi": nvidia_smi.ask(programs)},
        "device files": lambda: _nodes(root),
        "kernel log": lambda: _xids(programs),
        "processes": lambda: {"processes": _processes(root)},
    }


def unseen() -> dict[str, Callable[[str], dict[str, object]]]:
    """What stands in the place of a look that did not come back: name → why → fields."""
    return {
        "PCI bus": lambda why: {"devices_why": why},
        "nvidia-smi": lambda why: {"smi": ProgramAnswer(name="nvidia-smi", path="nvidia-smi", why=why)},
        "kernel log": lambda why: {"xids_why": why},
    }


def read(path: Path) -> str | None:
    """The beginning of a file of the kernel; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_READ_LIMIT).decode("utf-8", "replace")
    except OSError:
        return None


def _pci(root: Path, programs: Programs) -> dict[str, object]:
    wsl = (root / "dev/dxg").exists()
    folder = root / "sys/bus/pci/devices"
    try:
        places = sorted(folder.iterdir())
    except OSError as error:
        return _lspci(programs, f"/{folder.relative_to(root)}: {error.strerror}") | {"wsl": wsl}
    found = []
    for place in places:
        if (read(place / "vendor") or "").strip() == _VENDOR:
            device, number = (read(place / name) or "" for name in ("device", "class"))
            found.append(_device(place.name, device.strip().removeprefix("0x"), number.strip().removeprefix("0x")))
    return {"devices": tuple(found[:_DEVICES]), "wsl": wsl}


def _lspci(programs: Programs, why: str) -> dict[str, object]:
    answer = programs.ask("lspci", "-n", "-D", "-d", "10de:")
    if not answer.good:
        return {"devices_why": f"{why}; {answer.trouble}"}
    rows = [line.split() for line in answer.out.splitlines()[:_DEVICES]]
    found = [_device(row[0], row[2].split(":")[-1], row[1].rstrip(":")) for row in rows if len(row) > 2]
    return {"devices": tuple(found)}


def _device(address: str, device: str, number: str) -> PciDevice:
    """PCI class 03 is a display controller (also 3D), 0680 a bridge: NVSwitch (pci-ids.ucw.cz)."""
    kind: Literal["card", "switch", "other"] = "other"
    if number.startswith(("03", "0680")):
        kind = "card" if number.startswith("03") else "switch"
    return PciDevice(address=address[:20], device=device[:8], kind=kind)


def _driver(root: Path, programs: Programs) -> dict[str, object]:
    said = read(root / "proc/driver/nvidia/version") or ""
    first = next((line for line in said.splitlines() if line.startswith("NVRM version")), "")
    match = _VERSION.search(f"{first} ")
    modules = read_modules(root)
    secure = _secure_boot(root)
    installed = programs.ask("modinfo", "-F", "version", "nvidia")
    return {
        "loaded": match[1] if match else None,
        "installed": installed.out.strip()[:20] or None if installed.good else None,
        "modules": modules,
        "secure_boot": secure,
        "libraries": _libraries(root),
    }


def read_modules(root: Path) -> tuple[str, ...] | None:
    """Names of the loaded modules that matter here; None where /proc/modules cannot be read."""
    try:
        with (root / "proc/modules").open(encoding="utf-8", errors="replace") as file:
            names = [line.split(maxsplit=1)[0] for line in file.readlines(1 << 20) if line.strip()]
    except OSError:
        return None
    return tuple(name for name in names if name.startswith("nvidia") or name in {"nouveau", "nova_core"})


def _secure_boot(root: Path) -> bool | None:
    """The EFI variable: four bytes of attributes, then 1 or 0. None without EFI, or where it cannot be read."""
    try:
        data = (root / _SECURE_BOOT).read_bytes()
    except OSError:
        return None
    return data[4] == 1 if len(data) > 4 else None


def _libraries(root: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for folder in _LIBRARY_FOLDERS:
        try:
            names = [place.name for place in (root / folder).iterdir()]
        except OSError:
            continue
        for match in filter(None, map(_LIBRARY.fullmatch, names)):
            found.setdefault(match[1], set()).add(match[2])
    return {name: tuple(sorted(versions)) for name, versions in sorted(found.items())}


def _nodes(root: Path) -> dict[str, object]:
    try:
        names = sorted(place.name for place in (root / "dev").iterdir() if _NODE.fullmatch(place.name))
    except OSError:
        return {"nodes": None}
    nodes = []
    for name in names[:_DEVICES]:
        path = root / "dev" / name
        try:
            mode = stat.filemode(path.stat().st_mode)
        except OSError:
            continue
        nodes.append(DeviceNode(path=f"/dev/{name}", mode=mode, usable=os.access(path, os.R_OK | os.W_OK)))
    return {"nodes": tuple(nodes)}


def _xids(programs: Programs) -> dict[str, object]:
    """The last lines of NVIDIA's driver in this boot's log. Not everybody may read the journal, or `dmesg`."""
    refusals = []
    for name, arguments in (
        ("journalctl", ("-k", "-b", "-q", "--no-pager", "-o", "cat", "SYSLOG_FACILITY=0")),
        ("dmesg", ("-k",)),
    ):
        answer = programs.ask(name, *arguments)
        # Without the right to the journal the answer is empty, and the exit code may be 0; a kernel is never silent.
        if answer.good and answer.out.strip():
            lines = [line[line.index("NVRM: ") :] for line in answer.out.split("\n") if "NVRM: " in line]
            telling = [line for line in lines if line.startswith(("NVRM: Xid (", "NVRM: API mismatch"))]
            # The first message of every boot; a full ring buffer and a rotated journal have lost it.
            whole = "Linux version " in answer.out
            return {"xids": tuple(line[:_LINE] for line in telling[-_XIDS:]), "log_is_whole": whole}
        refusals.append(answer.trouble or f"{name} shows nothing to this account")
    return {"xids_why": "; ".join(refusals)}


def _processes(root: Path) -> frozenset[str] | None:
    """Names of NVIDIA's daemons that run, as the kernel keeps them (15 characters)."""
    try:
        numbers = [place.name for place in (root / "proc").iterdir() if place.name.isdigit()]
    except OSError:
        return None
    names = {(read(root / "proc" / number / "comm") or "").strip() for number in numbers}
    return frozenset(name for name in names if name.startswith(("nv-", "nvidia-")))
