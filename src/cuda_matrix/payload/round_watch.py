"""Owns the telemetry of one benchmark's own rounds: on while they run, off while a neighbour's do; and its sum.

Must not know how a card is asked (telemetry), nor what a good value is.
"""

from __future__ import annotations

from . import telemetry
from .samples import median

_SUMS = ("samples", "watched_s", "busy_samples")
_LEAST = ("sm_clock_min_mhz",)
_LARGEST = ("sm_clock_max_mhz", "temperature_max_c", "pcie_generation_seen", "pcie_width_seen")
_MEDIANS = ("sm_clock_mhz", "memory_clock_mhz", "power_w")


class RoundWatch:
    """Enter it for every round. Off a GPU it does nothing."""

    def __init__(self, device: str):
        self.on_gpu = (device or "").startswith("cuda")
        self._device = device
        self._watch = None
        self._summaries = []

    def __enter__(self):
        if self.on_gpu:
            self._watch = telemetry.Watch(self._device)
            self._watch.__enter__()
        return self

    def __exit__(self, *error):
        if self._watch is not None:
            self._watch.__exit__(*error)
            self._summaries.append(self._watch.summary())
            self._watch = None

    def last_clock_mhz(self):
        """The median clock of the last round; None where it could not be read."""
        return self._summaries[-1].get("sm_clock_mhz") if self._summaries else None

    def forget(self) -> None:
        """Leave out what was watched so far: the warm-up is no part of the measurement."""
        self._summaries = []

    def summary(self) -> dict:
        """The summary of all rounds; {} where there was no card to watch."""
        return merged(self._summaries)


def merged(summaries) -> dict:
    """One summary of several: sums, extremes, the median of medians; shares weigh as much as their busy samples.

    The energy is None where a round lacks it: a part is no sum.
    """
    if not summaries:
        return {}
    reasons = [one["reason"] for one in summaries if one.get("reason")]
    found = {"reason": reasons[0]} if reasons else {}
    seen = [one for one in summaries if one.get("samples")]
    if not seen:
        return {"samples": 0, **found}
    found.update((name, round(sum(one.get(name) or 0 for one in seen), 3)) for name in _SUMS)
    for names, statistic in ((_LEAST, min), (_LARGEST, max), (_MEDIANS, median)):
        for name in names:
            values = _known(seen, name)
            found[name] = statistic(values) if values else None
    joules = _known(summaries, "energy_j")
    found["energy_j"] = round(sum(joules), 3) if len(joules) == len(summaries) else None
    for name in sorted({key for one in seen for key in one if "share" in key}):
        weighed = [one for one in seen if one.get(name) is not None and one.get("busy_samples")]
        busy = sum(one["busy_samples"] for one in weighed)
        found[name] = round(sum(one[name] * one["busy_samples"] for one in weighed) / busy, 4) if busy else None
    return found


def _known(summaries, name):
    return [one[name] for one in summaries if one.get(name) is not None]
