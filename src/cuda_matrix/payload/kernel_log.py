"""Owns the kernel's log as far as this container may read it: /dev/kmsg, else the system call behind `dmesg`.

In most containers neither may be read. Must not know what the lines mean.
"""

from __future__ import annotations

import os
import re

DEVICE = "/dev/kmsg"
_RECORD_LIMIT = 8192  # bytes; the kernel gives one record at a time, and refuses a smaller buffer
_RECORDS = 1 << 17  # more than a ring buffer holds: the loop ends even on a machine that logs without pause
_READ_ALL = 3  # klogctl: what dmesg asks for; it removes nothing
_BUFFER = 1 << 20


def lines(device: str = DEVICE):
    """[(seconds since boot, text)] of the kernel's log, oldest first; None where it cannot be read."""
    found = _records(device)
    return _ring_buffer() if found is None else found


def newest_s(device: str = DEVICE):
    """The newest line's seconds since boot: lines after it are later ones, on the log's own clock. None: unreadable."""
    found = lines(device)
    if found is None:
        return None
    return found[-1][0] if found else 0.0


def _records(device):
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    found = []
    try:
        for _ in range(_RECORDS):
            try:
                record = os.read(descriptor, _RECORD_LIMIT)
            except BrokenPipeError:  # records were overwritten while we read: the next read goes on with the oldest
                continue
            except BlockingIOError:  # no more
                break
            if not record:  # a plain file's end
                break
            found.extend(parse_records(record.decode("utf-8", "replace")))
    except OSError:  # it opens for everybody, and may refuse to be read
        return found or None
    finally:
        os.close(descriptor)
    return found


def parse_records(text: str) -> list:
    """The lines of /dev/kmsg: `priority,sequence,microseconds,flags;text`; what begins with a blank is no message."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\d+,\d+,(\d+),[^;]*;(.*)", line)
        if match:
            found.append((int(match.group(1)) / 1e6, match.group(2)))
    return found


def _ring_buffer():
    try:
        import ctypes

        buffer = ctypes.create_string_buffer(_BUFFER)
        size = ctypes.CDLL(None).klogctl(_READ_ALL, buffer, _BUFFER)
    except (ImportError, OSError, AttributeError):  # no ctypes; no such call
        return None
    return parse_ring_buffer(buffer.raw[:size].decode("utf-8", "replace")) if size >= 0 else None


def parse_ring_buffer(text: str) -> list:
    """The lines of dmesg: `<6>[  123.456789] text`. Without time stamps (printk.time=0) none of them."""
    found = []
    for line in text.splitlines():
        match = re.match(r"<\d+>\[\s*(\d+\.\d+)\] ?(.*)", line)
        if match:
            found.append((float(match.group(1)), match.group(2)))
    return found
