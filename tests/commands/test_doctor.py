"""The verb `doctor`: the whole visit on machines of files and scripts, and on this machine as it is."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from builders import make_diagnosis, make_result
from cuda_matrix.adapters.engine_probe import TOOLS
from cuda_matrix.cli import run
from cuda_matrix.commands import doctor
from cuda_matrix.commands.doctor import Options, Visit, examine
from cuda_matrix.commands.doctor_image import run_step
from cuda_matrix.model import Verdict
from cuda_matrix.redaction import Identity
from host_machine import CARD_UUID, DRIVER, XID, Machine

NOBODY = Identity()
INSPECT = {
    "Id": "sha256:" + "0" * 64,
    "Os": "linux",
    "Architecture": "amd64",
    "Size": 7_600_000_000,
    "Config": {"Env": ["PYTORCH_VERSION=2.2.0", "NVIDIA_REQUIRE_CUDA=cuda>=12.1", "CUDA_VERSION=12.1.0"]},
}
IMAGE = "pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime"


def options(image: str | None = None, **values: bool) -> Options:
    return Options(**{"image": image, "as_json": False, "no_run": False, "offline": True, **values})  # type: ignore[arg-type]


def visited(machine: Machine, image: str | None = None, **values: bool) -> Visit:
    return examine(options(image, **values), machine.root, machine.environ)


def document(visit: Visit, image: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(doctor._document(visit, options(image), NOBODY))
    return made


def end(visit: Visit) -> str:
    assert visit.way is not None
    return visit.way.leaf or visit.way.steps[-1].node


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path).with_card().with_toolkit().with_docker()


def roomy(machine: Machine) -> Machine:
    """Whether this very disk has 20 GB is not what a test should hang on."""
    machine.with_docker(Name="elsewhere")
    return machine


def test_a_machine_in_good_order_has_nothing_against_it(machine: Machine) -> None:
    visit = visited(machine)
    assert [step.id for step in visit.steps if step.status == "problem"] == []
    if next(step for step in visit.steps if step.id == "disk").status == "ok":
        assert end(visit) == "nothing-against-it"


def test_what_was_not_seen_ends_the_way(machine: Machine) -> None:
    visit = visited(roomy(machine))
    assert end(visit) == "room"
    assert visit.way is not None
    assert not visit.way.found
    assert visit.way.end.startswith("Not seen")


@pytest.mark.parametrize(
    ("break_it", "leaf", "problem"),
    [
        (lambda m: m.without(*TOOLS), "toolkit-out-of-order", "toolkit"),
        (lambda m: m.says("nvidia-smi", "Failed to initialize NVML: Driver/library version mismatch", 18),
         "host-driver-out-of-order", "smi"),
        (lambda m: m.says("journalctl", XID.format(79)), "card-out-of-order", "xid"),
        (lambda m: m.docker(info="echo 'Cannot connect to the Docker daemon' >&2; exit 1"), "no-engine", "daemon"),
    ],
)  # fmt: skip
def test_a_problem_is_found_and_is_where_the_way_ends(machine: Machine, break_it: Any, leaf: str, problem: str) -> None:
    break_it(machine)
    visit = visited(machine)
    assert [step.id for step in visit.steps if step.status == "problem"] == [problem]
    disk = next(step for step in visit.steps if step.id == "disk")
    if leaf == "no-engine" or disk.status == "ok":
        assert end(visit) == leaf


def test_a_machine_without_a_card_is_told_so_and_that_is_no_problem_of_it(tmp_path: Path) -> None:
    visit = visited(Machine(tmp_path))
    text = doctor._text(visit, options(), NOBODY)
    assert "none seen  NVIDIA cards on the bus: no NVIDIA card on this machine" in text
    assert "PROBLEM" not in text
    assert text.splitlines()[-1].startswith("no problem found; none seen: card; not seen: driver, ")
    assert document(visit)["problems"] == []
    assert end(visit) == "engine"  # no Docker either: nobody could be asked
    assert visit.known["has-card"].answer == "no"  # the tree knows it all the same


def test_a_dead_daemon_is_a_problem_with_and_without_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Machine(tmp_path)
    bare.docker(info="echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert document(visited(bare))["problems"] == ["daemon"]
    monkeypatch.setenv("PATH", str(bare.bin))
    assert run(["doctor"]) == 1


def test_an_image_for_a_card_asks_for_one_and_an_image_for_the_cpu_does_not(tmp_path: Path) -> None:
    bare = Machine(tmp_path).with_docker()
    bare.docker_image(INSPECT)
    assert "card" in document(visited(bare, IMAGE, no_run=True), IMAGE)["problems"]
    bare.docker_image({**INSPECT, "Config": {"Env": []}})
    cpu = "pytorch/torchserve:0.12.0-cpu"
    assert visited(bare, cpu, no_run=True).steps[0].status == "none"


def test_everything_hangs_and_it_ends_all_the_same(machine: Machine) -> None:
    for name in (
        "nvidia-smi",
        "docker",
        "journalctl",
        "dmesg",
        "modinfo",
        "nvidia-ctk",
        "nvidia-container-cli",
        "lspci",
    ):
        machine.hangs(name)
    begin = time.monotonic()
    visit = visited(machine, IMAGE)
    assert time.monotonic() - begin < 15
    found = {step.id: step for step in visit.steps}
    assert found["smi"].status == "problem"
    assert found["daemon"].status == "problem"
    assert found["xid"].status == "not-seen"
    assert found["card"].status == "ok"
    assert "no answer within" in found["daemon"].seen


def test_an_image_that_docker_holds_is_predicted(machine: Machine) -> None:
    machine.docker_image(INSPECT)
    visit = visited(machine, IMAGE, no_run=True)
    found = {step.id: step for step in visit.steps}
    assert found["image"].status == "ok"
    assert "on this machine, 7.6 GB" in found["image"].seen
    assert "torch 2.2.0" in found["image"].seen
    assert visit.prediction is not None
    assert visit.prediction.verdict in {"pass", "warn"}
    assert found["run"].why == "left out (--no-run)"


def test_an_image_too_new_for_the_driver_is_a_problem(tmp_path: Path) -> None:
    old = Machine(tmp_path).with_card("470.129.06").with_toolkit().with_docker()
    old.docker_image(INSPECT)
    visit = visited(old, IMAGE, no_run=True)
    found = {step.id: step for step in visit.steps}
    assert found["prediction"].status == "problem"
    assert found["prediction"].cause in {"driver-too-old", "image-require-unsatisfied"}


def test_an_image_that_is_not_here_is_not_pulled(machine: Machine) -> None:
    found = {step.id: step for step in visited(machine, IMAGE).steps}
    assert found["image"].status == "not-seen"
    assert "--offline" in found["image"].why
    assert "nothing is pulled" in found["run"].why
    assert found["prediction"].status != "not-seen"  # the tag tells enough


def test_an_image_that_nobody_could_ask_for_is_not_called_absent(machine: Machine) -> None:
    machine.docker(info="exit 1", image="echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    found = {step.id: step for step in visited(machine, IMAGE).steps}
    assert "not on this machine" not in found["image"].why
    assert "whether Docker holds it was not seen" in found["image"].why
    assert "Cannot connect" in found["image"].why
    bare = {step.id: step for step in visited(machine.without("docker"), IMAGE).steps}
    assert "there is no docker on this machine's PATH" in bare["image"].why


@pytest.mark.parametrize(
    ("asks", "cause", "leaf"),
    [("false", "image-require-unsatisfied", "request-unmet"), ("true", "driver-too-old", "driver-old")],
)
def test_a_predicted_failure_is_where_the_way_ends(tmp_path: Path, asks: str, cause: str, leaf: str) -> None:
    old = Machine(tmp_path).with_card("470.129.06").with_toolkit().with_docker()
    old.docker_image({**INSPECT, "Config": {"Env": ["CUDA_VERSION=12.1.0", f"NVIDIA_DISABLE_REQUIRE={asks}"]}})
    visit = visited(old, IMAGE, no_run=True)
    assert visit.prediction is not None
    assert visit.prediction.cause == cause
    assert visit.way is not None
    assert (visit.way.leaf, visit.way.end.rpartition(": ")[2]) == (leaf, cause)
    assert {step.how for step in visit.way.steps} == {"seen", "as predicted"}
    # What is wrong with the machine itself comes first.
    visit = visited(old.without(*TOOLS), IMAGE, no_run=True)
    if next(step for step in visit.steps if step.id == "disk").status == "ok":
        assert end(visit) == "toolkit-out-of-order"


def test_a_card_that_the_driver_dropped_is_not_nothing(machine: Machine) -> None:
    machine.with_card("590.44.01").says("nvidia-smi", "0, Tesla V100-SXM2-16GB, 590.44.01, 7.0")
    visit = visited(machine, IMAGE, no_run=True)
    assert visit.prediction is not None
    assert (visit.prediction.verdict, visit.prediction.cause) == ("host-failed", None)
    assert visit.way is not None
    assert visit.way.end == f"Predicted not to work, by rule {visit.prediction.rule}"
    assert not visit.way.leaf


def test_an_image_for_another_cpu_is_not_for_this_machine(machine: Machine) -> None:
    machine.docker_image({**INSPECT, "Architecture": "s390x"})
    visit = visited(machine, IMAGE, no_run=True)
    assert visit.prediction is not None
    assert visit.prediction.cause == "platform-mismatch"
    exists = visit.known["exists"]
    assert (exists.answer, "s390x" in exists.evidence) == ("no", True)


class Daemon(ThreadingHTTPServer):
    """Docker's API as far as a container's creation, which it refuses. `asked`: method and path of every request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Api)


