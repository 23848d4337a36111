"""Owns what follows from card and driver of a host as they were seen: step by step, what is wrong and what to do.

Must not look at anything itself (adapters/host_probe). Rules:
https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/, https://docs.nvidia.com/deploy/xid-errors/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cuda_matrix.examination import HostSeen, HostStep, StepStatus
from cuda_matrix.xids import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cuda_matrix.xids import Xid

NO_CARD = "no NVIDIA card on this machine"
_XID = re.compile(r"NVRM: Xid \(PCI:[0-9a-fA-F:.]{4,20}[^)]{0,40}\): (\d{1,5})[,:]")
_SHOWN = 8
_WINDOWS_UNKNOWN = "/dev/dxg is a card of the Windows host; whether it is NVIDIA's, only nvidia-smi would say"
_WINDOWS_DO = "Install NVIDIA's driver on Windows, none inside WSL; then `wsl --shutdown`: it brings nvidia-smi along."
_NEEDED = ("/dev/nvidiactl", "/dev/nvidia-uvm")


def judge_host(seen: HostSeen, xids: Iterable[Xid], *, card_wanted: bool = False) -> tuple[HostStep, ...]:
    """Every step, in the order of the diagnosis tree. `card_wanted`: that there is no card is a problem."""
    return (
        _card(seen, wanted=card_wanted),
        _driver(seen),
        _modules(seen),
        _smi(seen),
        _versions(seen),
        _nodes(seen),
        _log(seen, xids),
        _fabric(seen),
    )


def _card(seen: HostSeen, *, wanted: bool) -> HostStep:
    step = HostStep(id="card", title="NVIDIA cards on the bus", status="ok", node="has-card")
    if seen.cards:
        names = ", ".join(f"{card.address} (10de:{card.device})" for card in seen.cards[:_SHOWN])
        return step.model_copy(update={"seen": f"{len(seen.cards)}: {names}"})
    if seen.wsl and seen.named:
        return step.model_copy(update={"seen": "/dev/dxg: the card of the Windows host, through WSL"})
    if seen.wsl:
        return step.model_copy(update={"status": "not-seen", "why": _WINDOWS_UNKNOWN})
    if seen.loaded:
        return step.model_copy(update={"seen": "none on the bus, but NVIDIA's driver is loaded"})
    if seen.devices is None:
        return step.model_copy(update={"status": "not-seen", "why": seen.devices_why or "the bus was not read"})
    # A machine without a card promises none: builds, and images for the CPU, run here.
    do = "Use a machine with a card. In a virtual machine: pass the card through." if wanted else ""
    return step.model_copy(update={"status": "problem" if wanted else "none", "seen": NO_CARD, "do": do})


def _absent(id_: str, title: str, node: str | None = None) -> HostStep:
    """Where there is no card, nothing else of it can be seen, and that is no second problem."""
    return HostStep(id=id_, title=title, status="not-seen", why=NO_CARD, node=node)


def _driver(seen: HostSeen) -> HostStep:
    title, node = "Kernel driver", "host-driver"
    if seen.loaded:
        return HostStep(id="driver", title=title, status="ok", seen=f"{seen.loaded} is loaded", node=node)
    if seen.wsl and seen.named:
        return HostStep(id="driver", title=title, status="ok", seen="the Windows host's, through WSL", node=node)
    if seen.wsl:
        return HostStep(id="driver", title=title, status="not-seen", why=_WINDOWS_UNKNOWN, do=_WINDOWS_DO, node=node)
    if seen.no_card:
        return _absent("driver", title, node)
    if seen.modules is None:
        why = "neither /proc/driver/nvidia nor /proc/modules could be read"
        return HostStep(id="driver", title=title, status="not-seen", why=why, node=node)
    why, do = "no NVIDIA driver is loaded", "Install NVIDIA's driver on the host."
    if seen.installed:
        why = f"the module {seen.installed} is installed and not loaded"
        do = "`sudo modprobe nvidia`, and read what the kernel says."
        if seen.secure_boot:
            why += "; secure boot is on"
            do = "Secure boot loads signed modules only: enrol the key of the module (`mokutil --import`), then reboot."
    if "nouveau" in (seen.modules or ()):
        why += "; nouveau holds the card"
        do = "Put nouveau on the modprobe blacklist, rebuild the initramfs and reboot. " + do
    return HostStep(id="driver", title=title, status="problem", seen=why, do=do, cause="host-driver-missing", node=node)


def _modules(seen: HostSeen) -> HostStep:
    title = "Kernel modules"
    if seen.no_card:
        return _absent("modules", title)
    if seen.modules is None:
        return HostStep(id="modules", title=title, status="not-seen", why="/proc/modules cannot be read")
    said = ", ".join(seen.modules) or "none of NVIDIA's"
    if seen.loaded and "nvidia_uvm" not in seen.modules:
        do = "`sudo modprobe nvidia_uvm` (or `nvidia-modprobe -u -c=0`): CUDA needs it, and a container cannot load it."
        return HostStep(id="modules", title=title, status="warn", seen=f"{said}; nvidia_uvm is not loaded", do=do)
    return HostStep(id="modules", title=title, status="ok", seen=said)


def _smi(seen: HostSeen) -> HostStep:
    title, node = "nvidia-smi", "host-driver"
    cards = seen.named
    if cards:
        lost = len(seen.cards) - len(cards)
        names = ", ".join(
            dict.fromkeys(f"{card.name} (driver {card.driver or '?'}, {card.capability or '?'})" for card in cards)
        )
        if seen.devices is not None and lost > 0:
            do = "Look for `NVRM: Xid 79` in the kernel's log; reboot; see whether the card is seated and powered."
            text = f"{len(cards)} of {len(seen.cards)} cards on the bus: {names}"
            return HostStep(id="smi", title=title, status="warn", seen=text, do=do, cause="gpu-off-bus", node=node)
        return HostStep(id="smi", title=title, status="ok", seen=f"{len(cards)}: {names}", node=node)
    if seen.no_card:
        return _absent("smi", title, node)
    return _smi_without_cards(seen, title, node)


def _smi_without_cards(seen: HostSeen, title: str, node: str) -> HostStep:
    trouble = seen.smi.trouble or "it names no card"
    if seen.wsl:
        missing = seen.smi.path is None
        told = {"why": trouble} if missing else {"seen": trouble, "cause": "wsl-gpu-unavailable"}
        status: StepStatus = "not-seen" if missing else "problem"
        return HostStep(id="smi", title=title, status=status, do=_WINDOWS_DO, node=node, **told)
    if not seen.loaded:
        return HostStep(id="smi", title=title, status="not-seen", why=f"no driver is loaded; {trouble}", node=node)
    mismatch = "version mismatch" in trouble.lower()
    cause = "driver-lib-mismatch" if mismatch else "gpu-off-bus" if "lost" in trouble.lower() else None
    do = "Reboot: the driver was upgraded while its old module is loaded." if mismatch else ""
    if seen.smi.path is None:
        do = "Install the driver's own utilities (`nvidia-utils` or `nvidia-driver-cuda`), of the same version."
        return HostStep(id="smi", title=title, status="warn", seen=trouble, do=do, node=node)
    do = do or "Read the kernel's log (`sudo dmesg | grep NVRM`): the driver or the card is in trouble."
    return HostStep(id="smi", title=title, status="problem", seen=trouble, do=do, cause=cause, node=node)


def _versions(seen: HostSeen) -> HostStep:
    """Module in the kernel, libraries on the disk and what nvidia-smi loads must be of one version."""
    title, node = "One version of the driver", "host-driver"
    if seen.no_card:
        return _absent("versions", title, node)
    if seen.loaded is None and seen.wsl and seen.named:
        return HostStep(id="versions", title=title, status="ok", seen="nvidia-smi answers through WSL", node=node)
    if seen.loaded is None:
        return HostStep(id="versions", title=title, status="not-seen", why="no driver is loaded", node=node)
    found = {f"{name}.so on disk": versions for name, versions in seen.libraries.items()}
    found |= {"nvidia-smi": tuple(dict.fromkeys(card.driver for card in seen.named if card.driver))}
    others = {name: versions for name, versions in found.items() if versions and seen.loaded not in versions}
    mismatch = next((line for line in seen.xids if line.startswith("NVRM: API mismatch")), "")
    if others:
        text = "; ".join(f"{name}: {', '.join(versions)}" for name, versions in others.items())
        return HostStep(
            id="versions",
            title=title,
            status="problem",
            seen=f"kernel module {seen.loaded}, {text}",
            do="Reboot, or unload all nvidia modules and load them anew: a new driver is installed, the old one runs.",
            cause="driver-lib-mismatch",
            node=node,
        )
    if not any(found.values()):
        why = "neither the driver's libraries nor nvidia-smi were found to compare with"
        return HostStep(id="versions", title=title, status="not-seen", why=why, node=node)
    past = f"; earlier in this boot: {mismatch}" if mismatch else ""
    left = sorted({version for versions in found.values() for version in versions} - {seen.loaded})
    said = f"{seen.loaded} everywhere" if not left else f"{seen.loaded}; also on disk: {', '.join(left)}"
    return HostStep(id="versions", title=title, status="ok", seen=f"{said}{past}", node=node)


def _nodes(seen: HostSeen) -> HostStep:
    title = "Device files"
    if seen.no_card:
        return _absent("nodes", title)
    if seen.nodes is None or (seen.loaded is None and not seen.wsl):
        why = "/dev cannot be read" if seen.nodes is None else "no driver is loaded"
        return HostStep(id="nodes", title=title, status="not-seen", why=why)
    said = ", ".join(f"{node.path} {node.mode}" for node in seen.nodes[:_SHOWN]) or "none"
    refused = [node.path for node in seen.nodes if not node.usable and "nvswitch" not in node.path]
    missing = [path for path in _NEEDED if not seen.wsl and path not in {node.path for node in seen.nodes}]
    if refused:
        do = "Let all accounts use them (mode 0666, the driver's default), or run as a member of their group."
        text = f"not for this account: {', '.join(refused[:_SHOWN])} ({said})"
        return HostStep(id="nodes", title=title, status="warn", seen=text, do=do, cause="device-node-permission")
    if missing:
        do = "`sudo nvidia-modprobe -u -c=0` makes them; without /dev/nvidia-uvm no container computes."
        return HostStep(id="nodes", title=title, status="warn", seen=f"missing: {', '.join(missing)} ({said})", do=do)
    return HostStep(id="nodes", title=title, status="ok", seen=said)


def _log(seen: HostSeen, xids: Iterable[Xid]) -> HostStep:
    title, node = "Xid messages of this boot", "host-card"
    if seen.no_card:
        return _absent("xid", title, node)
    if seen.wsl and not seen.loaded:
        why = "Windows keeps the log of its driver to itself"
        return HostStep(id="xid", title=title, status="not-seen", why=why, node=node)
    if seen.xids_why:
        do = "Run it as root, or join the group `adm` or `systemd-journal`."
        return HostStep(id="xid", title=title, status="not-seen", why=seen.xids_why, do=do, node=node)
    rows = {row.number: row for row in xids}
    numbers = [int(match[1]) for line in seen.xids if (match := _XID.match(line))]
    causes = {rows[number].cause for number in numbers if number in rows and rows[number].cause}
    listed = ", ".join(f"{numbers.count(number)} of Xid {number}" for number in dict.fromkeys(numbers))
    worst = next((cause for cause in ORDER if cause in causes), None)
    if worst:
        do = "Reset the card (`sudo nvidia-smi --gpu-reset`) or reboot; if it comes back, take the card out of service."
        return HostStep(id="xid", title=title, status="problem", seen=listed, do=do, cause=worst, node=node)
    strange = [number for number in numbers if number not in rows]
    if strange:
        do = "Look the number up: https://docs.nvidia.com/deploy/xid-errors/"
        return HostStep(id="xid", title=title, status="warn", seen=listed, do=do, node=node)
    said = f"{listed}, of programs only" if listed else "none"
    rest = "" if seen.log_is_whole else ", in what is left of the kernel's log"
    return HostStep(id="xid", title=title, status="ok", seen=said + rest, node=node)


def _fabric(seen: HostSeen) -> HostStep:
    title = "NVSwitch and its fabric manager"
    if seen.no_card:
        return _absent("fabric", title)
    nodes = [node.path for node in seen.nodes or () if "nvswitch" in node.path]
    if seen.devices is None and not nodes:
        return HostStep(id="fabric", title=title, status="not-seen", why=seen.devices_why or "the bus was not read")
    if not nodes and not any(device.kind == "switch" for device in seen.devices or ()):
        return HostStep(id="fabric", title=title, status="ok", seen="no NVSwitch here: none is needed")
    if seen.processes is None:
        return HostStep(id="fabric", title=title, status="not-seen", why="an NVSwitch is here; /proc cannot be read")
    if not any(name.startswith("nv-fabricmanage") for name in seen.processes):
        do = "Install the fabric manager of exactly the driver's version and start it (`nvidia-fabricmanager.service`)."
        text = "an NVSwitch is here, and no fabric manager runs"
        return HostStep(
            id="fabric", title=title, status="problem", seen=text, do=do, cause="fabric-manager", node="host-driver"
        )
    return HostStep(id="fabric", title=title, status="ok", seen="nv-fabricmanager runs")
