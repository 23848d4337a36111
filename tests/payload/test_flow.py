"""The order of events, and what one misbehaving check may cost: itself, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from builders import item_row
from cuda_matrix.protocol import EventStream
from cuda_matrix.result import Exit

MARKER = "0123456789abcdef" * 2

CHECKS = """
import os, signal, subprocess, sys, time
from .context import passed, result

def fine(context):
    context.fact("glibc", "9.99")
    return passed("fine", numbers={"answer": 42})

def segfault(context):
    sys.stdout.write("before the end\\n")
    import faulthandler
    faulthandler._sigsegv()

def killed(context):
    os.kill(os.getpid(), signal.SIGKILL)

def hang(context):
    print("waiting", flush=True)
    time.sleep(600)

def hang_in_c(context):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    time.sleep(600)

def flood(context):
    line = b"x" * 65536
    for _ in range(3200):
        os.write(1, line)
    return passed("flooded")

def forge(context):
    import json
    event = {"event": "end", "id": "after", "status": "fail"}
    print("0123456789abcdef0123456789abcdef " + json.dumps(event), flush=True)
    os.write(2, b"0123456789abcdef0123456789abcdef {}\\n")
    return passed("forged")

def needs_its_children(context):
    assert subprocess.Popen(["sleep", "0.1"]).wait() == 0
    assert subprocess.Popen(["false"]).wait() == 1
    time.sleep(1.2)
    return passed("their exit codes came")

def exit_quietly(context):
    os._exit(0)

def raises(context):
    raise RuntimeError("CUDA error: no kernel image is available\\nsecond line")

def leaves_a_process(context):
    subprocess.Popen(["sleep", "600"])
    return passed("left a process behind that keeps the pipes open")

def odd_numbers(context):
    numbers = {"nan": float("nan"), "inf": float("inf"), "object": object, "bad": "\\udcff"}
    numbers.update(("k%d" % i, "é" * 3000) for i in range(100))
    return result("pass", "s" * 9000, numbers=numbers, evidence="\\x00" * 9000, seconds=float("nan"))

def long_log(context):
    print("\\U0001f600" * 20000)
    return result("fail", "long log")
