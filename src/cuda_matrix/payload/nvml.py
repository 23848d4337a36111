"""Owns NVML: libnvidia-ml.so.1 by ctypes, which cards there are, and a snapshot of their counters.

Must not know what a good value is.
Not kept open across a fork: whoever needs it opens it, in a `with`, in the process at hand.
"""

from __future__ import annotations

import time

try:
    import ctypes
except ImportError:  # a Python that was built without libffi
    ctypes = None
else:
    from .nvml_device import SUCCESS, Device

# The bits of the event (formerly throttle) reasons that mean: the clocks are held down.
EVENT_BITS = {
    "sw_power_cap": 0x04,
    "hw_slowdown": 0x08,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
}
IDLE_BIT = 0x01
THROTTLE_MASK = 0xE8  # all of the above but the software power cap, which is a card's normal way to keep its limit
COMPUTE_MODES = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}
NOT_LOADED = "NVML cannot be loaded"
_NAMES = ("libnvidia-ml.so.1", "/usr/local/nvidia/lib64/libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")


def open_library():
    """(Library, "") or (None, why not in the words of nvidia-smi). Close it, or use it in a `with`."""
    if ctypes is None:
        return None, f"{NOT_LOADED}: this Python has no ctypes"
    shared = None
    reason = ""
    for name in _NAMES:
        try:
            shared = ctypes.CDLL(name)
            break
        except OSError as error:
            reason = reason or str(error)
    if shared is None:
        return None, f"{NOT_LOADED}: {reason}"
    library = Library(shared)
    code = library.call("nvmlInit_v2")
    if code != SUCCESS:
        return None, "Failed to initialize NVML: " + library.error_text(code)
    return library, ""


class Library:
    """NVML, initialised."""

    def __init__(self, shared):
        self._shared = shared

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self) -> None:
        """Give it back; harmless where it was closed before."""
        if self._shared is not None:
            self.call("nvmlShutdown")
            self._shared = None

    def call(self, name: str, *arguments):
        """The code that a function returns; None where this NVML does not have it."""
        try:
            function = getattr(self._shared, name)
        except AttributeError:
            return None
        return function(*arguments)

    def error_text(self, code) -> str:
        """NVML's own words, as nvidia-smi prints them: `Driver/library version mismatch`, `Unknown Error`."""
        if code is None:
            return "Function Not Found"
        try:
            function = self._shared.nvmlErrorString
        except AttributeError:
            return f"error {code}"
        function.restype = ctypes.c_char_p
        return (function(code) or b"").decode("utf-8", "replace") or f"error {code}"

    def driver(self):
        """The driver's version, or None."""
        buffer = ctypes.create_string_buffer(80)
        code = self.call("nvmlSystemGetDriverVersion", buffer, ctypes.c_uint(80))
        return buffer.value.decode("ascii", "replace") if code == SUCCESS else None

    def count(self):
        """How many cards NVML sees in this container, or None."""
        number = ctypes.c_uint()
        code = self.call("nvmlDeviceGetCount_v2", ctypes.byref(number))
        return number.value if code == SUCCESS else None

    def device(self, index: int):
        """(Device, "") by NVML's index, which need not be CUDA's; or (None, why not)."""
        return self._device("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))

    def device_by_bus_id(self, bus_id: str):
        """(Device, "") by a PCI bus id in CUDA's or NVML's form; or (None, why not)."""
        text = ctypes.c_char_p(bus_id.encode("ascii", "replace"))
        return self._device("nvmlDeviceGetHandleByPciBusId_v2", text)

    def _device(self, name, key):
        handle = ctypes.c_void_p()
        code = self.call(name, key, ctypes.byref(handle))
        return (Device(self, handle), "") if code == SUCCESS else (None, self.error_text(code))

    def device_of_cuda(self, ordinal: int = 0):
        """(Device, "") behind `cuda:<ordinal>`; or (None, why not). Where CUDA does not say, the only card there is."""
        bus_ids = cuda_bus_ids()
        if ordinal < len(bus_ids):
            device, reason = self.device_by_bus_id(bus_ids[ordinal])
            if device is not None:
                return device, ""
        else:
            reason = f"CUDA does not say which card is cuda:{ordinal}"
        return self.device(0) if ordinal == 0 and self.count() == 1 else (None, reason)

    def devices(self) -> list:
        """Every card that answers."""
        return [device for device, _ in self._all() if device is not None]

    def unreachable(self) -> list:
        """Why the cards that are counted and do not answer do not: `GPU is lost`."""
        return [reason for device, reason in self._all() if device is None]

    def _all(self):
        return [self.device(index) for index in range(self.count() or 0)]


def cuda_bus_ids() -> list:
    """The PCI bus ids of cuda:0, cuda:1, …, as CUDA orders and hides them; empty where CUDA does not work."""
    if ctypes is None:
        return []
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if cuda.cuInit(0) != SUCCESS or cuda.cuDeviceGetCount(ctypes.byref(count)) != SUCCESS:
            return []
        found = []
        for ordinal in range(count.value):
            device, text = ctypes.c_int(), ctypes.create_string_buffer(32)
            if cuda.cuDeviceGet(ctypes.byref(device), ordinal) != SUCCESS:
                return []
            if cuda.cuDeviceGetPCIBusId(text, 32, device) != SUCCESS:
                return []
            found.append(text.value.decode("ascii", "replace"))
    except (OSError, AttributeError):
        return []
    return found


def snapshot(library: Library) -> dict:
    """Every counter that health is judged by, JSON-able: {taken_s, kernel_log_s, driver, devices, unreachable}."""
    from . import kernel_log

    return {
        "taken_s": time.monotonic(),  # as good in another process: it counts from the boot
        "kernel_log_s": kernel_log.newest_s(),
        "driver": library.driver(),
        "devices": [counters(device) for device in library.devices()],
        "unreachable": library.unreachable(),
    }


def counters(device) -> dict:
    """One card's part of a snapshot; None for what it does not tell, and `faults` for what it should have told."""
    rows = device.remapped_rows() or {}
    seen = {
        "name": device.name(),
        "uuid_hash": device.uuid_hash(),
        "bus_id": device.bus_id(),
        "ecc_uncorrected": device.ecc_uncorrected(),
        "ecc_corrected": device.ecc_corrected(),
        "ecc_uncorrected_ever": device.ecc_uncorrected(aggregate=True),
        "ecc_corrected_ever": device.ecc_corrected(aggregate=True),
        "rows_correctable": rows.get("correctable"),
        "rows_uncorrectable": rows.get("uncorrectable"),
        "rows_pending": rows.get("pending"),
        "rows_failed": rows.get("failed"),
        "pages_retired": device.retired_pages(),
        "pages_pending": device.retired_pages_pending(),
        "pcie_generation": device.pcie_generation(),
        "pcie_generation_max": device.pcie_generation_max(),
        "pcie_width": device.pcie_width(),
        "pcie_width_max": device.pcie_width_max(),
        "pcie_replays": device.pcie_replays(),
        "nvlinks": device.nvlinks(),
        "energy_mj": device.energy_mj(),
        "temperature_c": device.temperature_c(),
    }
    seen["why"] = dict(device.why)
    seen["faults"] = device.faults
    return seen
