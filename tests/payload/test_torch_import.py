"""What a broken torch may cost: the items that need it, and nothing else."""

from __future__ import annotations

import pytest

from builders import item_row

ITEMS = (
    item_row("first", "checks_stub:fine"),
    item_row("torch.import", "checks_torch:imported"),
    item_row("between", "checks_stub:fine"),
    item_row("work", "checks_stub:fine", needs=["torch.import"]),
    item_row("last", "checks_stub:fine"),
)
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
    deployed.items(*ITEMS, checks=CHECKS)
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
        (
            "class Empty(Exception):\n    __len__ = lambda self: 0\nraise Empty('an exception that is false')",
            "fail",
            None,
            "Empty: an exception that is false",
        ),
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


@pytest.mark.parametrize(
    ("version", "status", "evidence"),
    [
        ("raise AttributeError(name)", "fail", "/site/torch']"),
        ("raise RuntimeError('no version today')", "fail", "RuntimeError: no version today"),
        ("sys.exit(0)", "crash", "the process ended with exit code 1 and without a result"),
        ("os._exit(7)", "crash", "the process ended with exit code 7 and without a result"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash", "Segmentation fault (signal 11)"),
        ("time.sleep(600)", "timeout", ""),
        ("return 'x' * 3000000", "pass", ""),
        ("return Silent()", "fail", "ValueError: it has no text"),
    ],
)
def test_a_module_that_only_calls_itself_torch_costs_what_needs_it(deployed, version, status, evidence):
    run = run_with(
        deployed,
        f"""
import os, signal, sys, time
class Silent:
    def __str__(self):
        raise ValueError("it has no text")
def __getattr__(name):
    if name == "__version__":
        {version}
    raise AttributeError(name)
""",
    )
    end = run.end("torch.import")
    assert end["status"] == status
    assert end.get("evidence", "").endswith(evidence)
    assert status != "timeout" or "__getattr__" in end["log"]
    work = "pass" if status == "pass" else "skip"
    others = dict.fromkeys(("first", "between", "last"), "pass")
    assert run.statuses() == {**others, "torch.import": status, "work": work}
    assert "seconds" in end


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
    deployed.items(*ITEMS, checks=CHECKS)
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
    deployed.items(
        item_row("torch.import", "checks_torch:imported", 5),
        item_row("kill", "checks_stub:kill_worker", 5),
        item_row("work", "checks_stub:fine", 5, needs=["torch.import"]),
        checks=checks,
    )
    deployed.torch(GOOD)
    run = deployed.run()
    assert run.statuses() == {"torch.import": "pass", "kill": "crash", "work": "pass"}
    assert run.end("kill")["evidence"] == "Killed (signal 9)"


def test_an_import_that_nearly_took_its_limit_is_not_done_twice(deployed, tmp_path):
    deployed.items(
        item_row("torch.import", "checks_torch:imported", 2),
        item_row("work", "checks_slow:fine", 5, needs=["torch.import"]),
    )
    deployed.module("checks_slow", "import time\ntime.sleep(1)\n" + CHECKS)
    deployed.torch(GOOD + f"open({str(tmp_path / 'imports')!r}, 'a').write('once ')\nimport time\ntime.sleep(1.6)\n")
    assert deployed.run().statuses() == {"torch.import": "pass", "work": "pass"}
    assert (tmp_path / "imports").read_text() == "once "


DECLARED = (
    item_row("torch.import", "checks_torch:imported"),
    item_row("image.expect", "checks_torch:expect"),
    item_row("work", "checks_stub:fine", needs=["torch.import"]),
)
MISSING = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"


def run_declared(deployed, source, **expect):
    deployed.items(*DECLARED, checks=CHECKS)
    deployed.torch(source)
    return deployed.run(expect=expect)


def test_an_image_that_shall_have_no_torch_and_has_none(deployed):
    run = run_declared(deployed, MISSING, torch="none", cuda="none")
    assert run.statuses() == {"torch.import": "skip", "image.expect": "pass", "work": "skip"}
    assert run.end("torch.import")["summary"] == "no torch here, as declared"
    assert run.end("torch.import").get("cause") is None


def test_an_image_that_shall_have_no_torch_and_has_one(deployed):
    (deployed.site / "torch-2.2.0.dist-info").mkdir()
    run = run_declared(deployed, GOOD, torch="none")
    assert run.end("image.expect")["cause"] == "expectation-mismatch"
    assert run.end("image.expect")["evidence"] == "torch: expected none, found 2.2.0"


def test_without_torch_the_other_expectations_are_still_compared(deployed):
    (deployed.site / "Some_Package-1.4.2.dist-info").mkdir()
    run = run_declared(deployed, MISSING, torch="2.2.0", **{"some-package": "1.4"})
    assert (run.statuses()["torch.import"], run.statuses()["image.expect"]) == ("fail", "skip")
    run = deployed.run(expect={"torch": "2.2.0", "some-package": "1.5"})
    assert run.end("image.expect")["evidence"] == "some-package: expected 1.5, found 1.4.2"


def test_expectations_alone_say_the_same_as_with_their_neighbours(deployed):
    run = run_declared(deployed, GOOD, torch="2.2.0", cuda="12.1")
    alone = deployed.run(checks=("image.expect",), expect={"torch": "2.2.0", "cuda": "12.1"})
    assert run.statuses()["image.expect"] == alone.statuses()["image.expect"] == "pass"
