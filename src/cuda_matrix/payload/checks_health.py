"""Owns the checks of the card's health: memory errors, remapped rows, links, Xid messages, throttling.

Each compares NVML's counters now with those that driver.init kept at the start (`nvml.before`). Judging is apart from
asking, so that every verdict can be tested with plain numbers.
Must not know how a counter is asked for (nvml, nvml_device).
"""

from __future__ import annotations

import re
import time

from . import kernel_log, telemetry
from .context import failed, passed, skipped, unknown, warned
from .nvml import EVENT_BITS
from .nvml_cards import Cards, untold

_LOAD_S = {"smoke": 3.0}  # seconds of load for `throttle`; 8 in every other profile
_LINK_LOAD_S = 2.0  # an idle card has raised its link long before
_LINK_FIELDS = ("pcie_generation", "pcie_width")
# Xid → cause: NVIDIA's catalogue of Xid errors, and the list that Azure's node health check takes a node out for.
_MEMORY_XIDS = (48, 63, 64, 92, 94, 95, 140)
_FAULT_XIDS = (56, 57, 58, 61, 62, 65, 68, 69, 73, 74, 80, 81, 119, 120)
_LOST_XIDS = (79,)
LOST = "GPU is lost"  # NVML's words
# What a program's own fault causes, and what the check faults.assert provokes: no sign of a bad card.
_PROGRAM_XIDS = (13, 31, 43, 45)


def ecc(context):
    """New uncorrected memory errors."""
    with Cards(context) as cards:
        return cards.refusal or judge_ecc(cards.counters(), context.thresholds)


def judge_ecc(pairs, thresholds) -> dict:
    """`pairs`: each card's counters before (or None) and now."""
    known = [(before, now) for before, now in pairs if now["ecc_uncorrected"] is not None]
    if not known:
        return untold("no ECC counters", pairs[0][1]["why"], "nvmlDeviceGetTotalEccErrors")
    deltas = [_delta(before, now, "ecc_uncorrected") for before, now in known]
    total = sum(now["ecc_uncorrected"] for _, now in known)
    compared = all(delta is not None for delta in deltas)
    numbers = {
        "cards": len(known),
        "uncorrected_delta": sum(deltas) if compared else None,
        "corrected_delta": sum(_delta(before, now, "ecc_corrected") or 0 for before, now in known)
        if compared
        else None,
        "uncorrected_since_driver_load": total,
        "uncorrected_ever": sum(now["ecc_uncorrected_ever"] or 0 for _, now in known),
    }
    if not compared:
        if total == 0:  # the counter starts with the driver, which is older than this run
            return passed("no uncorrected memory error since the driver was loaded", numbers=numbers)
        return unknown(f"{total} uncorrected memory errors, and it is not known when", numbers=numbers)
    if numbers["uncorrected_delta"] > thresholds["uncorrected_delta"]:
        text = "uncorrectable ECC errors during this run: {uncorrected_delta}".format(**numbers)
        return failed(text, evidence=text, cause="gpu-ecc", numbers=numbers)
    if total:
        return warned(f"none during this run, {total} uncorrected memory errors before it", numbers=numbers)
    return passed("no uncorrected memory error during this run", numbers=numbers)


def _delta(before, now, name):
    """How much a counter rose; None where it was not read before, or where the driver was loaded anew in between."""
    rises = [
        now[key] - before[key]
        for key in (name, name + "_ever")
        if before is not None and before.get(key) is not None and now.get(key) is not None
    ]
    rises = [rise for rise in rises if rise >= 0]
    return max(rises) if rises else None


def remap(context):
    """Memory that was, will be or cannot be taken out of use."""
    with Cards(context) as cards:
        return cards.refusal or judge_remap([now for _, now in cards.counters()], context.thresholds)


def judge_remap(seen, thresholds) -> dict:
    """`seen`: each card's counters now."""

    def total(name):
        known = [one[name] for one in seen if one[name] is not None]
        return sum(known) if known else None

    names = ("rows_failed", "rows_pending", "rows_uncorrectable", "pages_pending", "pages_retired")
    numbers = {name: total(name) for name in names}
    if all(number is None for number in numbers.values()):
        return untold("no counters of remapped rows", seen[0]["why"], "nvmlDeviceGetRemappedRows")
    if numbers["rows_failed"]:
        text = "row remapping has failed: the card cannot repair its memory any more"
        return failed(text, evidence=text, cause="gpu-ecc", numbers=numbers)
    for name, words in (("rows_uncorrectable", "memory rows remapped"), ("pages_retired", "memory pages retired")):
        worst = max((one[name] or 0 for one in seen), default=0)  # a limit is one card's
        if worst >= thresholds[name]:
            text = f"{worst} {words} on one card: at {thresholds[name]} it has to be replaced"
            return failed(text, evidence=text, cause="gpu-ecc", numbers=numbers)
    if numbers["rows_pending"] or numbers["pages_pending"]:
        return warned("bad memory will be taken out of use at the next reboot or reset", numbers=numbers)
    return passed("no memory waits to be taken out of use, and none failed to be", numbers=numbers)


