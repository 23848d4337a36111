"""Owns what a check is given (Context) and how it says its result (the functions below).

Must not know how a check is run or where its result goes.
"""

from __future__ import annotations

GOOD = ("pass", "warn")


class Context:
    """Everything that a check may know: the request, earlier results, and a place to leave facts."""

    def __init__(self, request: dict, results: dict, send_fact=None):
        self.profile = request["profile"]
        self.expect = request.get("expect") or {}
        # An image that declares itself a CPU image is right on the CPU, whatever the host has.
        self.gpu_needed = bool(request.get("gpu_required")) and self.expect.get("cuda") != "none"
        self.results = results
        self.import_seconds = None
        self.torch_error = None
        self._send_fact = send_fact

    @property
    def device(self):
        """`cuda:0` or `cpu`, as the first-kernel check has proved; None before it."""
        return self.results.get("first-kernel", {}).get("device")

    def fact(self, name: str, value) -> None:
        """Report one field of `Facts`; None is not worth an event."""
        if self._send_fact is not None and value is not None:
            self._send_fact(name, value)


def result(status: str, summary: str, **keys) -> dict:
    """One result in the protocol's form."""
    return {"status": status, "summary": summary, **keys}


def passed(summary: str, **keys) -> dict:
    """Verified, and right."""
    return result("pass", summary, **keys)


def warned(summary: str, **keys) -> dict:
    """It works, with a remark."""
    return result("warn", summary, **keys)


def failed(summary: str, **keys) -> dict:
    """Verified, and wrong."""
    return result("fail", summary, **keys)


def skipped(summary: str, **keys) -> dict:
    """Nothing was verified, and why."""
    return result("skip", summary, **keys)


def unknown(summary: str, **keys) -> dict:
    """It could not be told."""
    return result("unknown", summary, **keys)


def exception_line(error: BaseException) -> str:
    """`RuntimeError: the first line of its message`: what a search engine and a reader need."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:2000]
