"""Owns the checks of the driver's own entry: cuInit, how many cards who counts, and a kernel without any CUDA software.

They decide a bare CUDA image. Must not import torch: where it is imported already, its count is compared too.
"""

from __future__ import annotations

import os
import re
import sys

from . import cudriver, nvidia, nvml, probe_kernel
from .cgroup import read_text
from .context import GOOD, failed, passed, skipped, warned

UVM = "/dev/nvidia-uvm"
_CAUSES = {
    cudriver.STUB: "libcuda-stub",
    802: "fabric-manager",
    803: "compat-lib-mismatch",
    804: "fwd-compat-unsupported",
    999: "cuda-unknown-999",
}
_NO_DEVICE = 100
_PLACES = {
    "stub": "a stub, made for linking only, is loaded as the driver: ",
    "compat": "the image's forward-compatibility libcuda is loaded: ",
}


def initialised(context):
    """Does the driver answer programs, and do NVML and CUDA count the same cards?"""
    seen = look(context)
    context.keep("driver.init", seen)
    return judge_entry(seen, context.gpu_needed)


def look(context) -> dict:
    """What this process sees of the driver, JSON-able. Touches CUDA where there is one."""
    seen = {
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "nodes": nvidia.device_nodes(),
        "uvm": os.path.exists(UVM),
        "kernel": nvidia.kernel_driver(read_text(nvidia.PROC_VERSION)),
        "cuda_count": None,
        "devices": [],
    }
    library, seen["nvml_error"] = nvml.open_library()
    seen["nvml_count"] = None
    if library is not None:
        with library:
            seen["nvml_count"] = library.count()
            if "nvml.before" not in context.kept:
                context.keep("nvml.before", nvml.snapshot(library))
    seen.update(_ask_cuda())
    seen["torch_count"] = _torch_count()
    return seen


def _ask_cuda():
    try:
        driver = cudriver.load()
    except (OSError, ImportError) as error:  # ImportError: a Python without ctypes
        return {"load_error": str(error), "path": None, "cuinit": None, "cuda_version": None, "said": str(error)}
    seen = {"load_error": None, "path": driver.path, "cuda_version": driver.version()}
    try:
        seen["cuinit"] = driver.init()
        seen["said"] = "cuInit: " + driver.words(seen["cuinit"]) if seen["cuinit"] else ""
        if seen["cuinit"] == 0:
            seen["cuda_count"] = driver.count()
            seen["devices"] = [driver.device(ordinal) for ordinal in range(seen["cuda_count"])]
    except cudriver.DriverError as error:
        seen["cuinit"] = error.code if error.code is not None else -1
        seen["said"] = str(error)
    return seen


def _torch_count():
    """How many cards torch counts, where it is imported and built for CUDA; None otherwise."""
    torch = sys.modules.get("torch")
    if torch is None or not getattr(getattr(torch, "version", None), "cuda", None):
        return None
    try:
        return int(torch.cuda.device_count())
    except (AttributeError, RuntimeError):
        return None


def judge_entry(seen: dict, gpu_needed: bool) -> dict:
    """The verdict on what `look` has seen."""
    keys = {"numbers": _numbers(seen)}
    if seen["load_error"] is not None:
        return _no_library(seen, gpu_needed, keys)
    if seen["cuinit"] != 0:
        return _no_init(seen, gpu_needed, keys)
    place = cudriver.origin(seen["path"])
    answers = "the driver serves CUDA {}; cards: {}".format(seen["cuda_version"], seen["cuda_count"])
    if seen["cuda_count"] == 0:
        report = failed if gpu_needed else skipped
        return report("the driver answers, and has no card", evidence="cuDeviceGetCount: 0", **keys)
    differs, hidden_by_list = disagreement(seen)
    if differs and not hidden_by_list:
        report = failed if gpu_needed else warned
        return report("the cards are not counted alike: " + differs, evidence=differs, **keys)
    remarks = [differs] if differs else []
    if place != "driver":
        remarks.append(_PLACES[place] + str(seen["path"]))
    if seen["nvml_count"] is None:
        remarks.append("NVML's count is missing: " + (seen["nvml_error"] or "it does not tell"))
    if remarks:
        return warned(answers + "; " + "; ".join(remarks), evidence="\n".join(remarks), **keys)
    return passed(answers, **keys)


def _numbers(seen):
    names = sorted({device["name"] for device in seen["devices"]})
    return {
        "cuinit": seen["cuinit"],
        "driver_cuda": seen["cuda_version"],
        "libcuda": seen["path"],
        "kernel_module": seen["kernel"],
        "nvml_cards": seen["nvml_count"],
        "cuda_cards": seen["cuda_count"],
        "torch_cards": seen["torch_count"],
        "cuda_visible_devices": seen["visible"],
        "names": ", ".join(names) or None,
        "capabilities": ", ".join(sorted({device["capability"] for device in seen["devices"]})) or None,
    }