def link(context):
    """PCIe under load against its maximum, replays, NVLink."""
    with Cards(context) as cards:
        if cards.lost:
            return _off_the_bus(cards.lost[0])
        if cards.refusal:
            return cards.refusal
        seen = _under_load(context, cards.devices)
        pairs = cards.counters()
    for _, now in pairs:
        if LOST in now["faults"].values():
            return _off_the_bus(LOST)
    if len(pairs) == 1:  # then what the benchmarks saw is this card's
        watched = (summary for name, summary in context.kept.items() if name.startswith("telemetry."))
        seen += [
            [{field: summary.get(field + "_seen") for field in _LINK_FIELDS}]
            for summary in watched
            if summary.get("busy_samples")
        ]
    for look in seen:
        for (_, now), one in zip(pairs, look):
            for field in _LINK_FIELDS:
                now[field] = max(now[field] or 0, one[field] or 0) or None
    minutes = (time.monotonic() - (context.kept.get("nvml.before") or {}).get("taken_s", time.monotonic())) / 60.0
    return judge_link(pairs, bool(seen), minutes, context.thresholds)


def _off_the_bus(words):
    text = "a card does not answer any more: " + words
    return failed(text, evidence=text, cause="gpu-off-bus")


def judge_link(pairs, loaded: bool, minutes: float, thresholds) -> dict:
    """`loaded`: the links were looked at while the cards worked. `minutes`: since the counters before."""
    numbers = {"under_load": loaded, "minutes": round(minutes, 2)}
    low, remarks = [], []
    for index, (before, now) in enumerate(pairs):
        prefix = f"card{index}." if len(pairs) > 1 else ""
        for name in ("pcie_generation", "pcie_generation_max", "pcie_width", "pcie_width_max"):
            numbers[prefix + name] = now[name]
        low += [
            "{}{} {} of {}".format(prefix, field.replace("_", " "), now[field], now[field + "_max"])
            for field in _LINK_FIELDS
            if now[field] is not None and now[field + "_max"] is not None and now[field] < now[field + "_max"]
        ]
        replays = _delta(before, now, "pcie_replays")
        numbers[prefix + "pcie_replays_delta"] = replays
        if replays is not None and replays > thresholds["replays_per_minute"] * max(minutes, 1.0):
            remarks.append(f"{prefix}{replays} PCIe replays in {minutes:.1f} minutes")
        remarks += _nvlink_remarks(prefix, (before or {}).get("nvlinks"), now["nvlinks"], numbers)
    known = [now for _, now in pairs if now["pcie_generation"] is not None or now["pcie_replays"] is not None]
    if not known and not any(now["nvlinks"] for _, now in pairs):
        return untold("no link counters", pairs[0][1]["why"], "nvmlDeviceGetCurrPcieLinkGeneration")
    if low and loaded:
        remarks.insert(0, "slower than the slot allows: " + ", ".join(low))
    if remarks:
        return warned("; ".join(remarks), evidence="; ".join(remarks), numbers=numbers)
    if low:
        text = "an idle card lowers its link, and no load could be run: " + ", ".join(low)
        return unknown(text, numbers=numbers)
    return passed("the links are as fast as the slot allows", numbers=numbers)


def _nvlink_remarks(prefix, before, now, numbers):
    """All links down is a card without a bridge, and no fault."""
    if not now:
        return []
    numbers[prefix + "nvlinks"], numbers[prefix + "nvlinks_active"] = len(now), sum(now)
    if before and sum(before) > sum(now):
        return [f"{prefix}{sum(before) - sum(now)} NVLinks went down during this run"]
    if 0 < sum(now) < len(now):
        return [f"{prefix}{sum(now)} of {len(now)} NVLinks are up"]
    return []


def _under_load(context, devices) -> list:
    """[[the links' best of each card]] while it was kept busy: until they are at their maximum, at most two seconds.

    Empty where there is nothing to keep a card busy with.
    """
    if not context.on_gpu:
        return []
    import torch

    host = torch.ones(1 << 22)
    looks = []
    for ordinal, device in zip(range(torch.cuda.device_count()), devices):
        end = time.monotonic() + _LINK_LOAD_S
        best = dict.fromkeys(_LINK_FIELDS, 0)
        wanted = {"pcie_generation": device.pcie_generation_max() or 0, "pcie_width": device.pcie_width_max() or 0}
        while True:
            copied = host.to(f"cuda:{ordinal}")
            _products(torch, copied[: 1 << 22].reshape(2048, 2048), seconds=0.05)
            seen = {"pcie_generation": device.pcie_generation() or 0, "pcie_width": device.pcie_width() or 0}
            best = {field: max(best[field], seen[field]) for field in best}
            if all(best[field] >= wanted[field] for field in best) or time.monotonic() >= end:
                break
        looks.append(best)
    return [looks]


def _products(torch, matrix, seconds):
    """Matrix products for so long, so many at a time that the card does not wait for the host."""
    end = time.monotonic() + seconds
    batch = 1
    while True:
        started = time.monotonic()
        for _ in range(batch):
            matrix @ matrix
        torch.cuda.synchronize(matrix.device)
        now = time.monotonic()
        if now >= end:
            return
        if now - started < 0.05:
            batch *= 2


