"""Owns how large work is: chosen by the card's memory, a batch halved where it does not fit; and what it took.

Must not know what is done with a batch.
"""

from __future__ import annotations

import gc
import resource

# What PyTorch and NVIDIA's libraries say where memory does not suffice: torch.cuda.OutOfMemoryError is a RuntimeError,
# and newer than some images; cuBLAS and cuDNN have words of their own.
_OUT_OF_MEMORY = ("out of memory", "status_alloc_failed")


def chosen(torch, device, by_memory, on_cpu: int) -> int:
    """The size to begin with: `by_memory` is (bytes of GPU memory, size), largest first, the last for any card."""
    if device.type != "cuda":
        return on_cpu
    memory = torch.cuda.get_device_properties(device).total_memory
    return next(size for least, size in by_memory if memory >= least)


def does_not_fit(text: str) -> bool:
    """Whether an exception's text says that memory does not suffice."""
    return any(words in text.lower() for words in _OUT_OF_MEMORY)


def fitted(torch, device, batch: int, attempt):
    """Run the generator `attempt(batch)`, with half the batch while memory does not suffice: (batch, its value).

    The value is None where not even a batch of one fits.
    """
    while True:
        fits = True
        value = None
        try:
            value = yield from attempt(batch)
        except RuntimeError as error:
            if not does_not_fit(str(error)):
                raise
            fits = False
        if fits:
            return batch, value
        gc.collect()  # outside `except`: the exception's traceback would keep the tensors alive
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if batch == 1:
            return batch, None
        batch //= 2


class PeakMemory:
    """The most memory that was used since this was made, in 1e9 bytes: the device's, or the process's on the CPU."""

    def __init__(self, torch, device):
        self._torch = torch
        self._device = device
        self._before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def gb(self) -> float:
        """Until now."""
        if self._device.type == "cuda":
            return round(self._torch.cuda.max_memory_allocated(self._device) / 1e9, 3)
        # Growth of the process, which began as a copy of one with torch in it.
        after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round((after_kib - self._before_kib) * 1024 / 1e9, 3)