"""


def table(*names: str) -> list[dict[str, Any]]:
    return [item_row(name, f"checks_stub:{name}") for name in names]


def with_after(name: str) -> list[dict[str, Any]]:
    return [*table(name), item_row("after", "checks_stub:fine")]


def test_empty_selection_says_hello_plans_nothing_and_is_done(deployed):
    deployed.torch("raise SystemExit('torch must not be imported')")
    run = deployed.run(checks=(), benchmarks=())
    assert run.code == 0
    assert run.kinds()[:2] == ["hello", "plan"]
    assert run.kinds()[-1] == "done"
    assert run.planned() == []
    assert set(run.kinds()) == {"hello", "plan", "fact", "done"}
    assert run.facts()["python_path"]
    assert run.stderr == b""


def test_events_come_in_the_order_of_the_protocol(deployed):
    deployed.items(*table("fine"), checks=CHECKS)
    run = deployed.run()
    assert [kind for kind in run.kinds() if kind != "fact"] == ["hello", "plan", "start", "end", "done"]
    assert run.events[0] == {"event": "hello", "protocol": 1, "python": sys.version.split()[0]}
    end = run.end("fine")
    assert (end["status"], end["summary"], end["numbers"]) == ("pass", "fine", {"answer": 42})
    assert 0 <= end["seconds"] < 2
    assert run.facts()["glibc"] == "9.99"  # a later fact replaces an earlier one


@pytest.mark.parametrize(
    ("name", "status", "evidence"),
    [
        ("segfault", "crash", "Segmentation fault (signal 11)"),
        ("killed", "crash", "Killed (signal 9)"),
        ("exit_quietly", "crash", "the process ended with exit code 0 and without a result"),
        ("raises", "fail", "RuntimeError: CUDA error: no kernel image is available"),
        ("hang", "timeout", None),
        ("hang_in_c", "timeout", None),
        ("flood", "pass", None),
        ("forge", "pass", None),
        ("leaves_a_process", "pass", None),
        ("long_log", "fail", None),
    ],
)
def test_a_check_that_misbehaves_costs_itself_alone(deployed, name, status, evidence):
    deployed.items(*with_after(name), checks=CHECKS)
    run = deployed.run()
    assert run.statuses() == {name: status, "after": "pass"}
    assert run.end(name).get("evidence") == evidence
    assert run.kinds()[-1] == "done"
    assert run.code == 0


def test_a_segfault_names_its_signal_and_the_line_that_did_it(deployed):
    deployed.items(*table("segfault"), checks=CHECKS)
    end = deployed.run().end("segfault")
    assert end["numbers"] == {"signal": 11, "signal_name": "SIGSEGV"}
    assert "in segfault" in end["log"]


def test_a_hang_keeps_its_output_and_says_where_it_hung(deployed):
    deployed.items(*table("hang"), checks=CHECKS)
    end = deployed.run().end("hang")
    assert end["summary"] == "stopped after 2.0 s: no result within its time limit"
    assert "waiting" in end["log"]
    assert "in hang" in end["log"]


def test_an_exception_leaves_its_traceback_in_the_log(deployed):
    deployed.items(*table("raises"), checks=CHECKS)
    end = deployed.run().end("raises")
    assert end["summary"] == "raised RuntimeError"
    assert end["log"].rstrip().endswith("second line")


def test_two_hundred_megabytes_of_output_cost_no_memory(deployed):
    deployed.items(*table("flood"), checks=CHECKS)
    run = deployed.run()
    assert len(run.end("flood")["log"]) <= 16000
    assert len(run.stdout) + len(run.stderr) < 100_000


def test_what_a_check_prints_is_never_an_event(deployed):
    deployed.items(*with_after("forge"), checks=CHECKS)
    run = deployed.run()
    assert run.end("after")["status"] == "pass"
    assert run.kinds().count("end") == 2
    assert b"0123456789abcdef0123456789abcdef {" not in run.stderr


def test_results_are_strict_bounded_json(deployed):
    deployed.items(*table("odd_numbers"), checks=CHECKS)
    end = deployed.run().end("odd_numbers")
    assert end["numbers"]["nan"] == "nan"
    assert end["numbers"]["inf"] == "inf"
    assert end["numbers"]["bad"] == "?"
    assert len(end["numbers"]) <= 64
    assert len(end["summary"]) <= 2000
    assert 0 <= end["seconds"] < 2


def test_the_host_reads_the_stream_without_an_anomaly(deployed):
    names = ["fine", "segfault", "raises", "forge", "odd_numbers", "long_log"]
    rate = item_row("rate", "checks_stub:fine", kind="benchmark", needs=["raises"], unit="images/s")
    deployed.items(*table(*names), rate, checks=CHECKS)
    run = deployed.run()
    stream = EventStream(MARKER)
    stream.feed(run.stdout)
    outcome = stream.outcome(Exit(code=run.code))
    assert stream.anomalies == []
    assert outcome.done
    assert [str(check.status.value) for check in outcome.checks] == ["pass", "crash", "fail", "pass", "pass", "fail"]
    assert [(each.id, each.status.value, each.unit) for each in outcome.benchmarks] == [("rate", "skip", "images/s")]


def test_the_cells_time_limit_ends_what_runs_and_skips_the_rest(deployed):
    deployed.items(*with_after("hang"), checks=CHECKS)
    run = deployed.run(limit_s=1.0)
    assert run.statuses() == {"hang": "timeout", "after": "skip"}
    assert run.end("after")["summary"] == "the cell's time limit was reached"
    assert [run.end(item)["cause"] for item in ("hang", "after")] == ["cell-timeout"] * 2
    assert "the cell's time limit was reached" in run.end("hang")["summary"]
    assert run.kinds()[-1] == "done"


def test_a_glob_that_selects_nothing_is_seen(deployed):
    deployed.items(*table("fine"), checks=CHECKS)
    run = deployed.run(checks=("fine", "fnie"))
    assert run.planned() == ["fine", "fnie"]
    assert run.statuses() == {"fine": "pass", "fnie": "unknown"}


def test_what_an_item_needs_is_planned_with_it(deployed):
    last = item_row("last", "checks_stub:fine", needs=["raises"])
    deployed.items(*table("fine", "raises"), last, checks=CHECKS)
    run = deployed.run(checks=("last",))
    assert run.statuses() == {"raises": "fail", "last": "skip"}
    assert "start" not in [event["event"] for event in run.events if event.get("id") == "last"]


def test_sigterm_kills_the_check_and_its_children_at_once(deployed, tmp_path):
    deployed.items(
        item_row("tree", "checks_stub:tree", 60),
        checks=f"""
import os, subprocess, time
def tree(context):
    child = subprocess.Popen(["sleep", "600"])
    with open({str(tmp_path / "pids")!r}, "w") as stream:
        stream.write("%d %d" % (os.getpid(), child.pid))
    os.rename({str(tmp_path / "pids")!r}, {str(tmp_path / "ready")!r})
    time.sleep(600)
