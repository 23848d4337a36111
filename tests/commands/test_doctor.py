"""The verb `doctor`: the whole visit on machines of files and scripts, and on this machine as it is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cuda_matrix.adapters.engine_probe import TOOLS
from cuda_matrix.cli import run
from cuda_matrix.commands import doctor
from cuda_matrix.commands.doctor import Options, Visit, examine
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


def test_a_machine_without_a_card_is_told_so(tmp_path: Path) -> None:
    visit = visited(Machine(tmp_path))
    assert [step.id for step in visit.steps if step.status == "problem"] == ["card"]
    assert "no NVIDIA card on this machine" in doctor._text(visit, options(), NOBODY)
    assert end(visit) == "engine"  # no Docker either: nobody could be asked


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


def test_the_text_can_be_pasted(machine: Machine) -> None:
    secrets = ["ghp_abcdefghijklmnop1234", "mallory", "10.1.2.3", CARD_UUID, "gpu-box-17", "\x1b[31m"]
    machine.says("nvidia-smi", f"```\n</details> @octocat {' '.join(secrets)} /home/mallory/x\n```", 9)
    machine.with_docker(ServerVersion="28 ``` https://u:pw@h/ token=hunter2", Runtimes={"```\nend": {}})
    visit = visited(machine)
    text = doctor._text(visit, options(), Identity(user="mallory", home="/home/mallory", host="gpu-box-17"))
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("```text", "```")
    assert not [line for line in lines[1:-1] if line.strip().startswith("```")]
    for secret in [*secrets, "hunter2", ":pw@"]:
        assert secret not in text
    shown = json.dumps(document(visit))
    assert CARD_UUID not in shown
    assert "hunter2" not in shown


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
    has_card = made["steps"][0]["status"] != "problem"
    assert done.returncode == (1 if made["problems"] and has_card else 0)
    assert socket.gethostname() not in json.dumps(made["steps"]) or len(socket.gethostname()) < 3
    vendors = [path.read_text().strip() for path in Path("/sys/bus/pci/devices").glob("*/vendor")]
    if vendors and "0x10de" not in vendors and not Path("/dev/dxg").exists():
        assert made["problems"] == ["card"]


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
