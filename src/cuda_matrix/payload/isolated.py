"""Owns a forked child of a check: for work that spoils its process, or that needs variables set before CUDA starts.

Only a process that has not touched CUDA may fork one. Must not know what the child does.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time

from . import processes
from .context import exception_line


class Outcome:
    """What became of a child: its `answer` (a dict), or else `error`, in one line."""

    def __init__(self, answer, ending, limit_s: float):
        self.answer = answer or {}
        self.output = ending.output.text()
        self.error = self.answer.get("error", "")
        if ending.timed_out:
            self.error = f"no answer within {limit_s:.0f} s"
        elif ending.signal is not None:
            self.error = "died: " + ending.signal_text
        elif answer is None:
            self.error = f"ended with exit code {ending.code} and without an answer"
        self.timed_out = ending.timed_out


def with_log(result: dict, *outcomes) -> dict:
    """The result, with what the children printed where it is not good: a fault that was provoked is no news."""
    if result["status"] != "pass":
        result["log"] = "".join(each.output for each in outcomes if each is not None)
    return result


def call(function, limit_s: float, environment=()) -> Outcome:
    """Run `function()` in a child. `environment`: (name, value) pairs; None removes the variable.

    An exception becomes {"error": its line, "error_type": its name}; it is no failure of ours.
    """
    answers = []

    def main(descriptor):
        for name, value in environment:
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        try:
            answer = function()
        except Exception as error:
            import traceback

            sys.stderr.write(traceback.format_exc())
            answer = {"error": exception_line(error), "error_type": type(error).__name__}
        processes.send(descriptor, {"event": "isolated", "answer": answer})

    def on_message(message):
        if message.get("event") == "isolated":
            answers.append(message["answer"])

    deadline = processes.Deadline(time.monotonic() + limit_s)
    ending = processes.run(main, on_message, deadline)
    return Outcome(answers[-1] if answers else None, ending, limit_s)


class EmptyCache:
    """An empty folder for what the driver compiles, in a `with`; where none can be made, nothing is cached.

    `environment`: the variables that make CUDA use it, if they are set before CUDA starts.
    """

    def __enter__(self):
        try:
            self._path = tempfile.mkdtemp(prefix="cuda-matrix-")
        except OSError:
            self._path = None
        self.environment = [("CUDA_CACHE_DISABLE", "1")]
        if self._path is not None:
            self.environment = [("CUDA_CACHE_PATH", self._path), ("CUDA_CACHE_DISABLE", None)]
        return self

    def __exit__(self, *_error):
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)

    def written_bytes(self):
        """What the driver has compiled into it; None where that cannot be seen."""
        if self._path is None:
            return None
        total = 0
        for directory, _, names in os.walk(self._path):
            for name in names:
                try:
                    total += os.path.getsize(os.path.join(directory, name))
                except OSError:
                    continue
        return total
