"""Owns how libcuda is called without any CUDA software: by ctypes, from the file that the loader finds.

Says what the driver answers, with NVIDIA's names and words for its codes. Must not know what is right for an image, and
must not be called in a process that forks children for CUDA work afterwards: a driver does not survive a fork.
"""

from __future__ import annotations

import os

from . import versions
from .cgroup import read_text

SONAME = "libcuda.so.1"
STUB = 34

# cuda.h's codes that an image or a host can cause, and the words of cuGetErrorString. 35 is the runtime's own.
CODES = {
    1: ("CUDA_ERROR_INVALID_VALUE", "invalid argument"),
    2: ("CUDA_ERROR_OUT_OF_MEMORY", "out of memory"),
    3: ("CUDA_ERROR_NOT_INITIALIZED", "initialization error"),
    34: ("CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"),
    35: ("cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"),
    36: ("CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", "API call is not supported in the installed CUDA driver"),
    46: ("CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"),
    100: ("CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"),
    101: ("CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"),
    200: ("CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"),
    209: ("CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"),
    214: ("CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"),
    218: ("CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"),
    221: ("CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "PTX JIT compiler library not found"),
    222: ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."),
    223: ("CUDA_ERROR_JIT_COMPILATION_DISABLED", "PTX JIT compilation was disabled"),
    304: ("CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"),
    700: ("CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    719: ("CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"),
    802: ("CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"),
    803: ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"),
    804: (
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "forward compatibility was attempted on non supported HW",
    ),
    805: (
        "CUDA_ERROR_MPS_CONNECTION_FAILED",
        "MPS client failed to connect to the MPS control daemon or the MPS server",
    ),
    999: ("CUDA_ERROR_UNKNOWN", "unknown error"),
}
_CC_MAJOR, _CC_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_JIT_LOG, _JIT_LOG_BYTES = 5, 6  # CU_JIT_ERROR_LOG_BUFFER and _SIZE_BYTES
_LOG_LIMIT = 4096  # bytes


class DriverError(Exception):
    """A call into the driver that failed. `code` is None where this libcuda lacks the function."""

    def __init__(self, call: str, code, words: str):
        super().__init__(f"{call}: {words}")
        self.code = code


class Driver:
    """An open libcuda. `path` is the file that the loader chose, or None where /proc does not tell."""

    def __init__(self, handle, path):
        self._handle = handle
        self.path = path

    def ask(self, name: str, *arguments) -> int:
        """Call a function and give its code. The arguments must be ctypes values of the right width."""
        function = getattr(self._handle, name, None)
        if function is None:
            raise DriverError(name, None, f"this {SONAME} has no such function")
        return function(*arguments)

    def call(self, name: str, *arguments) -> None:
        """Call a function that must succeed."""
        code = self.ask(name, *arguments)
        if code != 0:
            raise DriverError(name, code, self.words(code))

    def words(self, code: int) -> str:
        """`803 CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has …`; a code that we do not know is named by the driver."""
        name, text = CODES.get(code) or (self._said("cuGetErrorName", code), self._said("cuGetErrorString", code))
        return f"{code} {name or 'of unknown name'}: {text or 'no words for it'}"

    def _said(self, function, code):
        import ctypes

        text = ctypes.c_char_p()
        try:
            if self.ask(function, ctypes.c_int(code), ctypes.byref(text)) != 0:
                return None
        except DriverError:
            return None
        return text.value.decode("utf-8", "replace") if text.value else None

    def init(self) -> int:
        """The code of cuInit(0)."""
        import ctypes

        return self.ask("cuInit", ctypes.c_uint(0))

    def version(self):
        """The newest CUDA that this driver serves, as `12.4`; None where it does not say. Needs no cuInit."""
        import ctypes

        number = ctypes.c_int()
        try:
            self.call("cuDriverGetVersion", ctypes.byref(number))
        except DriverError:
            return None
        return versions.cuda(number.value)

    def count(self) -> int:
        """Cards that CUDA shows in this process."""
        import ctypes

        number = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(number))
        return number.value

    def device(self, ordinal: int) -> dict:
        """{name, capability, pci_bus_id} of one card; None for what this driver cannot tell."""
        import ctypes

        handle = self.handle(ordinal)
        name, bus = ctypes.create_string_buffer(256), ctypes.create_string_buffer(64)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGetName", name, ctypes.c_int(len(name)), handle)
        self.call("cuDeviceGetAttribute", ctypes.byref(major), ctypes.c_int(_CC_MAJOR), handle)
        self.call("cuDeviceGetAttribute", ctypes.byref(minor), ctypes.c_int(_CC_MINOR), handle)
        try:
            self.call("cuDeviceGetPCIBusId", bus, ctypes.c_int(len(bus)), handle)
        except DriverError:
            bus.value = b""
        return {
            "name": name.value.decode("utf-8", "replace"),
            "capability": f"{major.value}.{minor.value}",
            "pci_bus_id": bus.value.decode("ascii", "replace") or None,
        }

    def handle(self, ordinal: int):
        """The driver's handle of a card."""
        import ctypes

        handle = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(handle), ctypes.c_int(ordinal))
        return handle