class _Api(BaseHTTPRequestHandler):
    def answer(self) -> None:
        assert isinstance(self.server, Daemon)
        path = unquote(self.path.partition("?")[0].partition("/v1.45")[2] or self.path)
        self.server.asked.append(f"{self.command} {path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        documents: dict[str, Any] = {
            "/version": {"ApiVersion": "1.45", "Version": "26.0"},
            "/info": {"MemTotal": 1 << 34},
            "/containers/json": [],
            f"/images/{PINNED}/json": {**INSPECT, "RepoDigests": [PINNED]},
        }
        refused = {"message": "could not select device driver"}
        code, document = (200, documents[path]) if path in documents else (500, refused)
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - names that the base class looks for

    def log_message(self, *_: object) -> None:
        """Silence."""


PINNED = "pytorch/pytorch@sha256:" + "ab" * 32


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_image_that_is_held_is_what_runs_and_nobody_asks_what_its_tag_is_now(
    machine: Machine, daemon: Daemon
) -> None:
    machine.docker_image({**INSPECT, "RepoDigests": ["?", PINNED]})
    machine.environ["DOCKER_HOST"] = f"tcp://127.0.0.1:{daemon.server_port}"
    visit = visited(machine, IMAGE)
    assert visit.result is not None
    assert visit.result.image.digest == PINNED.partition("@")[2]
    assert f"GET /images/{PINNED}/json" in daemon.asked
    assert "POST /containers/create" in daemon.asked
    assert not [each for each in daemon.asked if "/distribution/" in each or "/images/create" in each]
    run_ = next(step for step in visit.steps if step.id == "run")
    assert (run_.status, "could not select device driver" in visit.result.diagnosis.evidence) == (  # type: ignore[union-attr]
        "problem",
        True,
    )


