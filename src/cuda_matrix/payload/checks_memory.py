"""Owns the check that the card's memory keeps what is written into it: patterns over most of what is free.

torch operations only. Everything is written before anything is read back, so that an address that leads to another
place shows too. Must not know how fast the memory is.
"""

from __future__ import annotations

import time

from . import batches
from .context import failed, passed, unknown, warned

CHUNK = 1 << 25  # elements of 8 bytes: 256 MiB
# name → the 64-bit word as a signed number
PATTERNS = (("00", 0), ("FF", -1), ("AA", -6148914691236517206), ("55", 6148914691236517205), ("address", None))
_TIME_SHARE = 0.85  # of the item's seconds; then what is left is not begun
_LARGEST_REST = 3  # chunks that stay free, for what a comparison needs


def patterns(context):
    """Write each pattern over the chosen share of the free memory, and read it back."""
    import torch

    seen = measure(torch, torch.device(context.device), context.thresholds["share"], context.limit_s * _TIME_SHARE)
    return judge_patterns(seen, context.thresholds, context.device)


def measure(torch, device, share: float, limit_s: float) -> dict:
    """{free_bytes, tested_bytes, done, mismatches, first, seconds} over every pattern that the time allowed."""
    ends = time.monotonic() + limit_s
    started = time.monotonic()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    chunk = min(CHUNK, max(1, int(free * share) // 8 // (2 * _LARGEST_REST)))
    chunks = _allocate(torch, device, int(free * share) // 8, chunk)
    scratch = torch.empty(chunk, dtype=torch.int64, device=device)
    seen = {"free_bytes": free, "tested_bytes": sum(each.numel() for each in chunks) * 8, "done": []}
    seen.update(mismatches=0, first=None)
    for name, value in PATTERNS:
        if time.monotonic() >= ends:
            break
        _write(torch, chunks, value)
        wrong, first = _read(torch, chunks, scratch, value)
        seen["mismatches"] += wrong
        if first is not None and seen["first"] is None:
            seen["first"] = f"pattern {name}: {first}"
        seen["done"].append(name)
    seen["seconds"] = round(time.monotonic() - started, 3)
    return seen


def _allocate(torch, device, words: int, chunk: int):
    """Chunks of together so many words, or as many as there are."""
    chunks = []
    while words > 0:
        try:
            chunks.append(torch.empty(min(chunk, words), dtype=torch.int64, device=device))
        except RuntimeError as error:
            if not batches.does_not_fit(str(error)):
                raise
            if chunks:
                chunks.pop()  # room for the comparison
            break
        words -= chunks[-1].numel()
    return chunks


def _write(torch, chunks, value):
    position = 0
    for chunk in chunks:
        if value is None:
            torch.arange(position, position + chunk.numel(), out=chunk)
        else:
            chunk.fill_(value)
        position += chunk.numel()


def _read(torch, chunks, scratch, value):
    """(words that differ, the first of them in words)."""
    wrong, first, position = 0, None, 0
    for chunk in chunks:
        if value is None:
            expected = scratch[: chunk.numel()]
            torch.arange(position, position + chunk.numel(), out=expected)
            differs = chunk != expected
        else:
            differs = chunk != value
        count = int(differs.sum())
        if count and first is None:
            index = int(differs.to(torch.uint8).argmax())
            wanted = position + index if value is None else value
            first = f"byte {(position + index) * 8}: {_hex(int(chunk[index]))}, not {_hex(wanted)}"
        wrong += count
        position += chunk.numel()
    return wrong, first


def _hex(word):
    return f"0x{word & 0xFFFFFFFFFFFFFFFF:016x}"


def judge_patterns(seen: dict, thresholds: dict, device) -> dict:
    """The verdict on what was read back."""
    tested = seen["tested_bytes"] / seen["free_bytes"] if seen["free_bytes"] else 0.0
    numbers = {
        "free_gb": round(seen["free_bytes"] / 1e9, 3),
        "tested_gb": round(seen["tested_bytes"] / 1e9, 3),
        "share": round(tested, 3),
        "patterns": " ".join(seen["done"]),
        "mismatches": seen["mismatches"],
    }
    keys = {"device": device, "numbers": numbers}
    if seen["mismatches"] > thresholds["mismatches"]:
        text = "{} words of the card's memory did not keep what was written".format(seen["mismatches"])
        return failed(text, evidence=seen["first"], cause="gpu-ecc", **keys)
    if len(seen["done"]) < len(PATTERNS):
        text = "the time was enough for {} of {} patterns: {}".format(
            len(seen["done"]), len(PATTERNS), " ".join(seen["done"]) or "none"
        )
        return unknown(text, **keys)
    text = "{tested_gb:.1f} GB of {free_gb:.1f} GB free, every pattern read back".format(**numbers)
    if tested < thresholds["share"] * thresholds["share_reached"]:
        return warned(text + ": less than was meant to be tested", **keys)
    return passed(text, **keys)