def xid_host(context):
    """Xid messages of the kernel's driver module since the payload started."""
    log = kernel_log.lines()
    before = context.kept.get("nvml.before") or {}
    if log is None or before.get("kernel_log_s") is None:
        why = "the kernel's log is not visible inside the container" if log is None else "no start in the kernel's log"
        return skipped(why)
    devices = before.get("devices", ())
    later = [text for at_s, text in log if at_s > before["kernel_log_s"]]
    return judge_xid(later, [seen["bus_id"] for seen in devices if seen.get("bus_id")])


def judge_xid(texts, bus_ids) -> dict:
    """`texts`: the log's lines since the start; `bus_ids`: this container's cards. Others' messages are not ours."""
    ours = {_slot(bus_id) for bus_id in bus_ids}
    messages = []
    for text in texts:
        match = re.search(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)[^)]*\): (\d+)", text)
        if match and _slot(match.group(1)) in ours:
            messages.append((int(match.group(2)), text))
    numbers = {"xids": len(messages), "xids_of_programs": sum(1 for xid, _ in messages if xid in _PROGRAM_XIDS)}
    for xids, cause in ((_LOST_XIDS, "gpu-off-bus"), (_MEMORY_XIDS, "gpu-ecc"), (_FAULT_XIDS, "gpu-hardware-fault")):
        for xid, text in messages:
            if xid in xids:
                numbers["xid"] = xid
                return failed(f"the driver reported Xid {xid}", evidence=text, cause=cause, numbers=numbers)
    for xid, text in messages:
        if xid not in _PROGRAM_XIDS:
            return warned(f"the driver reported Xid {xid}", evidence=text, numbers={**numbers, "xid": xid})
    if messages:
        return passed("only Xids that programs cause, as the check faults.assert does", numbers=numbers)
    return passed("no Xid in the kernel's log since the start", numbers=numbers)


def _slot(bus_id):
    """(domain, bus, device) of `0000:65:00`, `00000000:65:00.0`: the kernel, NVML and CUDA write them differently."""
    parts = bus_id.split(".")[0].split(":")
    return tuple(int(part, 16) for part in ["0", *parts][-3:] if part)


def throttle(context):
    """Event reasons while the benchmarks ran, and during a load of this check's own."""
    watched = {
        name[len("telemetry.") :]: summary for name, summary in context.kept.items() if name.startswith("telemetry.")
    }
    if context.on_gpu:
        import torch

        with telemetry.Watch(context.device) as watch:
            _products(torch, torch.randn(2048, 2048, device=context.device), _LOAD_S.get(context.profile, 8.0))
        watched["load"] = watch.summary()
    if not watched:
        return skipped("needs a GPU")
    return judge_throttle(watched, context.thresholds)


def judge_throttle(watched, thresholds) -> dict:
    """`watched`: name → telemetry's summary. A card held down is no fault of the image: at worst a warning."""
    known = {
        name: one for name, one in watched.items() if one.get("busy_samples") and one["throttle_share"] is not None
    }
    busy = sum(one["busy_samples"] for one in known.values())
    if not busy:
        reasons = [one["reason"] for one in watched.values() if one.get("reason")]
        return skipped("no event reasons: " + (reasons[0] if reasons else "not told by this driver"))

    def pooled(name):
        return round(sum(one[name] * one["busy_samples"] for one in known.values()) / busy, 4)

    enough = [name for name in known if known[name]["busy_samples"] >= thresholds["busy_samples"]] or list(known)
    worst = max(enough, key=lambda name: known[name]["throttle_share"])
    numbers = {"busy_samples": busy, "throttle_share": pooled("throttle_share"), "worst": worst}
    numbers["worst_share"] = known[worst]["throttle_share"]
    numbers.update({"share_" + name: pooled("share_" + name) for name in EVENT_BITS})
    temperatures = [one["temperature_max_c"] for one in known.values() if one.get("temperature_max_c") is not None]
    numbers["temperature_max_c"] = max(temperatures) if temperatures else None
    if busy < thresholds["busy_samples"]:
        return unknown(f"only {busy} samples of a busy card", numbers=numbers)
    if numbers["worst_share"] > thresholds["invalid_share"]:
        text = "the clocks were held down in {:.0%} of {}: its figures are not the card's".format(
            numbers["worst_share"], worst
        )
        return warned(text, evidence=_bits(numbers), numbers=numbers)
    if numbers["throttle_share"] > thresholds["throttle_share"]:
        text = "the clocks were held down {:.1%} of the time".format(numbers["throttle_share"])
        return warned(text, evidence=_bits(numbers), numbers=numbers)
    capped = numbers["share_sw_power_cap"]
    note = f"; at the power limit {capped:.0%} of the time" if capped else ""
    return passed("the clocks were not held down" + note, numbers=numbers)


def _bits(numbers):
    """`event reasons: hw_thermal 12 %, …` without the software power cap."""
    shares = [(name, numbers["share_" + name]) for name in EVENT_BITS if name != "sw_power_cap"]
    return "event reasons: " + ", ".join(f"{name} {share:.1%}" for name, share in shares if share)
