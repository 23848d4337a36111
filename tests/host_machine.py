"""A machine for tests: a tree of files in the place of /, and programs of its own on a PATH of its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from cuda_matrix.adapters.programs import Programs

CARD_UUID = "GPU-9de4332b-3b09-a3b4-5589-30229f0c14fe"
DRIVER = "550.54.15"
CARD_ROW = "0, NVIDIA GeForce RTX 3090, {driver}, 8.6"
XID = "NVRM: Xid (PCI:0000:65:00): {}, pid='<unknown>', name=<unknown>, it happened."
# As the kernel prints it (closed module, then the open one).
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  gcc 12.2.0\n"
NVRM_OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs-builder@U16)\n"


class Machine:
    """Begins as a bare Linux without card, Docker and tools."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.bin.mkdir(parents=True)
        for place in ("sys/bus/pci/devices", "proc", "dev", "etc", "var/run"):
            (self.root / place).mkdir(parents=True)
        self.file("proc/modules", "ext4 1 0 - Live 0x0\n")
        self._info = "exit 1"
        self.environ = {"PATH": str(self.bin), "HOME": "/home/somebody"}

    def programs(self, limit_s: float = 5.0) -> Programs:
        """Its programs."""
        return Programs(str(self.bin), self.environ, limit_s)

    def file(self, path: str, text: str) -> Path:
        """Write one file below /."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def program(self, name: str, body: str) -> None:
        """A shell script; `sleep` and the like come from the real machine."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nPATH={os.environ['PATH']}\n{body}\n")
        path.chmod(0o755)

    def says(self, name: str, text: str, code: int = 0) -> None:
        """A program that prints and ends."""
        self.program(name, f"cat <<'END'\n{text}\nEND\nexit {code}")

    def hangs(self, name: str) -> None:
        """A program that says nothing and never ends, nor does its child."""
        self.program(name, "sleep 600 & sleep 600")

    def pci(self, address: str, device: str = "0x2204", number: str = "0x030000", vendor: str = "0x10de") -> None:
        """One device on the bus."""
        for name, text in (("vendor", vendor), ("device", device), ("class", number)):
            self.file(f"sys/bus/pci/devices/{address}/{name}", f"{text}\n")

    def with_card(self, driver: str = DRIVER) -> Machine:
        """One RTX 3090 with its driver in good order."""
        self.pci("0000:65:00.0")
        self.file("proc/driver/nvidia/version", NVRM.format(driver))
        self.file("proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvidia_modeset 1 0 - Live 0x0\nnvidia 1 1 - Live 0x0\n")
        for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
            self.file(f"dev/{name}", "")
        for name in ("libcuda", "libnvidia-ml"):
            self.file(f"usr/lib/x86_64-linux-gnu/{name}.so.{driver}", "")
        self.says("nvidia-smi", CARD_ROW.format(driver=driver))
        self.says("modinfo", driver)
        self.says(
            "journalctl",
            "Linux version 6.1.0-13-amd64\nusb 1-1: new device\nnvidia: loading out-of-tree module taints kernel.",
        )
        return self

    def with_toolkit(self, version: str = "1.17.4") -> Machine:
        """NVIDIA's container toolkit."""
        self.says(
            "nvidia-ctk",
            f"NVIDIA Container Toolkit CLI version {version}\ncommit: 9b69590c7428470a72f2ae05f826412976af1395",
        )
        self.says(
            "nvidia-container-cli",
            f"cli-version: {version}\nlib-version: {version}\nbuild date: 2025-01-23T10:53+00:00",
        )
        for name in ("nvidia-container-runtime-hook", "nvidia-container-runtime"):
            self.hangs(name)  # nobody may start them: they wait for a container's state
        return self

    def with_docker(self, **info: Any) -> Machine:
        """A client whose daemon answers."""
        data = self.root / "var/lib/docker"
        data.mkdir(parents=True, exist_ok=True)
        document = {
            "Name": os.uname().nodename,
            "ServerVersion": "28.2.2",
            "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
            "DockerRootDir": "/var/lib/docker",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2",
            "Runtimes": {"runc": {}, "nvidia": {}},
            "DefaultRuntime": "runc",
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            **info,
        }
        self._info = f"cat <<'END'\n{json.dumps(document)}\nEND"
        self.docker(info=self._info)
        return self

    def docker_image(self, inspected: dict[str, Any]) -> None:
        """Of the same daemon, one image that it holds."""
        self.docker(info=self._info, image=f"cat <<'END'\n{json.dumps(inspected)}\nEND")

    def docker(
        self, info: str, image: str = "echo 'Error: No such image' >&2; exit 1", version: str = "28.2.2"
    ) -> None:
        """A client; the bodies answer `docker info` and `docker image inspect`."""
        self.program(
            "docker",
            f'case "$1" in\n--version) echo "Docker version {version}, build e6534b4";;\n'
            f"info) {info}\n;;\nimage) {image}\n;;\nesac",
        )

    def without(self, *programs: str) -> Machine:
        """Take programs away again."""
        for name in programs:
            (self.bin / name).unlink()
        return self

    def no_bus(self) -> None:
        """Neither /sys/bus/pci nor lspci."""
        shutil.rmtree(self.root / "sys/bus/pci")
