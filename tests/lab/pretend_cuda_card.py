"""Owns the pretended cards: how many, which properties, what lies in their memory, and whether the context still works.

Must not know how tensors are told to lie on a card, nor torch's functions that ask for these figures.
"""

from __future__ import annotations

import os
import threading
import types

GIB = 1 << 30
CONTEXT_BYTES = 300 << 20  # what a real context takes before the first tensor
BLOCK, SEGMENT = 512, 2 << 20  # the caching allocator rounds a tensor up to 512 bytes and asks the driver for 2 MiB
MULTIPROCESSORS = {
    (7, 0): 80,
    (7, 5): 40,
    (8, 0): 108,
    (8, 6): 82,
    (8, 9): 128,
    (9, 0): 132,
    (10, 0): 148,
    (12, 0): 170,
}
DEFAULTS = {
    "gpus": 1,
    "capability": (8, 6),
    "name": "NVIDIA GeForce RTX 3090",
    "memory_gb": 24,
    "used_gb": 0,  # memory that somebody else holds: keeps a test that fills the card within the host's memory
    "p2p": False,
    "cuda": "12.1",  # torch.version.cuda, where the torch at hand is a CPU build
    "arch_list": ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"],
}
HELP = (
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1.\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)


class Memory:
    """What one card holds: an entry per storage, alive as long as the storage itself is."""

    def __init__(self, total, used):
        self.total, self.used = total, used
        self.current = self.peak = self.reserved = self.reserved_peak = 0
        self.allocated = self.freed = self.allocations = self.ooms = 0

    def add(self, size):
        self.current += size
        self.allocated += size
        self.allocations += 1
        self.peak = max(self.peak, self.current)
        self.reserved = max(self.reserved, -(-self.current // SEGMENT) * SEGMENT)
        self.reserved_peak = max(self.reserved_peak, self.reserved)

    def remove(self, size):
        self.current -= size
        self.freed += size

    def trim(self):
        self.reserved = -(-self.current // SEGMENT) * SEGMENT

    def free(self):
        return max(0, self.total - self.used - CONTEXT_BYTES - self.reserved)


class Cards:
    """All cards of this process and the state of its CUDA context."""

    def __init__(self, torch, settings):
        self.torch = torch
        self.settings = dict(DEFAULTS, **{key: value for key, value in settings.items() if value is not None})
        self.capability = tuple(self.settings["capability"])
        self.count = _visible(int(self.settings["gpus"]))
        gib = self.settings["memory_gb"], self.settings["used_gb"]
        self.memory = [Memory(int(gib[0] * GIB), int(gib[1] * GIB)) for _ in range(self.count)]
        self.storages = {}  # storage → (weak reference, card or None for pinned host memory, bytes)
        self.fresh = 0  # storages added since the last look for dead ones
        self.lock = threading.RLock()
        self.local = threading.local()
        self.poison = None
        self.forked = False
        self.capture = None
        self.random = None  # the default generators
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self):
        self.lock = threading.RLock()
        self.forked = bool(self.torch.cuda.is_initialized())

    @property
    def current(self):
        return getattr(self.local, "device", 0)

    @current.setter
    def current(self, index):
        self.local.device = self.valid(index)

    def index(self, device):
        """Card number of a device argument of torch.cuda: None is the current card."""
        if device is None or isinstance(device, int):
            return self.current if device is None else device
        index = self.torch.device(device).index
        return self.current if index is None else index

    def valid(self, index):
        if not 0 <= index < self.count:
            raise self.error("invalid device ordinal")
        return index

    def error(self, text):
        """The exception that torch raises where the CUDA runtime says `text`."""
        kind = getattr(self.torch, "AcceleratorError", None) or RuntimeError
        try:
            return kind(f"CUDA error: {text}\n{HELP}")
        except TypeError:  # an exception type that wants more than a message
            return RuntimeError(f"CUDA error: {text}\n{HELP}")

    def use(self):
        """Every use of a card comes by here: start CUDA at the first, refuse after a device-side assert."""
        self.torch.cuda._lazy_init()
        if self.forked:
            raise self.error("initialization error")
        if self.poison:
            raise self.error(self.poison)

    def device_assert(self, evidence):
        """A kernel has hit an assert: said on stderr, and sticky from now on."""
        os.write(2, f"{evidence}: block: [0,0,0], thread: [0,0,0] Assertion `index out of bounds` failed.\n".encode())
        self.poison = "device-side assert triggered"
        if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1":
            raise self.error(self.poison)

    def place(self, storage, index):
        """From now on this storage lies on card `index`, or in pinned host memory where that is None."""
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
        with self.lock:
            self.take_away(storage)
            if index is not None:
                memory = self.memory[index]
                if memory.current + size > memory.peak and self.fresh >= 64:
                    self.sweep()
                self.reserve(size, index)
                memory.add(size)
            self.storages[key] = (storage._weak_ref(), index, size)
            self.fresh += 1
            if self.fresh >= 4096:
                self.sweep()

    def take_away(self, storage):
        found = self.storages.pop(storage._cdata, None)
        if found is not None:
            self._forget(found)

    def _forget(self, entry):
        reference, index, size = entry
        self.torch.UntypedStorage._free_weak_ref(reference)
        if index is not None:
            self.memory[index].remove(size)

    def sweep(self):
        """Forget the storages that have died; until then the weak reference keeps their address from being reused."""
        with self.lock:
            expired = self.torch.UntypedStorage._expired
            for key in [key for key, entry in self.storages.items() if expired(entry[0])]:
                self._forget(self.storages.pop(key))
            self.fresh = 0

    def reserve(self, size, index):
        """Refuse an allocation that does not fit, in the allocator's words."""
        memory = self.memory[index]
        room = memory.total - memory.used - CONTEXT_BYTES
        if memory.current + size > room:
            self.sweep()
        if memory.current + size <= room:
            return
        memory.ooms += 1
        capacity, free = memory.total / GIB, (room - memory.current) / GIB
        asked = f"CUDA out of memory. Tried to allocate {size / GIB:.2f} GiB."
        rest = f"GPU {index} has a total capacity of {capacity:.2f} GiB of which {free:.2f} GiB is free."
        raise self.torch.cuda.OutOfMemoryError(f"{asked} {rest}")

    def statistics(self, index):
        """As `torch._C._cuda_memoryStats` gives it."""
        self.sweep()
        memory = self.memory[index]

        def group(current, peak, allocated=0, freed=0):
            one = {"current": current, "peak": peak, "allocated": allocated, "freed": freed}
            return {"all": one, "small_pool": one, "large_pool": one}

        held = group(memory.current, memory.peak, memory.allocated, memory.freed)
        reserved = group(memory.reserved, memory.reserved_peak)
        stats = {"allocated_bytes": held, "active_bytes": held, "requested_bytes": held, "reserved_bytes": reserved}
        for name in ("allocation", "active", "segment", "inactive_split"):
            stats[name] = group(0, 0, memory.allocations, 0)
        return dict(stats, inactive_split_bytes=group(0, 0), num_alloc_retries=0, num_ooms=memory.ooms)

    def reset_peak(self, index):
        self.sweep()
        memory = self.memory[index]
        memory.peak, memory.reserved_peak = memory.current, memory.reserved

    def empty_cache(self):
        self.use()
        self.sweep()
        for memory in self.memory:
            memory.trim()

    def mem_get_info(self, index=None):
        self.use()
        memory = self.memory[self.index(index)]
        return memory.free(), memory.total

    def synchronize(self, *_):
        self.use()
        if self.capture is not None:
            raise self.error("operation not permitted when stream is capturing")

    def properties(self, index):
        """Only what this torch's own properties have."""
        values = {
            "name": self.settings["name"],
            "major": self.capability[0],
            "minor": self.capability[1],
            "total_memory": self.memory[index].total,
            "multi_processor_count": MULTIPROCESSORS.get(self.capability, 64),
            "is_integrated": 0,
            "is_multi_gpu_board": 0,
        }
        if hasattr(getattr(self.torch._C, "_CudaDeviceProperties", None), "max_threads_per_multi_processor"):
            values["max_threads_per_multi_processor"] = 1536 if self.capability in ((8, 6), (8, 9)) else 2048
        return types.SimpleNamespace(**values)


def _visible(gpus):
    """CUDA_VISIBLE_DEVICES: numbers up to the first that does not exist; empty hides all."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return gpus
    count = 0
    for part in wanted.split(","):
        if not part.strip().isdigit() or int(part) >= gpus:
            break
        count += 1
    return count
