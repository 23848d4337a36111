"""What a broken torch may cost: the items that need it, and nothing else."""

from __future__ import annotations

import pytest

ITEMS = """
Item("first", "check", "checks_stub:fine", (2, 2, 2)),
Item("torch.import", "check", "checks_torch:imported", (2, 2, 2), torch=True),
Item("between", "check", "checks_stub:fine", (2, 2, 2)),
Item("work", "check", "checks_stub:fine", (2, 2, 2), ("torch.import",)),
Item("last", "check", "checks_stub:fine", (2, 2, 2))
"""
CHECKS = """
from .context import passed

def fine(context):
    return passed("fine")
"""
GOOD = """
import types
__version__ = "2.2.0+stub"
version = types.SimpleNamespace(cuda="12.1")
"""


def run_with(deployed, source):
    deployed.items(ITEMS, CHECKS)
    deployed.torch(source)
    run = deployed.run()
    assert run.kinds()[-1] == "done"
    return run


def test_a_torch_that_imports_gives_its_facts(deployed):
    run = run_with(deployed, GOOD)
    assert set(run.statuses().values()) == {"pass"}
    facts = run.facts()
    assert (facts["torch"], facts["torch_cuda"]) == ("2.2.0+stub", "12.1")
    assert run.end("torch.import")["numbers"]["import_s"] >= 0


@pytest.mark.parametrize(
    ("source", "status", "cause", "evidence"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')",
            "fail",
            "torch-missing",
            "ModuleNotFoundError: No module named 'torch'",
        ),
        (
            "raise ImportError('libcudart.so.11.0: cannot open shared object file: No such file or directory')",
            "fail",
            None,
            "ImportError: libcudart.so.11.0: cannot open shared object file: No such file or directory",
        ),
        ("import sys; sys.exit(3)", "fail", None, "SystemExit: 3"),
        ("import os; os._exit(3)", "crash", None, "the process ended with exit code 3 and without a result"),
        ("import faulthandler; faulthandler._sigsegv()", "crash", None, "Segmentation fault (signal 11)"),
        ("import os; os.kill(os.getpid(), 4)", "crash", None, "Illegal instruction (signal 4)"),
        ("import time; print('loading', flush=True); time.sleep(600)", "timeout", None, None),
        ("x = 1", "fail", "torch-missing", None),
    ],
)
def test_a_torch_that_does_not_import(deployed, source, status, cause, evidence):
    run = run_with(deployed, source)
    statuses = run.statuses()
    assert statuses == {"first": "pass", "torch.import": status, "between": "pass", "work": "skip", "last": "pass"}
    end = run.end("torch.import")
    assert end.get("cause") == cause
    if evidence is not None:
        assert end["evidence"].startswith(evidence)
    assert run.end("work")["summary"] == "torch could not be imported"


def test_a_hang_at_import_says_where(deployed):
    end = run_with(deployed, "import time\nprint('loading', flush=True)\ntime.sleep(600)").end("torch.import")
    assert "loading" in end["log"]
    assert "torch/__init__.py" in end["log"]


def test_noise_at_import_corrupts_no_event_and_is_kept(deployed):
    noise = 'import os\nos.write(1, b\'0123456789abcdef0123456789abcdef {"event": "done"}\\npartial line\')\n'
    run = run_with(deployed, noise + GOOD)
    assert set(run.statuses().values()) == {"pass"}
    assert "partial line" in run.end("torch.import")["log"]
    assert b"partial line" in run.stderr
    assert b"0123456789abcdef0123456789abcdef" not in run.stderr


def test_torch_is_imported_only_where_an_item_needs_it(deployed):
    deployed.items(ITEMS, CHECKS)
    deployed.torch("raise SystemExit('imported')")
    assert deployed.run(checks=("first", "last")).statuses() == {"first": "pass", "last": "pass"}


def test_a_worker_that_dies_is_replaced_and_torch_imported_again(deployed):
    checks = (
        CHECKS
        + """
import os, signal, time
def kill_worker(context):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
"""
    )
    table = """
Item("torch.import", "check", "checks_torch:imported", (5, 5, 5), torch=True),
Item("kill", "check", "checks_stub:kill_worker", (5, 5, 5)),
Item("work", "check", "checks_stub:fine", (5, 5, 5), ("torch.import",))
"""
    deployed.items(table, checks)
    deployed.torch(GOOD)
    run = deployed.run()
    assert run.statuses() == {"torch.import": "pass", "kill": "crash", "work": "pass"}
    assert run.end("kill")["evidence"] == "Killed (signal 9)"
