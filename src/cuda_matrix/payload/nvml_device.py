"""Owns one card as NVML shows it: a getter for every counter and state, with the layouts of NVML's structures.

Every getter answers None where NVML does not know, does not tell, or is too old to have the function; `why` then has
NVML's own words under the function's name. Must not know how NVML is found, nor what a good value is.
"""

from __future__ import annotations

import ctypes

from . import nvidia

SUCCESS = 0
INSUFFICIENT_SIZE = 7
# What is no fault: this card, this driver or this container does not have the counter.
ABSENT = ("Not Supported", "Insufficient Permissions", "Function Not Found")
_NO_VALUE = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE
_MAX_LINKS = 36
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1


class _PciInfo(ctypes.Structure):
    _fields_ = [
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    ]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _MemoryV2(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _ProcessV1(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong)]


class _Process(ctypes.Structure):
    """The second and the third version of the function fill the same structure."""

    _fields_ = [
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class Device:
    """One card. `why` has, for every function that gave no answer, the reason in NVML's words."""

    def __init__(self, library, handle):
        self._library = library
        self._handle = handle
        self.why = {}

    def _ok(self, name, *arguments) -> bool:
        code = self._library.call(name, self._handle, *arguments)
        if code == SUCCESS:
            self.why.pop(name, None)
            return True
        self.why[name] = self._library.error_text(code)
        return False

    def _number(self, name, *arguments):
        """An `unsigned int` that the function leaves in its last argument."""
        number = ctypes.c_uint()
        return number.value if self._ok(name, *arguments, ctypes.byref(number)) else None

    def _long(self, name, *arguments):
        number = ctypes.c_ulonglong()
        return number.value if self._ok(name, *arguments, ctypes.byref(number)) else None

    def _text(self, name):
        buffer = ctypes.create_string_buffer(96)
        return buffer.value.decode("utf-8", "replace") if self._ok(name, buffer, ctypes.c_uint(96)) else None

    @property
    def faults(self) -> dict:
        """What NVML refused for a reason that is no mere absence: `GPU is lost`, `Unknown Error`."""
        return {name: text for name, text in self.why.items() if text not in ABSENT}

    def name(self):
        """For example `NVIDIA H100 80GB HBM3`."""
        return self._text("nvmlDeviceGetName")

    def uuid_hash(self):
        """The card's UUID, hashed as everywhere: a UUID identifies its owner."""
        uuid = self._text("nvmlDeviceGetUUID")
        return nvidia.hashed(uuid) if uuid else None

    def bus_id(self):
        """For example `00000000:65:00.0`."""
        info = _PciInfo()
        if not self._ok("nvmlDeviceGetPciInfo_v3", ctypes.byref(info)):
            return None
        return info.bus_id.decode("ascii", "replace")

    def sm_clock_mhz(self):
        """The clock of the multiprocessors."""
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(_CLOCK_SM))

    def memory_clock_mhz(self):
        """The clock of the memory."""
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(_CLOCK_MEMORY))

    def temperature_c(self):
        """Of the chip."""
        return self._number("nvmlDeviceGetTemperature", ctypes.c_uint(0))

    def power_w(self):
        """Watts: the mean of the last second since Ampere (but GA100), of an instant before."""
        milliwatts = self._number("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1000.0

    def energy_mj(self):
        """Millijoules since the driver was loaded; None on cards without the counter."""
        return self._long("nvmlDeviceGetTotalEnergyConsumption")

    def event_reasons(self):
        """Why the clocks are as they are: a mask. The function was renamed with driver 535.54.03."""
        mask = self._long("nvmlDeviceGetCurrentClocksEventReasons")
        return self._long("nvmlDeviceGetCurrentClocksThrottleReasons") if mask is None else mask

    def ecc_uncorrected(self, aggregate: bool = False):
        """Memory errors that lost data, since the driver was loaded or (aggregate) since the card was made."""
        return self._ecc(_UNCORRECTED, aggregate)

    def ecc_corrected(self, aggregate: bool = False):
        """Memory errors that were repaired in flight."""
        return self._ecc(_CORRECTED, aggregate)

    def _ecc(self, kind, aggregate):
        period = ctypes.c_uint(_AGGREGATE if aggregate else _VOLATILE)
        return self._long("nvmlDeviceGetTotalEccErrors", ctypes.c_uint(kind), period)

    def remapped_rows(self):
        """{correctable, uncorrectable, pending, failed} of memory rows (Ampere and newer), or None."""
        numbers = [ctypes.c_uint() for _ in range(4)]
        if not self._ok("nvmlDeviceGetRemappedRows", *[ctypes.byref(number) for number in numbers]):
            return None
        return dict(zip(("correctable", "uncorrectable", "pending", "failed"), [number.value for number in numbers]))

    def retired_pages(self):
        """How many memory pages were retired for good (before Ampere), whatever the reason; None where unknown."""
        total = 0
        for cause in (0, 1):  # many single-bit errors, one double-bit error
            count = ctypes.c_uint(0)
            name = "nvmlDeviceGetRetiredPages"
            code = self._library.call(name, self._handle, ctypes.c_uint(cause), ctypes.byref(count), None)
            if code not in (SUCCESS, INSUFFICIENT_SIZE):  # without an array, the second is how a count is told
                self.why[name] = self._library.error_text(code)
                return None
            total += count.value
        return total

    def retired_pages_pending(self):
        """1 where a page waits for a reboot to be retired."""
        return self._number("nvmlDeviceGetRetiredPagesPendingStatus")

    def pcie_generation(self):
        """Of the link now: an idle card lowers it."""
        return self._number("nvmlDeviceGetCurrPcieLinkGeneration")

    def pcie_generation_max(self):
        """The best that this card can have in this slot."""
        return self._number("nvmlDeviceGetMaxPcieLinkGeneration")

    def pcie_width(self):
        """Lanes now."""
        return self._number("nvmlDeviceGetCurrPcieLinkWidth")

    def pcie_width_max(self):
        """Lanes that this card can have in this slot."""
        return self._number("nvmlDeviceGetMaxPcieLinkWidth")

    def pcie_replays(self):
        """How often something had to be sent again over PCIe."""
        return self._number("nvmlDeviceGetPcieReplayCounter")

    def nvlinks(self) -> list:
        """1 (active) or 0 for each NVLink that the card has; empty without."""
        name = "nvmlDeviceGetNvLinkState"
        states = []
        for link in range(_MAX_LINKS):
            state = self._number(name, ctypes.c_uint(link))
            if state is not None:
                states.append(state)
            elif self.why[name] == "Invalid Argument":  # there is no such link, nor any after it
                del self.why[name]
                break
        return states

    def compute_mode(self):
        """One of COMPUTE_MODES' numbers."""
        return self._number("nvmlDeviceGetComputeMode")

    def mig_mode(self):
        """(now, after the next reset): 1 where the card is partitioned; None where it cannot be."""
        now, pending = ctypes.c_uint(), ctypes.c_uint()
        ok = self._ok("nvmlDeviceGetMigMode", ctypes.byref(now), ctypes.byref(pending))
        return (now.value, pending.value) if ok else None

    def memory_used_mib(self):
        """MiB that are allocated, without what the driver keeps for itself where it says so (since 510)."""
        memory = _MemoryV2(version=ctypes.sizeof(_MemoryV2) | 2 << 24)
        if self._ok("nvmlDeviceGetMemoryInfo_v2", ctypes.byref(memory)):
            return memory.used >> 20
        memory = _Memory()
        return memory.used >> 20 if self._ok("nvmlDeviceGetMemoryInfo", ctypes.byref(memory)) else None

    def utilisation(self):
        """Percent of the last sample period in which a kernel ran."""
        rates = _Utilization()
        return rates.gpu if self._ok("nvmlDeviceGetUtilizationRates", ctypes.byref(rates)) else None

    def processes(self):
        """[{pid, used_mib}] of the compute processes. Other containers' may be hidden; pids are the host's."""
        return self._processes("nvmlDeviceGetComputeRunningProcesses")

    def mps_processes(self):
        """The same of MPS clients."""
        return self._processes("nvmlDeviceGetMPSComputeRunningProcesses")

    def _processes(self, name):
        for suffix, kind in (("_v3", _Process), ("_v2", _Process), ("", _ProcessV1)):
            count = ctypes.c_uint(128)
            array = (kind * count.value)()
            if self._ok(name + suffix, ctypes.byref(count), array):
                return [{"pid": one.pid, "used_mib": _mib_or_none(one.used)} for one in array[: count.value]]
            if self.why[name + suffix] != "Function Not Found":
                return None
        return None


def _mib_or_none(number):
    return None if number == _NO_VALUE else number >> 20
