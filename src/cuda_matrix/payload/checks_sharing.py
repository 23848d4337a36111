"""Owns the checks of who else may use, or uses, the card: compute mode, MIG, MPS, foreign load.

They run before this payload's own work on the card. Judging is apart from asking.
Must not know how a card is asked (nvml, nvml_device).
"""

from __future__ import annotations

import os
import stat
import time

from .context import failed, passed, warned
from .nvml import COMPUTE_MODES
from .nvml_cards import Cards, untold
from .samples import median

_LOOKS = 5  # at the utilisation: NVML's is of the last fraction of a second
_LOOK_EVERY_S = 0.2
_MPS_DIRECTORY = "/tmp/nvidia-mps"  # noqa: S108 - CUDA's own default for CUDA_MPS_PIPE_DIRECTORY
_EXCLUSIVE, _PROHIBITED = (1, 3), 2


def compute_mode(context):
    """How many processes the card lets in."""
    with Cards(context) as cards:
        if cards.refusal:
            return cards.refusal
        modes = [device.compute_mode() for device in cards.devices]
        return judge_compute_mode(modes, cards.devices[0].why)


def judge_compute_mode(modes, why: dict) -> dict:
    """`modes`: NVML's number of each card; `why`: function → NVML's words where it does not tell."""
    known = [mode for mode in modes if mode is not None]
    if not known:
        return untold("the compute mode is not told", why, "nvmlDeviceGetComputeMode")
    numbers = {"cards": len(known), "compute_mode": ", ".join(COMPUTE_MODES.get(mode, str(mode)) for mode in known)}
    text = "compute mode {compute_mode}".format(**numbers)
    if _PROHIBITED in known:
        return failed(
            f"{text}: no program may use the card", evidence=text, cause="device-busy-exclusive", numbers=numbers
        )
    if any(mode in _EXCLUSIVE for mode in known):
        return warned(f"{text}: one process only, a second one finds the card busy", evidence=text, numbers=numbers)
    return passed(text, numbers=numbers)


def mig(context):
    """Whether the card is partitioned, and then whether CUDA sees an instance."""
    with Cards(context) as cards:
        if cards.refusal:
            return cards.refusal
        modes = [device.mig_mode() for device in cards.devices]
        why = cards.devices[0].why
    return judge_mig(modes, len(cards.bus_ids), why)


def judge_mig(modes, cuda_devices: int, why: dict) -> dict:
    """`modes`: (now, after the next reset) of each card or None; `cuda_devices`: how many devices CUDA sees."""
    known = [mode for mode in modes if mode is not None]
    if not known:
        return untold("no MIG on this card", why, "nvmlDeviceGetMigMode")
    on = sum(1 for now, _ in known if now)
    changing = sum(1 for now, pending in known if now != pending)
    numbers = {"cards": len(known), "mig_cards": on, "mig_changing": changing, "cuda_devices": cuda_devices}
    if on and not cuda_devices:
        text = "MIG is on, and CUDA sees no instance"
        return failed(text, evidence=text, cause="mig-config", numbers=numbers)
    if on:
        text = "MIG is on: the figures are those of a part of the card, and instances cannot talk to each other"
        return warned(text, numbers=numbers)
    if changing:
        return warned("MIG will be switched at the card's next reset", numbers=numbers)
    return passed("MIG is off", numbers=numbers)


def mps(context):
    """Whether CUDA's Multi-Process Service stands between this container and the card."""
    with Cards(context) as cards:
        if cards.refusal:
            return cards.refusal
        clients = [device.mps_processes() for device in cards.devices]
    count = sum(len(processes) for processes in clients if processes)
    return judge_mps(os.environ, _has_control(os.environ), count)


def _has_control(environment):
    """The MPS daemon's pipe is in the directory that CUDA looks in."""
    directory = environment.get("CUDA_MPS_PIPE_DIRECTORY") or _MPS_DIRECTORY
    try:
        return stat.S_ISFIFO(os.stat(os.path.join(directory, "control")).st_mode)
    except OSError:
        return False


def judge_mps(environment, control: bool, clients: int) -> dict:
    """`control`: the daemon's pipe is there; `clients`: MPS clients that NVML counts."""
    share = environment.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "")
    variables = sorted(name for name in environment if name.startswith("CUDA_MPS_"))
    numbers = {"control_pipe": control, "mps_clients": clients, "variables": ", ".join(variables)[:200]}
    if control or clients:
        limit = f", at most {share} % of the card" if share else ""
        return warned(f"MPS is at work: the card is shared{limit}, and timings are not its own", numbers=numbers)
    if variables:
        return passed("CUDA_MPS_ variables are set, and no MPS is at work", numbers=numbers)
    return passed("no MPS", numbers=numbers)


def foreign_load(context):
    """Memory and time of the card that somebody else uses, before this payload's first work."""
    with Cards(context) as cards:
        if cards.refusal:
            return cards.refusal
        looks = []
        for look in range(_LOOKS):
            if look:
                time.sleep(_LOOK_EVERY_S)
            looks.append([device.utilisation() for device in cards.devices])
        memory = [device.memory_used_mib() for device in cards.devices]
        processes = [device.processes() for device in cards.devices]
        why = cards.devices[0].why
    busy = [[one for one in card if one is not None] for card in zip(*looks)]
    utilisation = [median(card) if card else None for card in busy]
    count = sum(len(one) for one in processes if one)
    return judge_foreign_load(memory, utilisation, count, why, context.thresholds)


def judge_foreign_load(memory, utilisation, processes: int, why: dict, thresholds) -> dict:
    """MiB and percent of each card (None where it is not told); processes that NVML lists on all of them."""
    used = [one for one in memory if one is not None]
    busy = [one for one in utilisation if one is not None]
    if not used and not busy:
        return untold("neither memory nor utilisation is told", why, "nvmlDeviceGetMemoryInfo")
    numbers = {
        "memory_used_mib": max(used) if used else None,
        "utilisation_percent": max(busy) if busy else None,
        "processes": processes,
    }
    remarks = []
    if used and max(used) > thresholds["memory_used_mib"]:
        remarks.append(f"{max(used)} MiB of the card's memory are in use")
    if busy and max(busy) > thresholds["utilisation_percent"]:
        remarks.append(f"the card is busy {max(busy):.0f} % of the time")
    if remarks:
        text = "somebody else works on the card: " + ", ".join(remarks)
        return warned(text, evidence=text, numbers=numbers)
    return passed("nobody else works on the card", numbers=numbers)
