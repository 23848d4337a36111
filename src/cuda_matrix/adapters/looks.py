"""Owns looking at many things at once within one limit of time, whatever hangs.

Must not know what is looked at (host_probe, engine_probe, image_probe).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def look(
    looks: Mapping[str, Callable[[], dict[str, object]]],
    otherwise: Mapping[str, Callable[[str], dict[str, object]]],
    limit_s: float,
) -> dict[str, object]:
    """What all looks found, merged.

    One that has not come back after `limit_s`, or that the system refuses, gives what `otherwise` says of it: a look
    may be stuck inside the kernel (a dead network disk), so it runs in a thread that nobody waits for. Other errors are
    bugs, and are raised.
    """
    found: dict[str, dict[str, object]] = {}
    errors: dict[str, BaseException] = {}

    def run(name: str, call: Callable[[], dict[str, object]]) -> None:
        try:
            found[name] = call()
        except BaseException as error:
            errors[name] = error

    threads = {name: threading.Thread(target=run, args=(name, call), daemon=True) for name, call in looks.items()}
    end = time.monotonic() + limit_s
    for thread in threads.values():
        thread.start()
    merged: dict[str, object] = {}
    for name, thread in threads.items():
        thread.join(max(0.0, end - time.monotonic()))
        error = errors.get(name)
        if error is not None and not isinstance(error, OSError):
            raise error
        if name in found:
            merged |= found[name]
        else:
            why = f"{name}: {error}" if error else f"{name}: no answer within {limit_s:.0f} s"
            merged |= otherwise[name](why) if name in otherwise else {}
    return merged
