"""Modules that are compiled while torch is imported: used where all went well, and missed by nobody where not."""

from __future__ import annotations

import os

import pytest

from builders import item_row

CHECKS = """
import os
from .context import passed

def seen(context):
    children = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/" + name + "/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
        except OSError:  # somebody else's, and gone
            continue
        if int(fields[1]) == os.getppid() and int(name) != os.getpid():
            children.append(fields[0])
    return passed("seen", numbers={"loader": type(__spec__.loader).__name__, "siblings": "".join(children)})

def raises(context):
    raise RuntimeError("on purpose")  # this line
"""
TORCH = """
import os, signal, time, types
__version__ = "2.2.0+stub"
version = types.SimpleNamespace(cuda="12.1")

def brothers():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/" + name + "/stat") as stream:
                parent = int(stream.read().rpartition(")")[2].split()[1])
        except OSError:  # somebody else's, and gone
            continue
        if parent == os.getpid():
            yield int(name)

DO
"""
UNTIL_IT_WRITES = "time.sleep(1)"


def run(deployed, what: str, **request):
    deployed.torch(TORCH.replace("DO", what))
    rows = [item_row("torch.import", "checks_torch:imported")]
    rows += [item_row(name, f"checks_stub:{name}", needs=["torch.import"]) for name in ("seen", "raises")]
    deployed.items(*rows, checks=CHECKS)
    result = deployed.run(**request)
    assert result.kinds()[-1] == "done"
    assert result.statuses() == {"torch.import": "pass", "seen": "pass", "raises": "fail"}
    assert 'raise RuntimeError("on purpose")  # this line' in result.end("raises")["log"]
    assert result.end("seen")["numbers"]["siblings"] == ""
    return result.end("seen")["numbers"]["loader"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU: nothing can be done beside the import")
def test_what_was_compiled_beside_the_import_is_what_runs(deployed):
    assert run(deployed, UNTIL_IT_WRITES) == "_Loader"


@pytest.mark.parametrize(
    "what",
    [
        "for pid in brothers(): os.kill(pid, signal.SIGKILL)",
        "for pid in brothers(): os.kill(pid, signal.SIGSTOP)",
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN); " + UNTIL_IT_WRITES,
        "[os.waitpid(pid, 0) for pid in brothers() if not os.kill(pid, signal.SIGKILL)]",
    ],
    ids=["killed", "stopped", "children ignored", "reaped by the image"],
)
def test_whatever_becomes_of_the_other_process_nothing_is_missed(deployed, what):
    run(deployed, what)


def test_on_one_cpu_python_compiles_as_ever(deployed):
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(every)])
    try:
        assert run(deployed, UNTIL_IT_WRITES) == "SourceFileLoader"
    finally:
        os.sched_setaffinity(0, every)
