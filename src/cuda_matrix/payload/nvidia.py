"""Owns how the driver is asked: `nvidia-smi --query-gpu`, /proc/driver/nvidia/version, /dev/nvidia*.

Never scrapes nvidia-smi's banner: its layout changes, and its "CUDA Version" is the driver's maximum, not what runs.
Must not know what is right.
"""

from __future__ import annotations

import os
import re
import time

PROC_VERSION = "/proc/driver/nvidia/version"
QUERY_LIMIT_S = 20.0
# compute_cap is known since driver 510 or so; an older one refuses the whole query because of it
FIELDS = ("index", "name", "uuid", "memory.total", "compute_cap", "driver_version")
_PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/bin", "/usr/lib/wsl/lib")


class Query:
    """What nvidia-smi answered: `gpus` where it worked, else `message`. `path` is None where there is no nvidia-smi."""

    def __init__(self, path, gpus=(), driver=None, message=""):
        self.path = path
        self.gpus = list(gpus)
        self.driver = driver
        self.message = message

    @property
    def fact(self) -> str:
        """The fact `nvidia_smi`: ok, missing, or what it printed."""
        if self.path is None:
            return "missing"
        return "ok" if not self.message else self.message


def kernel_driver(text: str):
    """The version in /proc/driver/nvidia/version, of the closed or the open kernel module; None for no driver."""
    for line in text.splitlines():
        if line.startswith("NVRM version"):
            match = re.search(r"\s(\d+\.\d+(?:\.\d+)*)\s", line + " ")
            return match.group(1) if match else None
    return None


def device_nodes() -> list:
    """The cards' device files that this container has, /dev/nvidiactl included."""
    try:
        names = os.listdir("/dev")
    except OSError:
        return []
    return sorted("/dev/" + name for name in names if re.match(r"nvidia(ctl|\d+)$", name) or name == "dxg")


def find(search_path: str):
    """The nvidia-smi that a shell would run, or one at a place where runtimes mount it; None without."""
    for directory in [entry for entry in search_path.split(":") if entry] + list(_PLACES):
        path = os.path.join(directory, "nvidia-smi")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def query(path) -> Query:
    """Ask nvidia-smi for its cards, without compute_cap where this driver does not know the field."""
    if path is None:
        return Query(None)
    fields = FIELDS
    code, text = _run(path, fields)
    if code != 0 and "compute_cap" in text:
        fields = tuple(field for field in FIELDS if field != "compute_cap")
        code, text = _run(path, fields)
    if code is None:
        return Query(path, message=f"nvidia-smi did not answer within {QUERY_LIMIT_S:.0f} s")
    gpus, driver = parse(text, fields)
    if code == 0 and gpus:
        return Query(path, gpus, driver)
    return Query(path, message=text.strip() or f"nvidia-smi ended with exit code {code} and said nothing")


def _run(path, fields):
    """(exit code or None at the time limit, what it printed)."""
    from . import processes

    def replace(_descriptor):
        argv = [path, "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"]
        try:
            os.execv(path, argv)
        except OSError as error:
            os.write(2, f"{path}: {error.strerror}\n".encode())
            os._exit(126)

    ending = processes.run(replace, lambda _message: None, processes.Deadline(time.monotonic() + QUERY_LIMIT_S))
    text = ending.output.text()
    if ending.signal is not None:
        return 128 + ending.signal, text + ending.signal_text
    return ending.code, text


def parse(text: str, fields):
    """The cards in nvidia-smi's CSV, and the driver's version. A line that is no row of the table is not one."""
    gpus, driver = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        row = dict(zip(fields, cells))
        if len(cells) != len(fields) or not re.match(r"[0-9]{1,4}$", row["index"]):
            continue
        memory = row["memory.total"]
        gpus.append(
            {
                "index": int(row["index"]),
                "name": row["name"],
                "uuid_hash": hashed(row["uuid"]),
                "memory_mib": int(float(memory)) if re.match(r"\d{1,9}(\.\d{1,9})?$", memory) else None,
                "compute_capability": _version_or_none(row.get("compute_cap", "")),
            }
        )
        driver = driver or _version_or_none(row["driver_version"])
    return gpus[:64], driver


def _version_or_none(text):
    return text if re.match(r"\d+(\.\d+)*$", text) else None


def hashed(uuid):
    """A card's UUID identifies its owner: 16 hex digits of its SHA-256 tell cards apart just as well."""
    import hashlib

    return hashlib.sha256(uuid.encode()).hexdigest()[:16]
