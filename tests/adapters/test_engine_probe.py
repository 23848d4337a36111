"""Looking at container toolkit and engine: a machine of files and scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cuda_matrix.adapters import engine_probe, host_probe
from cuda_matrix.adapters.looks import look
from cuda_matrix.engine_rules import judge_engine
from cuda_matrix.examination import EngineSeen, HostSeen, HostStep
from host_machine import DRIVER, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path).with_card()


def steps(machine: Machine, need_bytes: int | None = None, limit_s: float = 5.0) -> dict[str, HostStep]:
    programs = machine.programs(limit_s)
    looks = host_probe.probes(machine.root, programs) | engine_probe.probes(machine.root, programs)
    found: dict[str, Any] = look(looks, host_probe.unseen() | engine_probe.unseen(), 2 * limit_s + 2)
    host = HostSeen(**{name: value for name, value in found.items() if name in HostSeen.model_fields})
    engine = EngineSeen(**{name: value for name, value in found.items() if name in EngineSeen.model_fields})
    return {step.id: step for step in judge_engine(engine, host, need_bytes)}


def test_a_machine_in_good_order(machine: Machine) -> None:
    found = steps(machine.with_toolkit().with_docker(), need_bytes=1000)
    assert {id_: step.status for id_, step in found.items()} == dict.fromkeys(found, "ok")
    assert "nvidia-container-cli 1.17.4" in found["toolkit"].seen
    assert found["daemon"].seen == "Docker Engine 28.2.2, Debian GNU/Linux 12 (bookworm)"
    assert found["runtime"].seen == "runtimes nvidia, runc; default runc"
    assert found["cgroup"].seen == "cgroupfs, cgroup v2"
    assert found["shm"].seen.startswith("64 MiB")


def test_a_machine_without_docker_says_so(machine: Machine) -> None:
    found = steps(machine.with_toolkit())
    assert found["docker"].why == "there is no docker on this machine's PATH"
    assert {found[id_].status for id_ in ("docker", "daemon", "runtime", "cgroup", "disk")} == {"not-seen"}
    assert found["toolkit"].status == "ok"


def test_a_daemon_that_does_not_run(machine: Machine) -> None:
    machine.docker(info="echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1")
    daemon = steps(machine)["daemon"]
    assert (daemon.status, daemon.cause, daemon.node) == ("problem", "docker-daemon-down", "engine")


def test_a_client_that_describes_itself_alone_is_no_daemon(machine: Machine) -> None:
    said = {"ID": "", "ServerErrors": ["Cannot connect to the Docker daemon."], "ClientInfo": {"Version": "28"}}
    machine.docker(info=f"echo '{json.dumps(said)}'")
    daemon = steps(machine)["daemon"]
    assert daemon.status == "problem"
    assert "Cannot connect" in daemon.seen


def test_a_client_that_fails_and_describes_itself_is_no_daemon(machine: Machine) -> None:
    said = {"ServerErrors": ["Cannot connect to the Docker daemon at tcp://10.0.0.1:2375."], "ClientInfo": {}}
    machine.file("var/run/docker.sock", "")
    machine.docker(info=f"echo '{json.dumps(said)}'; exit 1")
    daemon = steps(machine)["daemon"]
    assert (daemon.status, daemon.cause) == ("problem", "docker-daemon-down")
    assert "tcp://10.0.0.1:2375" in daemon.seen
    assert "ClientInfo" not in daemon.seen


def test_a_socket_that_this_account_may_not_use(machine: Machine) -> None:
    machine.docker(info="echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1")
    daemon = steps(machine)["daemon"]
    assert daemon.cause == "docker-sock-permission"
    assert "usermod -aG docker" in daemon.do


def test_a_group_that_came_after_the_login(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.docker(info="echo 'permission denied' >&2; exit 1")
    monkeypatch.setattr(engine_probe, "_user", lambda: "somebody")
    machine.file("etc/group", "root:x:0:\ndocker:x:64999:other,somebody\n")
    assert "log out and in" in steps(machine)["daemon"].do


def test_a_hanging_docker_holds_nobody_up(machine: Machine) -> None:
    machine.with_toolkit().hangs("docker")
    found = steps(machine, limit_s=0.5)
    assert found["daemon"].status == "problem"
    assert "no answer" in found["daemon"].seen
    assert found["toolkit"].status == "ok"


def test_other_things_under_docker_s_name(machine: Machine) -> None:
    machine.program("docker", 'case "$1" in --version) echo "podman version 4.3.1";; *) exit 125;; esac')
    docker = steps(machine)["docker"]
    assert docker.status == "warn"
    assert "Podman" in docker.seen
    machine.with_docker()
    snap = machine.file("snap", "x")
    snap.write_text((machine.bin / "docker").read_text())
    snap.chmod(0o755)
    (machine.bin / "docker").unlink()
    (machine.bin / "docker").symlink_to(snap)
    assert "snap" in steps(machine)["docker"].seen


def test_rootless_is_said(machine: Machine) -> None:
    daemon = steps(machine.with_docker(SecurityOptions=["name=rootless"]))["daemon"]
    assert daemon.status == "warn"
    assert "no-cgroups" in daemon.do


def test_no_toolkit(machine: Machine, tmp_path: Path) -> None:
    toolkit = steps(machine.with_docker())["toolkit"]
    assert (toolkit.status, toolkit.cause) == ("problem", "toolkit-missing")
    bare = steps(Machine(tmp_path / "bare").with_docker(Runtimes={"runc": {}}))
    assert bare["toolkit"].status == "not-seen"
    assert bare["runtime"].status == "ok"


def test_a_toolkit_older_than_cgroup_v2(machine: Machine) -> None:
    machine.with_toolkit("1.7.0")
    assert steps(machine.with_docker())["toolkit"].cause == "cgroup-v2-toolkit"
    assert steps(machine.with_docker(CgroupVersion="1"))["toolkit"].status == "ok"


def test_a_runtime_that_is_not_registered(machine: Machine) -> None:
    machine.with_docker(Runtimes={"runc": {}})
    runtime = steps(machine)["runtime"]
    assert (runtime.status, runtime.cause) == ("problem", "toolkit-not-registered")
    machine.file("etc/docker/daemon.json", json.dumps({"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}))
    assert "not restarted" in steps(machine)["runtime"].seen
    runtime = steps(machine.with_toolkit())["runtime"]
    assert runtime.status == "warn"
    assert "by the hook" in runtime.seen


def test_a_client_that_describes_itself_and_says_on_stderr_why_no_daemon_answers(machine: Machine) -> None:
    machine.docker(info="echo '{\"ClientInfo\": {}}'; echo 'Cannot connect to the Docker daemon at x' >&2; exit 1")
    daemon = steps(machine)["daemon"]
    assert (daemon.status, daemon.cause) == ("problem", "docker-daemon-down")
    assert "Cannot connect to the Docker daemon at x" in daemon.seen


def test_no_cdi_specification_is_nothing_to_worry_about_and_says_so(machine: Machine) -> None:
    cdi = steps(machine.with_docker())["cdi"]
    assert (cdi.status, cdi.seen) == ("ok", "none of NVIDIA's; `--gpus` works without them")


def test_cdi_specifications_of_another_driver(machine: Machine) -> None:
    machine.with_docker()
    spec = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n- hostPath: /usr/lib/libcuda.so.{}\n"
    machine.file("etc/cdi/nvidia.yaml", spec.format(DRIVER))
    assert steps(machine)["cdi"].status == "ok"
    machine.file("etc/cdi/nvidia.yaml", spec.format("535.129.03"))
    cdi = steps(machine)["cdi"]
    assert (cdi.status, cdi.cause) == ("warn", "cdi-unresolved")
    assert "535.129.03" in cdi.seen


def test_a_specification_that_may_not_be_read_is_not_none(machine: Machine) -> None:
    (machine.with_docker().root / "etc/cdi/nvidia.yaml").mkdir(parents=True)  # refused even to root
    cdi = steps(machine)["cdi"]
    assert (cdi.status, cdi.why) == ("not-seen", "this account may not read /etc/cdi/nvidia.yaml")


def test_the_cgroup_driver_that_a_reload_makes_forget_the_cards(machine: Machine) -> None:
    machine.with_docker(CgroupDriver="systemd")
    machine.file("dev/char/1:3", "")
    assert steps(machine)["cgroup"].cause == "cgroup-device-lost"
    machine.file("dev/char/195:0", "")
    assert steps(machine)["cgroup"].status == "ok"


def test_the_disk_against_the_image(machine: Machine) -> None:
    machine.with_docker()
    assert steps(machine, need_bytes=10**18)["disk"].cause == "disk-full"
    assert steps(machine, need_bytes=1)["disk"].status == "ok"


@pytest.mark.parametrize(
    ("info", "words"),
    [({"Name": "elsewhere"}, "another machine"), ({"OperatingSystem": "Docker Desktop"}, "virtual machine")],
)
def test_of_a_daemon_elsewhere_this_machine_s_files_say_nothing(
    machine: Machine, info: dict[str, str], words: str
) -> None:
    # Without a toolkit here, and with a stale specification and no /dev/char: none of it is the daemon's.
    machine.file("etc/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n- hostPath: /usr/lib/libcuda.so.535.129.03\n")
    machine.file("dev/char/1:3", "")
    found = steps(machine.with_docker(CgroupDriver="systemd", Runtimes={"runc": {}}, **info))
    for id_ in ("disk", "toolkit", "runtime", "cdi", "shm"):
        assert (id_, found[id_].status) == (id_, "not-seen")
        assert words in found[id_].why
    assert found["cgroup"].status == "ok"
    assert steps(machine.with_docker(**info))["runtime"].status == "ok"


def test_a_full_disk_of_containerd_is_seen(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    theirs = machine.root / "var/lib/containerd"
    free = engine_probe._space(machine.root)[0]
    assert free is not None
    monkeypatch.setattr(engine_probe, "_space", lambda path: (10, 10) if path == theirs else (free, free))
    assert steps(machine.with_docker(**store), need_bytes=11)["disk"].cause == "disk-full"
    assert steps(machine.with_docker(), need_bytes=11)["disk"].status == "ok"


def test_a_daemon_json_that_is_none(machine: Machine) -> None:
    machine.file("etc/docker/daemon.json", '{"default-shm-size": "8G"}')
    assert steps(machine)["shm"].why == "the daemon did not answer"
    machine.with_docker().file("etc/docker/daemon.json", "{")
    assert steps(machine)["shm"].status == "not-seen"
    machine.file("etc/docker/daemon.json", '{"default-shm-size": "8G"}')
    assert steps(machine)["shm"].seen.startswith("8G unless")


def test_a_daemon_json_that_cannot_be_read(machine: Machine) -> None:
    # A folder, as `docker run --volume` leaves it: the system refuses to read it even for root.
    (machine.with_docker().root / "etc/docker/daemon.json").mkdir(parents=True)
    assert "cannot be read" in steps(machine)["shm"].why


def test_hostile_answers_of_the_daemon(machine: Machine) -> None:
    machine.file("etc/docker/daemon.json", '{"runtimes": 5, "default-shm-size": ["x"]}')
    machine.with_docker(Runtimes=["x"], SecurityOptions=None, CDISpecDirs=[1, "../.."], DockerRootDir=["a"])
    found = steps(machine)
    assert found["daemon"].status == "ok"
    assert found["disk"].status == "not-seen"