class Session:
    """The primary context of one card, current in this thread, until `close`."""

    def __init__(self, driver: Driver, ordinal: int):
        import ctypes

        self._driver = driver
        self._device = driver.handle(ordinal)
        context = ctypes.c_void_p()
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        driver.call("cuCtxSetCurrent", context)

    def close(self) -> None:
        """Give the context back; on a context that an error has spoilt this fails, which is no news."""
        for name in ("cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease"):
            try:
                self._driver.ask(name, self._device)
            except DriverError:  # a driver before CUDA 11 has no _v2
                continue
            return

    def function(self, ptx: str, name: str):
        """A kernel, compiled for this card by the driver from PTX; its compiler's own words where that fails."""
        import ctypes

        log = ctypes.create_string_buffer(_LOG_LIMIT)
        options = (ctypes.c_int * 2)(_JIT_LOG, _JIT_LOG_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), _LOG_LIMIT)
        module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        image = ctypes.c_char_p(ptx.encode("ascii"))
        arguments = (ctypes.byref(module), image, ctypes.c_uint(2), options, values)
        code = self._driver.ask("cuModuleLoadDataEx", *arguments)
        if code != 0:
            said = log.value.decode("utf-8", "replace").strip()
            raise DriverError("cuModuleLoadDataEx", code, self._driver.words(code) + (f" ({said})" if said else ""))
        self._driver.call("cuModuleGetFunction", ctypes.byref(kernel), module, ctypes.c_char_p(name.encode("ascii")))
        return kernel

    def upload(self, data):
        """Device memory that holds a ctypes array."""
        import ctypes

        address = ctypes.c_uint64()
        size = ctypes.c_size_t(ctypes.sizeof(data))
        self._driver.call("cuMemAlloc_v2", ctypes.byref(address), size)
        self._driver.call("cuMemcpyHtoD_v2", address, data, size)
        return address

    def download(self, data, address) -> None:
        """Fill a ctypes array from device memory, and free that."""
        import ctypes

        self._driver.call("cuMemcpyDtoH_v2", data, address, ctypes.c_size_t(ctypes.sizeof(data)))
        self._driver.call("cuMemFree_v2", address)

    def launch(self, kernel, blocks: int, threads: int, arguments) -> None:
        """Run a kernel to its end; `arguments` are ctypes values in the kernel's order."""
        import ctypes

        pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(each) for each in arguments])
        sizes = [ctypes.c_uint(size) for size in (blocks, 1, 1, threads, 1, 1, 0)]  # the last: shared memory
        self._driver.call("cuLaunchKernel", kernel, *sizes, None, pointers, None)
        self._driver.call("cuCtxSynchronize")


def load() -> Driver:
    """Open the libcuda that this process gets. Raises OSError, with the loader's words, where there is none."""
    import ctypes

    return Driver(ctypes.CDLL(SONAME), loaded_path(read_text("/proc/self/maps", 1 << 24)))


def loaded_path(maps_text: str):
    """The libcuda that a process has mapped."""
    for line in maps_text.splitlines():
        path = line[line.find("/") :] if "/" in line else ""
        if os.path.basename(path).startswith("libcuda.so"):
            return path
    return None


def origin(path) -> str:
    """What kind of libcuda it is: `stub` (for linking only), `compat` (a newer driver's, in the image), `driver`."""
    directories = (path or "").split("/")[:-1]
    if "stubs" in directories:
        return "stub"
    return "compat" if "compat" in directories else "driver"
