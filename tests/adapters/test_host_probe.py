"""Looking at card and driver: a machine of files and scripts, in good order and in each kind of bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuda_matrix.adapters import host_probe
from cuda_matrix.adapters.looks import look
from cuda_matrix.examination import HostSeen, HostStep
from cuda_matrix.host_rules import judge_host
from cuda_matrix.reference import load_reference
from host_machine import CARD_ROW, CARD_UUID, DRIVER, NVRM_OPEN, XID, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def seen(machine: Machine, limit_s: float = 5.0) -> HostSeen:
    programs = machine.programs(limit_s)
    return HostSeen(**look(host_probe.probes(machine.root, programs), host_probe.unseen(), 2 * limit_s + 2))  # type: ignore[arg-type]


def steps(machine: Machine, limit_s: float = 5.0) -> dict[str, HostStep]:
    return {step.id: step for step in judge_host(seen(machine, limit_s), load_reference().xids)}


def test_a_machine_in_good_order(machine: Machine) -> None:
    found = steps(machine.with_card())
    assert {id_: step.status for id_, step in found.items()} == dict.fromkeys(found, "ok")
    assert found["card"].seen == "1: 0000:65:00.0 (10de:2204)"
    assert found["driver"].seen == f"{DRIVER} is loaded"
    assert found["smi"].seen == f"1: NVIDIA GeForce RTX 3090 (driver {DRIVER}, 8.6)"
    assert found["versions"].seen == f"{DRIVER} everywhere"
    assert found["xid"].seen == "none"
    assert CARD_UUID not in str(found)


def test_a_machine_without_a_card_has_no_problem_until_one_is_wanted_and_then_not_eight(machine: Machine) -> None:
    machine.pci("0000:00:02.0", vendor="0x8086")
    found = steps(machine)
    assert found.pop("card").status == "none"
    wanted = {step.id: step for step in judge_host(seen(machine), (), card_wanted=True)}
    assert [step.id for step in wanted.values() if step.status == "problem"] == ["card"]
    assert "Use a machine with a card" in wanted["card"].do
    assert {step.status for step in found.values()} == {"not-seen"}
    assert {step.why for step in found.values()} == {"no NVIDIA card on this machine"}


def test_a_bus_that_cannot_be_read_is_not_a_bus_without_cards(machine: Machine) -> None:
    machine.no_bus()
    card = steps(machine)["card"]
    assert card.status == "not-seen"
    assert card.why == "/sys/bus/pci/devices: No such file or directory; there is no lspci on this machine's PATH"


def test_lspci_stands_in_for_sys(machine: Machine) -> None:
    machine.with_card().no_bus()
    machine.says("lspci", "0000:65:00.0 0302: 10de:20b0 (rev a1)\n0000:c1:00.0 0680: 10de:1af1 (rev a1)\nnonsense")
    assert [device.kind for device in seen(machine).devices or ()] == ["card", "switch"]


def test_the_card_of_windows_counts(machine: Machine) -> None:
    machine.file("dev/dxg", "")
    machine.says("nvidia-smi", CARD_ROW.format(driver="560.94"))
    machine.says("journalctl", "hv_vmbus: registering driver")
    found = steps(machine)
    assert (found["card"].status, found["driver"].status, found["smi"].status) == ("ok", "ok", "ok")
    assert "WSL" in found["card"].seen


def test_a_card_of_windows_that_nvidia_smi_does_not_name_may_be_anybody_s(machine: Machine) -> None:
    machine.file("dev/dxg", "")
    machine.says("journalctl", "hv_vmbus: registering driver")
    found = steps(machine)
    assert not seen(machine).no_card
    assert {found[id_].status for id_ in ("card", "driver", "smi", "versions", "xid")} == {"not-seen"}
    assert "on Windows" in found["smi"].do
    machine.says("nvidia-smi", "Failed to initialize NVML: GPU access blocked by the operating system", 17)
    smi = steps(machine)["smi"]
    assert (smi.status, smi.cause) == ("problem", "wsl-gpu-unavailable")
    assert "on Windows" in smi.do


def test_the_open_module_has_a_version_too(machine: Machine) -> None:
    machine.with_card()
    machine.file("proc/driver/nvidia/version", NVRM_OPEN.format("570.86.15"))
    assert seen(machine).loaded == "570.86.15"


@pytest.mark.parametrize(
    ("modules", "secure", "installed", "words", "advice"),
    [
        ("ext4 1", None, None, "no NVIDIA driver is loaded", "Install"),
        ("nouveau 1", None, None, "nouveau holds the card", "blacklist"),
        ("ext4 1", b"\x06\0\0\0\1", DRIVER, "secure boot is on", "mokutil"),
        ("ext4 1", b"\x06\0\0\0\0", DRIVER, f"the module {DRIVER} is installed and not loaded", "modprobe"),
    ],
)
def test_a_driver_that_is_not_loaded(
    machine: Machine, modules: str, secure: bytes | None, installed: str | None, words: str, advice: str
) -> None:
    machine.pci("0000:65:00.0")
    machine.file("proc/modules", f"{modules} 0 - Live 0x0\n")
    if secure is not None:
        name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        machine.file(f"sys/firmware/efi/efivars/{name}", "").write_bytes(secure)
    machine.says("modinfo", installed or "modinfo: ERROR: Module nvidia not found.", 0 if installed else 1)
    driver = steps(machine)["driver"]
    assert (driver.status, driver.cause, driver.node) == ("problem", "host-driver-missing", "host-driver")
    assert words in driver.seen
    assert advice in driver.do


def test_an_upgraded_driver_whose_old_module_still_runs(machine: Machine) -> None:
    machine.with_card()
    for name in ("libcuda", "libnvidia-ml"):
        (machine.root / f"usr/lib/x86_64-linux-gnu/{name}.so.{DRIVER}").unlink()
        machine.file(f"usr/lib/x86_64-linux-gnu/{name}.so.550.90.07", "")
    machine.says(
        "nvidia-smi", "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90", 18
    )
    found = steps(machine)
    assert (found["smi"].status, found["smi"].cause) == ("problem", "driver-lib-mismatch")
    assert (found["versions"].status, found["versions"].cause) == ("problem", "driver-lib-mismatch")
    assert f"kernel module {DRIVER}" in found["versions"].seen
    assert "550.90.07" in found["versions"].seen


def test_libraries_that_an_earlier_driver_left_are_told(machine: Machine) -> None:
    machine.with_card().file("usr/lib/x86_64-linux-gnu/libcuda.so.470.57.02", "")
    versions = steps(machine)["versions"]
    assert (versions.status, versions.seen) == ("ok", f"{DRIVER}; also on disk: 470.57.02")


def test_a_hanging_nvidia_smi_is_a_problem_and_holds_nobody_up(machine: Machine) -> None:
    machine.with_card().hangs("nvidia-smi")
    smi = steps(machine, limit_s=0.5)["smi"]
    assert smi.status == "problem"
    assert "no answer within" in smi.seen


@pytest.mark.parametrize(
    ("text", "code", "cause"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9, None),
        (
            "Unable to determine the device handle for GPU0000:65:00.0: GPU is lost.  Reboot the system",
            15,
            "gpu-off-bus",
        ),
        ("No devices were found", 6, None),
        ("", 139, None),
        ("No devices were found", 0, None),
    ],
)
def test_nvidia_smi_that_fails(machine: Machine, text: str, code: int, cause: str | None) -> None:
    machine.with_card().says("nvidia-smi", text, code)
    smi = steps(machine)["smi"]
    assert (smi.status, smi.cause) == ("problem", cause)


def test_a_card_that_the_bus_has_and_nvidia_smi_has_not(machine: Machine) -> None:
    machine.with_card().pci("0000:b3:00.0")
    smi = steps(machine)["smi"]
    assert (smi.status, smi.cause) == ("warn", "gpu-off-bus")
    assert smi.seen.startswith("1 of 2 cards")


@pytest.mark.parametrize(
    ("numbers", "status", "cause"),
    [
        ((79,), "problem", "gpu-off-bus"),
        ((13, 43), "ok", None),
        ((48, 79), "problem", "gpu-off-bus"),
        ((9999,), "warn", None),
    ],
)
def test_xid_messages(machine: Machine, numbers: tuple[int, ...], status: str, cause: str | None) -> None:
    machine.with_card().says("journalctl", "\n".join(["usb 1-1: x", *(XID.format(number) for number in numbers)]))
    xid = steps(machine)["xid"]
    assert (xid.status, xid.cause) == (status, cause)
    assert all(f"1 of Xid {number}" in xid.seen for number in numbers)


def test_a_log_that_has_lost_its_beginning_says_so(machine: Machine) -> None:
    machine.with_card().says("journalctl", "[90000.1] usb 1-1: new device")
    xid = steps(machine)["xid"]
    assert (xid.status, xid.seen) == ("ok", "none, in what is left of the kernel's log")


def test_a_log_that_this_account_may_not_read_is_not_seen(machine: Machine) -> None:
    machine.with_card().says("journalctl", "")
    machine.program("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    xid = steps(machine)["xid"]
    assert xid.status == "not-seen"
    assert "Operation not permitted" in xid.why
    machine.says("dmesg", f"[   12.3] {XID.format(79)}")
    assert steps(machine)["xid"].cause == "gpu-off-bus"


def test_a_missing_uvm_module_and_node(machine: Machine) -> None:
    machine.with_card().file("proc/modules", "nvidia 1 1 - Live 0x0\n")
    (machine.root / "dev/nvidia-uvm").unlink()
    found = steps(machine)
    assert found["modules"].status == found["nodes"].status == "warn"
    assert "/dev/nvidia-uvm" in found["nodes"].seen


def test_an_nvswitch_needs_its_fabric_manager(machine: Machine) -> None:
    machine.with_card().pci("0000:c1:00.0", "0x1af1", "0x068000")
    assert (steps(machine)["fabric"].status, steps(machine)["fabric"].cause) == ("problem", "fabric-manager")
    machine.file("proc/4242/comm", "nv-fabricmanage\n")
    assert steps(machine)["fabric"].status == "ok"


def test_hostile_files_are_bounded(machine: Machine) -> None:
    machine.with_card()
    machine.file("proc/driver/nvidia/version", "NVRM version: " + "x" * (1 << 20))
    machine.says("nvidia-smi", "\n".join(f"0, {'A' * 5000}, {'9' * 500}, 8.6" for _ in range(500)))
    found = seen(machine)
    assert found.loaded is None
    assert len(found.named) == 64
    assert max(len(card.name) for card in found.named) <= 100