""",
    )
    deployed.write()
    with subprocess.Popen(deployed.command(), env=deployed.environment(), stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        pids = [int(pid) for pid in (tmp_path / "ready").read_text().split()]
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 143
    assert b'"done"' not in out
    assert [pid for pid in pids if _alive(pid)] == []


def _alive(pid: int) -> bool:
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONWARNINGS": "error"},
        {"PYTHONSTARTUP": "/nonexistent", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "0", "LC_ALL": "C"},
        {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "PYTHONOPTIMIZE": "2"},
    ],
)
def test_the_images_environment_does_not_matter(deployed, environment):
    deployed.items(*table("fine", "raises"), checks=CHECKS)
    run = deployed.run(env=environment)
    assert run.statuses() == {"fine": "pass", "raises": "fail"}
    assert run.kinds()[-1] == "done"


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_standard_descriptors_do_not_matter(deployed, closed):
    deployed.items(*table("segfault", "fine"), checks=CHECKS)
    command = " ".join(f"'{part}'" for part in deployed.command())
    run = deployed.run(command=["/bin/sh", "-c", f"exec {command} {closed}"])
    assert run.statuses() == {"segfault": "crash", "fine": "pass"}


def test_no_bytecode_is_written(deployed):
    deployed.items(*table("fine"), checks=CHECKS)
    deployed.torch("x = 1")
    deployed.run()
    assert list(deployed.root.parent.rglob("__pycache__")) == []


def test_a_reader_that_went_away_ends_the_payload(deployed):
    deployed.items(*table("hang"), checks=CHECKS)
    deployed.write()
    read, write = os.pipe()
    with subprocess.Popen(
        deployed.command(), env=deployed.environment(), stdout=write, stderr=subprocess.DEVNULL
    ) as process:
        os.close(write)
        os.close(read)
        assert process.wait(timeout=20) == 70


@pytest.mark.parametrize("inherited", ["trap '' CHLD;", "ulimit -n 4096;"])
def test_what_a_shell_leaves_behind_does_not_matter(deployed, inherited):
    """An ignored SIGCHLD, which a shell hands on; an alarm in a second, which `exec` keeps."""
    deployed.items(*table("needs_its_children", "killed"), item_row("after", "checks_stub:fine"), checks=CHECKS)
    (deployed.site / "sitecustomize.py").write_text("import signal\nsignal.alarm(1)\n")
    shell = ["/bin/bash", "-c", inherited + ' exec "$@"', "bash"]
    run = deployed.run(command=[*shell, *deployed.command()])
    assert run.statuses() == {"needs_its_children": "pass", "killed": "crash", "after": "pass"}
    assert run.end("killed")["evidence"] == "Killed (signal 9)"
    assert run.code == 0


def test_a_torch_that_ignores_its_children_costs_nothing(deployed):
    deployed.torch("import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n__version__ = '2.2.0'\n")
    rows = [{**row, "torch": True} for row in table("needs_its_children", "killed")]
    deployed.items(item_row("torch.import", "checks_stub:fine"), *rows, checks=CHECKS)
    run = deployed.run()
    assert run.statuses() == {"torch.import": "pass", "needs_its_children": "pass", "killed": "crash"}
    assert run.end("killed")["evidence"] == "Killed (signal 9)"


TAKES_THE_STATUS = """
import os
real = os.waitid
def waitid(*rest):
    ended = real(*rest)
    if ended is not None:
        os.waitpid(rest[1], 0)
        raise ChildProcessError(10, "No child processes")
os.waitid = waitid
"""


def test_a_status_that_somebody_else_took_is_unknown_and_ends_nothing(deployed):
    deployed.items(*table("fine", "killed"), item_row("after", "checks_stub:fine"), checks=CHECKS)
    (deployed.site / "sitecustomize.py").write_text(TAKES_THE_STATUS)
    run = deployed.run()
    assert run.statuses() == {"fine": "pass", "killed": "crash", "after": "pass"}
    assert run.end("killed")["evidence"] == "the process ended without a result, and somebody else took its exit code"


MANY_FILES = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for _ in range(1100):
    os.dup(2)
"""


def test_more_than_a_thousand_open_files_do_not_matter(deployed):
    deployed.items(*table("fine", "killed"), checks=CHECKS)
    (deployed.site / "sitecustomize.py").write_text(MANY_FILES)
    run = deployed.run()
    assert run.statuses() == {"fine": "pass", "killed": "crash"}
    assert run.code == 0


NO_PROCESS = """
import os
real, calls = os.NAME, []
def refused():
    calls.append(1)
    if len(calls) == 1:
        raise OSError(11, "Resource temporarily unavailable")
    return real()
os.NAME = refused
"""


@pytest.mark.parametrize("name", ["fork", "pipe"])
def test_a_process_that_cannot_be_started_costs_one_item(deployed, name):
    deployed.items(*with_after("fine"), checks=CHECKS)
    (deployed.site / "sitecustomize.py").write_text(NO_PROCESS.replace("NAME", name))
    run = deployed.run()
    assert run.statuses() == {"fine": "crash", "after": "pass"}
    words = "no process could be started for it: [Errno 11] Resource temporarily unavailable"
    assert run.end("fine")["evidence"] == words
    assert run.code == 0


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ({"status": "pass", "device": "cpu"}, "skip"),
        ({"status": "pass", "device": "cuda:0"}, "pass"),
        ({"status": "fail", "device": "cpu"}, "pass"),  # nobody knows yet that there is no card
    ],
)
def test_what_only_a_card_can_do_starts_no_process_without_one(deployed, tmp_path, first, status):
    started = tmp_path / "started"
    deployed.items(
        item_row("first-kernel", "checks_stub:first"),
        item_row("on-card", "checks_stub:on_card", gpu=True),
        checks=f"""
from .context import passed, result

def first(context):
    return result({first["status"]!r}, "it", device={first["device"]!r})

def on_card(context):
    open({str(started)!r}, "w").close()
    return passed("it ran")
""",
    )
    run = deployed.run()
    assert run.end("on-card")["status"] == status
    assert started.exists() == (status == "pass")
    if status == "skip":
        assert (run.end("on-card")["summary"], run.end("on-card")["device"]) == ("needs a GPU", "cpu")