def test_a_run_without_an_answer_blames_nobody() -> None:
    result = make_result("image@this-machine", Verdict.INCONCLUSIVE, diagnosis=make_diagnosis("cell-timeout"))
    step = run_step(result, "")
    assert (step.status, step.cause) == ("not-seen", "cell-timeout")
    assert step.why.startswith("inconclusive")


def test_a_daemon_that_goes_away_before_the_run_takes_nothing_with_it(machine: Machine) -> None:
    machine.docker_image(INSPECT)
    machine.environ["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    visit = visited(machine, IMAGE)
    run_ = next(step for step in visit.steps if step.id == "run")
    assert run_.status == "not-seen"
    assert "127.0.0.1:9" in run_.why
    assert visit.prediction is not None


def test_the_text_can_be_pasted(machine: Machine) -> None:
    secrets = ["ghp_abcdefghijklmnop1234", "mallory", "10.1.2.3", CARD_UUID, "gpu-box-17", "\x1b[31m"]
    machine.says("nvidia-smi", f"```\n</details> @octocat {' '.join(secrets)} /home/mallory/x\n```", 9)
    machine.with_docker(ServerVersion="28 ``` https://u:pw@h/ token=hunter2", Runtimes={"```\nend": {}})
    visit = visited(machine)
    text = doctor._text(visit, options(), Identity(user="mallory", home="/home/mallory", host="gpu-box-17"))
    lines = doctor._fenced(text).splitlines()
    assert (lines[0], lines[-1]) == ("```text", "```")
    assert not [line for line in lines[1:-1] if line.strip().startswith("```")]
    for secret in [*secrets, "hunter2", ":pw@"]:
        assert secret not in text
    shown = json.dumps(document(visit))
    assert CARD_UUID not in shown
    assert "hunter2" not in shown


def test_only_what_goes_into_a_file_or_a_pipe_is_fenced(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cuda_matrix", "doctor"]
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    piped = subprocess.run(command, capture_output=True, text=True, check=False, env=environ).stdout
    assert piped.startswith("```text\n")
    assert piped.endswith("\n```\n")
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL, env=environ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux ends a terminal without a writer with EIO
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        process.wait(timeout=30)
    os.close(ours)
    assert shown.startswith(b"cuda-matrix doctor ")
    assert b"```" not in shown


def test_a_registry_out_of_reach_leaves_what_the_tag_says(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", _nobody)
    machine.environ["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    ref = "registry.invalid:5000/team/pytorch:2.2.0"
    found = {step.id: step for step in visited(machine, ref, offline=False).steps}
    assert found["image"].status == "problem"
    assert found["image"].cause == "registry-unreachable"
    assert "https://registry.invalid:5000/v2/" in found["image"].do
    assert "<registry>" not in found["image"].do
    step = next(each for each in visited(machine, IMAGE, offline=False).steps if each.id == "image")
    assert step.seen.endswith("; by its tag: torch 2.2.0, CUDA 12.1, OS ubuntu22.04")
    assert "https://registry-1.docker.io/v2/" in step.do
    offline = next(each for each in visited(machine, IMAGE).steps if each.id == "image")
    assert offline.why.endswith("; by its tag: torch 2.2.0, CUDA 12.1, OS ubuntu22.04")


def _nobody(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_json_has_the_same_as_data(machine: Machine) -> None:
    machine.says("journalctl", XID.format(79))
    made = document(visited(machine))
    assert made["problems"] == ["xid"]
    steps = {step["id"]: step for step in made["steps"]}
    assert steps["driver"] == {
        "id": "driver",
        "title": "Kernel driver",
        "status": "ok",
        "seen": f"{DRIVER} is loaded",
        "why": "",
        "do": "",
        "cause": None,
    }
    assert made["way"]["steps"][0]["node"] == "works"


def test_on_this_machine_as_a_user_calls_it(tmp_path: Path) -> None:
    # No Docker and no nvidia-smi on the PATH: whatever this machine has, the verb works and says the truth of its bus.
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "cuda_matrix", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "USER": "somebody"},
    )
    assert time.monotonic() - begin < 15
    made = json.loads(done.stdout)
    assert done.returncode == (1 if made["problems"] else 0)
    assert socket.gethostname() not in json.dumps(made["steps"]) or len(socket.gethostname()) < 3
    vendors = [path.read_text().strip() for path in Path("/sys/bus/pci/devices").glob("*/vendor")]
    if vendors and "0x10de" not in vendors and not Path("/dev/dxg").exists():
        assert (made["steps"][0]["status"], made["problems"]) == ("none", [])


def test_what_is_no_image_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "Not An Image"]) == 2
    assert "hint" in capsys.readouterr().err


def test_the_whole_visit_leaves_no_process_behind(machine: Machine) -> None:
    machine.program("nvidia-smi", "exec sleep 613")
    visited(machine)
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _reads(path) == b"sleep\x00613\x00"]
    assert running == []


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