def _no_library(seen, gpu_needed, keys):
    if not gpu_needed:
        return skipped("no libcuda here, and no GPU is required", evidence=seen["said"], **keys)
    keys["evidence"] = seen["said"]
    if "No module named" in seen["said"] or "ctypes" in seen["said"]:
        return failed("this Python has no ctypes: the driver cannot be asked", **keys)
    if "No such file" in seen["said"]:
        # Device files without the library: the container was given the card, but not the capability `compute`.
        cause = "driver-caps-missing" if seen["nodes"] else "gpu-not-exposed"
        return failed("there is no libcuda here", cause=cause, **keys)
    return failed("libcuda cannot be loaded", **keys)


def _no_init(seen, gpu_needed, keys):
    code, place = seen["cuinit"], cudriver.origin(seen["path"])
    keys["evidence"] = "\n".join(
        [
            seen["said"],
            "{} is {}; CUDA_VISIBLE_DEVICES={}; /dev/nvidia*: {}; {}: {}".format(
                cudriver.SONAME,
                seen["path"],
                "not set" if seen["visible"] is None else repr(seen["visible"]),
                ", ".join(seen["nodes"]) or "none",
                UVM,
                "there" if seen["uvm"] else "not there",
            ),
        ]
    )
    if not gpu_needed and (code in (_NO_DEVICE, cudriver.STUB) or place == "stub"):
        return skipped("libcuda has no card to serve, and none is required: " + seen["said"], **keys)
    if not gpu_needed:
        return warned("the driver does not start: " + seen["said"], **keys)
    cause, summary = _CAUSES.get(code), "the driver does not start: " + seen["said"]
    if place == "stub" or code == cudriver.STUB:
        cause, summary = "libcuda-stub", _PLACES["stub"] + str(seen["path"])
    elif place == "compat":
        summary = "the driver does not start ({}); {}{}".format(seen["said"], _PLACES["compat"], seen["path"])
    elif code == 999 and seen["nodes"] and not seen["uvm"]:
        cause = "uvm-module-missing"
    elif code == _NO_DEVICE and seen["visible"] is not None and seen["nvml_count"]:
        cause = "device-id-invalid"
        summary = "CUDA_VISIBLE_DEVICES={!r} hides every card: NVML counts {}, CUDA none".format(
            seen["visible"], seen["nvml_count"]
        )
        keys["evidence"] = summary + "\n" + keys["evidence"]
    elif code == _NO_DEVICE and not seen["nodes"]:
        cause = "gpu-not-exposed"
    if cause is not None:
        keys["cause"] = cause
    return failed(summary, **keys)


def disagreement(seen):
    """(who counts how many, whether a CUDA_VISIBLE_DEVICES explains it); ("", False) where all counts agree."""
    cuda, torch_count, nvml_count = seen["cuda_count"], seen["torch_count"], seen["nvml_count"]
    # A torch that counts none has refused the driver: first-kernel has its words, and they say more than a count.
    if torch_count and torch_count != cuda:
        return f"CUDA {cuda}, torch {torch_count}", False
    # One MIG instance a process is CUDA's rule, whatever NVML counts.
    mig = any(" MIG " in device["name"] + " " for device in seen["devices"])
    if nvml_count is None or mig or nvml_count == cuda:
        return "", False
    text = f"NVML {nvml_count}, CUDA {cuda}"
    if seen["visible"] is None:
        return text, False
    wanted, strange = visible_cards(seen["visible"], nvml_count)
    if strange:
        return "{} (CUDA_VISIBLE_DEVICES={!r}: {!r} is no card)".format(text, seen["visible"], strange), True
    if wanted is None or wanted == cuda:
        return "", False  # hidden on purpose
    return "{} (CUDA_VISIBLE_DEVICES={!r} names {})".format(text, seen["visible"], wanted), False


def visible_cards(text: str, count: int):
    """(cards that a CUDA_VISIBLE_DEVICES names, the first entry that is none). UUIDs are not resolved: (None, "").

    CUDA reads up to the first entry that names no card, and hides all that follow; -1 there is meant.
    """
    chosen = []
    for entry in [part.strip() for part in text.split(",")]:
        if re.match(r"(GPU|MIG)-[0-9a-fA-F]", entry):
            return None, ""
        if entry in ("", "-1"):
            return len(chosen), ""
        if not re.match(r"[0-9]+$", entry) or int(entry) >= count or int(entry) in chosen:
            return len(chosen), entry
        chosen.append(int(entry))
    return len(chosen), ""


