"""Owns watching a card while something is measured on it: a thread that asks NVML several times a second.

It must never disturb, fail or outlive the measurement: whatever goes wrong becomes the summary's `reason`.
Must not know what a good value is.
"""

from __future__ import annotations

import threading
import time

from . import nvml
from .samples import median

INTERVAL_S = 0.125  # 8 Hz
_LEAVE_S = 1.0  # how long a hanging NVML may delay the end of the measurement

# what the summary calls it → (which sample, which statistic)
_STATISTICS = {
    "sm_clock_mhz": ("sm_clock_mhz", median),
    "sm_clock_min_mhz": ("sm_clock_mhz", min),
    "sm_clock_max_mhz": ("sm_clock_mhz", max),
    "memory_clock_mhz": ("memory_clock_mhz", median),
    "temperature_max_c": ("temperature_c", max),
    "power_w": ("power_w", median),
    "pcie_generation_seen": ("pcie_generation", max),
    "pcie_width_seen": ("pcie_width", max),
}


class Watch:
    """Samples one card inside a `with`; `summary()` afterwards.

    `device`: "cuda:0" or a CUDA ordinal, or a PCI bus id. For "cpu" or None nothing is sampled, and no thread started.
    """

    def __init__(self, device, interval_s: float = INTERVAL_S):
        self._device = device
        self._interval_s = interval_s
        self._samples = []
        self._reason = ""
        self._stop = threading.Event()
        self._thread = None

    def __enter__(self):
        if self._device is None or self._device == "cpu":
            self._reason = "no card is in use"
            return self
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads for this container
            self._thread = None
            self._reason = str(error)
        return self

    def __exit__(self, *_error):
        if self._thread is not None:
            self._stop.set()
            self._thread.join(_LEAVE_S)
            if self._thread.is_alive():
                self._reason = "NVML does not answer"

    def summary(self) -> dict:
        """The samples' summary (see `summarise`); where there are none, only {samples: 0, reason}."""
        samples = list(self._samples)
        if not samples:
            return {"samples": 0, "reason": self._reason or "the measurement was shorter than the first sample"}
        found = summarise(samples)
        if self._reason:
            found["reason"] = self._reason
        return found

    def _run(self):
        try:
            library, reason = nvml.open_library()  # here, not in __enter__: it may take its time, or hang
            if library is None:
                self._reason = reason
                return
            with library:
                device, reason = find(library, self._device)
                if device is None:
                    self._reason = reason
                    return
                while True:
                    self._samples.append(sample(device))
                    if self._stop.wait(self._interval_s):
                        break
                self._samples.append(sample(device))  # so that the energy of the last interval counts
        except Exception as error:  # whatever a foreign image's ctypes does: the measurement goes on
            self._reason = f"{type(error).__name__}: {error}"


def find(library, device):
    """(NVML's device, "") for "cuda:<n>", a CUDA ordinal or a PCI bus id; or (None, why not)."""
    text = str(device)
    ordinal = text[len("cuda") :].lstrip(":") or "0" if text.startswith("cuda") else text
    return library.device_of_cuda(int(ordinal)) if ordinal.isdigit() else library.device_by_bus_id(text)


def sample(device) -> dict:
    """One look at the card; None for what it does not tell."""
    return {
        "at_s": time.monotonic(),
        "sm_clock_mhz": device.sm_clock_mhz(),
        "memory_clock_mhz": device.memory_clock_mhz(),
        "temperature_c": device.temperature_c(),
        "power_w": device.power_w(),
        "energy_mj": device.energy_mj(),
        "event_mask": device.event_reasons(),
        "pcie_generation": device.pcie_generation(),
        "pcie_width": device.pcie_width(),
    }


def summarise(samples) -> dict:
    """Numbers of at least one sample: samples, watched_s, those of _STATISTICS, energy_j, busy_samples, and shares.

    What no sample knows is None. power_w is the median of NVML's own figure, which on Ampere (but GA100) and newer is a
    mean over the last second, and on A100 and H100 sees a quarter of the time only (arXiv 2312.02741): of use for runs
    of 5 s and more; energy_j, from the card's energy counter, is the better one. Shares are of the busy samples, those
    without the idle bit: share_<bit> for each of nvml.EVENT_BITS, and throttle_share for any bit of THROTTLE_MASK.
    """
    found = {"samples": len(samples), "watched_s": round(samples[-1]["at_s"] - samples[0]["at_s"], 3)}
    for name, (key, statistic) in _STATISTICS.items():
        values = [one[key] for one in samples if one[key] is not None]
        found[name] = statistic(values) if values else None
    found["energy_j"] = _energy_j([one["energy_mj"] for one in samples])
    found.update(shares([one["event_mask"] for one in samples]))
    return found


def shares(masks) -> dict:
    """busy_samples, throttle_share and the share of each bit; None where no busy sample has a mask."""
    busy = [mask for mask in masks if mask is not None and not mask & nvml.IDLE_BIT]

    def share(bits):
        return round(sum(1 for mask in busy if mask & bits) / len(busy), 4) if busy else None

    found = {"busy_samples": len(busy), "throttle_share": share(nvml.THROTTLE_MASK)}
    for name, bit in nvml.EVENT_BITS.items():
        found["share_" + name] = share(bit)
    return found


def _energy_j(readings):
    """Joules between the first and the last reading; None with fewer than two, or where the counter was reset."""
    known = [reading for reading in readings if reading is not None]
    if len(known) < 2 or known[-1] < known[0]:
        return None
    return (known[-1] - known[0]) / 1000.0
