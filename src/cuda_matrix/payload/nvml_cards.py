"""Owns which cards a check of the host looks at: NVML's view of those that CUDA uses, and why there may be none.

Must not know what is asked of them.
"""

from __future__ import annotations

from . import nvml
from .context import skipped, unknown

_SILENT = ("timeout", "crash")


class Cards:
    """In a `with`: `devices` are the cards in use; where there are none, `refusal` is the check's result.

    `bus_ids`: of CUDA's devices. `lost`: the cards that NVML counts and cannot reach, in its words.
    """

    def __init__(self, context):
        self._context = context
        self._library = None
        self.bus_ids = []
        self.devices = []
        self.lost = []
        self.refusal = None

    def __enter__(self):
        if self._context.results.get("driver.init", {}).get("status") in _SILENT:
            self.refusal = skipped("the driver did not answer (driver.init)")
            return self
        library, reason = nvml.open_library()
        if library is None:
            loaded = not reason.startswith(nvml.NOT_LOADED)
            self.refusal = unknown(reason, evidence=reason) if loaded else skipped(reason)
            return self
        self._library = library
        self.lost = library.unreachable()
        self.bus_ids = self._bus_ids()
        self.devices = in_use(library, self.bus_ids)
        if not self.devices:
            text = self.lost[0] if self.lost else "NVML sees no card in this container"
            self.refusal = unknown(text, evidence=text) if self.lost else skipped(text)
        return self

    def __exit__(self, *_error):
        if self._library is not None:
            self._library.close()

    def counters(self) -> list:
        """[(the card's counters when the payload started, or None; its counters now)]."""
        before = self._context.kept.get("nvml.before") or {}
        known = {seen["uuid_hash"]: seen for seen in before.get("devices", ()) if seen.get("uuid_hash")}
        now = [nvml.counters(device) for device in self.devices]
        return [(known.get(seen["uuid_hash"]), seen) for seen in now]

    def _bus_ids(self):
        """CUDA is asked once in a run: where the driver has to be loaded for it, cuInit takes seconds."""
        seen = (self._context.kept.get("driver.init") or {}).get("devices") or ()
        if seen and all(device.get("pci_bus_id") for device in seen):
            return [device["pci_bus_id"] for device in seen]
        known = self._context.kept.get("cuda.bus-ids")
        if known is None:
            known = nvml.cuda_bus_ids()
            self._context.keep("cuda.bus-ids", known)
        return known


def in_use(library, bus_ids) -> list:
    """The cards behind CUDA's bus ids, in CUDA's order, a partitioned one once; all where CUDA names none."""
    found = [library.device_by_bus_id(bus_id)[0] for bus_id in dict.fromkeys(bus_ids)]
    return [device for device in found if device is not None] or library.devices()


def untold(what: str, why: dict, *functions) -> dict:
    """The result where a counter is not there: `skip` where it is merely absent, `unknown` where NVML has failed."""
    from .nvml_device import ABSENT  # not at the top: it needs ctypes

    text = next((why[name] for name in functions if name in why), "Not Supported")
    if text in ABSENT:
        return skipped(f"{what}: {text}")
    return unknown(f"{what}: {text}", evidence=text)