def driver_api(context):
    """A kernel in PTX through libcuda alone, on every card, verified element by element."""
    try:
        driver = cudriver.load()
        code = driver.init()
    except (OSError, ImportError, cudriver.DriverError) as error:
        return failed("libcuda cannot be used", evidence=str(error))
    if code != 0:
        said = "cuInit: " + driver.words(code)
        return failed(said, evidence=said) if context.gpu_needed else skipped("no card to run on: " + said)
    cards = [_probe(driver, ordinal) for ordinal in range(driver.count())]
    return judge_probes(cards, context.gpu_needed)


def _probe(driver, ordinal):
    """What one card made of the kernel; `error` where a call failed."""
    seen = {"ordinal": ordinal, "name": None, "error": None}
    session = None
    try:
        seen["name"] = driver.device(ordinal)["name"]
        session = cudriver.Session(driver, ordinal)
        seen.update(probe_kernel.run(driver, session))
    except cudriver.DriverError as error:
        seen["error"] = str(error)
    finally:
        if session is not None:
            session.close()
    return seen


def judge_probes(cards, gpu_needed: bool) -> dict:
    """The verdict on what every card made of the kernel."""
    if not cards:
        report = failed if gpu_needed else skipped
        return report("the driver has no card", evidence="cuDeviceGetCount: 0")
    ran = [card for card in cards if card["error"] is None]
    numbers = {
        "cards": len(cards),
        "elements": probe_kernel.COUNT,
        "mismatches": sum(card["mismatches"] for card in ran) if ran else None,
        "overrun": sum(card["overrun"] for card in ran) if ran else None,
        "load_s": max([card["load_s"] for card in ran], default=None),
        "launch_s": max([card["launch_s"] for card in ran], default=None),
    }
    keys = {"device": "cuda:0", "numbers": numbers}
    for card in cards:
        where = "card {ordinal} ({name})".format(**card)
        if card["error"] is not None:
            return failed(f"the kernel does not run on {where}", evidence=where + ": " + card["error"], **keys)
        if card["mismatches"] or card["overrun"]:
            wrong = card["first_wrong"] or "{overrun} elements behind the end were written".format(**card)
            text = f"the kernel's result is wrong on {where}"
            return failed(text, evidence=f"{where}: {wrong}", cause="numerics-wrong", **keys)
    names = ", ".join(card["name"] for card in cards)
    return passed(f"a kernel compiled by the driver, {probe_kernel.COUNT} elements verified on {names}", **keys)


def late(context):
    """The driver's entry once more, at the end of the job: a container can lose its cards while it runs."""
    before = context.kept.get("driver.init")
    if before is None:
        return skipped("the driver was not asked at the beginning")
    return judge_late(before, look(context), context.results.get("driver.init", {}).get("status"))


def judge_late(before: dict, now: dict, status_before) -> dict:
    """Whether what answered then answers now."""
    keys = {
        "numbers": {
            "cuinit_before": before["cuinit"],
            "cuinit": now["cuinit"],
            "nvml_cards_before": before["nvml_count"],
            "nvml_cards": now["nvml_count"],
            "cuda_cards_before": before["cuda_count"],
            "cuda_cards": now["cuda_count"],
            "torch_cards": now["torch_count"],
        }
    }
    if before["cuinit"] != 0 and before["nvml_count"] is None:
        return skipped("the driver did not answer at the beginning either", **keys)
    lost = []
    if before["nvml_count"] is not None and now["nvml_count"] is None:
        lost.append(now["nvml_error"] or "NVML does not count any more")
    elif before["nvml_count"] != now["nvml_count"] and before["nvml_count"] is not None:
        lost.append("NVML counted {} cards, now {}".format(before["nvml_count"], now["nvml_count"]))
    if before["cuinit"] == 0 and now["cuinit"] != 0:
        lost.append(now["said"])
    elif before["cuda_count"] != now["cuda_count"]:
        lost.append("CUDA counted {} cards, now {}".format(before["cuda_count"], now["cuda_count"]))
    if lost:
        keys["evidence"] = "\n".join(lost)
        if "unknown error" in keys["evidence"].lower():  # a reload of systemd takes the device files' permission away
            keys["cause"] = "cgroup-device-lost"
        return failed("the driver answered at the beginning, and does not now: " + lost[0], **keys)
    if now["cuinit"] == 0 and now["torch_count"] not in (None, 0, now["cuda_count"]):
        text = "torch counts {torch_count} cards, CUDA {cuda_count}".format(**now)
        return failed(text, evidence=text, **keys)
    if status_before in GOOD and now["cuinit"] == 0:
        text = "the driver still answers; cards: {}".format(now["cuda_count"])
        if now["nvml_count"] is None:
            return warned(text + "; NVML never did: " + (now["nvml_error"] or "no count"), **keys)
        return passed(text, **keys)
    return warned("the driver answers as it did at the beginning: not well", evidence=before["said"], **keys)
