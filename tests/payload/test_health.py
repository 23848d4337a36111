"""The health checks and `throttle`: pure verdicts, and runs of the payload on cards with exactly one fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import item_row
from cuda_matrix.payload import checks_health, kernel_log, telemetry
from cuda_matrix.protocol import payload_sources
from cuda_matrix.reference import load_reference
from fake_nvml import FakeNvml, compiled

# A torch whose products take 4 ms, and a first-kernel that says: cuda:0.
TORCH = """
import time

__version__ = "2.6.0"
version = None

class Tensor:
    device = "cuda:0"
    def to(self, device):
        return self
    def __getitem__(self, key):
        return self
    def reshape(self, *shape):
        return self
    def __matmul__(self, other):
        time.sleep(0.004)
        return self

def ones(*size, **keywords):
    return Tensor()

randn = ones

class cuda:
    is_initialized = staticmethod(lambda: False)
    @staticmethod
    def synchronize(device=None):
        pass
    @staticmethod
    def device_count():
        return 1
"""
CHECKS = """
import os
from .context import passed

def begin(context):
    from . import nvml
    library, reason = nvml.open_library()
    if library is not None:
        with library:
            context.keep("nvml.before", nvml.snapshot(library))
    return passed("begun")

def log(context):
    with open(os.environ["CM_KERNEL_LOG"], "a") as stream:
        stream.write(os.environ.get("CM_KERNEL_SAYS", ""))
    return passed("logged")

def first_kernel(context):
    return passed("on the card", device="cuda:0")

def saw(context):
    summary = {"busy_samples": 2, "throttle_share": 0.0, "pcie_generation_seen": 4, "pcie_width_seen": 16}
    for bit in ("sw_power_cap", "hw_slowdown", "sw_thermal", "hw_thermal", "power_brake"):
        summary["share_" + bit] = 0.0
    context.keep("telemetry.gemm.fp32", summary)
    return passed("measured")

def neighbour(context):
    return passed("fine")
"""
BEFORE = "6,100,5000000,-;NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.\n"  # long ago: not ours
HEALTHY = {
    "health.ecc": "pass",
    "health.remap": "pass",
    "health.link": "pass",
    "health.xid-host": "pass",
    "throttle": "skip",
    "neighbour": "pass",
}


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake(library_folder, tmp_path):
    return FakeNvml(library_folder, tmp_path)


@pytest.fixture
def health(deployed, fake, tmp_path):
    """Run the five checks after a beginning; `card`: on a stub torch's card."""
    rows = {row["id"]: row for row in json.loads(payload_sources(load_reference())["items.json"])["items"]}
    log = tmp_path / "kmsg"
    source = Path(kernel_log.__file__).read_text()
    assert source.count('"/dev/kmsg"') == 1
    deployed.module("kernel_log", source.replace('"/dev/kmsg"', repr(str(log))))

    def run(*lines, card=False, says="", extra=(), **variables):
        chosen = [item_row("begin", "checks_stub:begin"), item_row("log", "checks_stub:log")]
        if card:
            deployed.torch(TORCH)
            chosen += [item_row("torch.import", "checks_torch:imported", limit_s=20)]
            chosen += [item_row("first-kernel", "checks_stub:first_kernel", needs=["torch.import"])]
        chosen += [*extra, *(rows[name] for name in HEALTHY if name in rows)]
        deployed.items(*chosen, item_row("neighbour", "checks_stub:neighbour"), checks=CHECKS)
        log.write_text(BEFORE)
        kernel = {"CM_KERNEL_LOG": str(log), "CM_KERNEL_SAYS": says}
        return deployed.run(env={**fake.set(*lines).environment, **kernel, **variables})

    return run


def statuses(run):
    return {name: status for name, status in run.statuses().items() if name in HEALTHY}


def test_a_healthy_card_passes(health):
    run = health()
    assert statuses(run) == HEALTHY
    assert run.end("health.ecc")["numbers"]["uncorrected_delta"] == 0
    assert run.end("health.ecc")["thresholds"] == {"uncorrected_delta": 0}
    assert run.end("throttle")["summary"] == "needs a GPU"


XID = "3,101,9000000,-;NVRM: Xid (PCI:0000:01:00): {}, pid=77, name=python, what happened\n"
LATER = "[after 1]"  # the beginning has initialised NVML once


@pytest.mark.parametrize(
    ("lines", "says", "check", "status", "cause"),
    [
        ([LATER, "ecc_uncorrected 2"], "", "health.ecc", "fail", "gpu-ecc"),
        ([LATER, "ecc_uncorrected_ever 1"], "", "health.ecc", "fail", "gpu-ecc"),
        (["ecc_uncorrected 2"], "", "health.ecc", "warn", None),
        (["ecc !3"], "", "health.ecc", "skip", None),
        (["ecc !999"], "", "health.ecc", "unknown", None),
        (["rows_pending 1"], "", "health.remap", "warn", None),
        (["pages_pending 1"], "", "health.remap", "warn", None),
        (["rows_failed 1"], "", "health.remap", "fail", "gpu-ecc"),
        (["rows_uncorrectable 512"], "", "health.remap", "fail", "gpu-ecc"),
        (["pages 63"], "", "health.remap", "fail", "gpu-ecc"),
        (["rows !3", "pages !3", "pages_pending !3"], "", "health.remap", "skip", None),
        ([LATER, "pcie_replays 9"], "", "health.link", "warn", None),
        (["nvlinks 4", LATER, "nvlinks_active 3"], "", "health.link", "warn", None),
        (["nvlinks 12", "nvlinks_active 4"], "", "health.link", "warn", None),
        (["pcie_generation 1"], "", "health.link", "unknown", None),  # idle, and nothing to load it with
        ([LATER, "pcie_generation !15"], "", "health.link", "fail", "gpu-off-bus"),
        ([], XID.format(48), "health.xid-host", "fail", "gpu-ecc"),
        ([], XID.format(79), "health.xid-host", "fail", "gpu-off-bus"),
        ([], XID.format(119), "health.xid-host", "fail", "gpu-hardware-fault"),
        ([], XID.format(154), "health.xid-host", "warn", None),
    ],
)
def test_each_fault_is_seen_by_its_check_alone(health, lines, says, check, status, cause):
    run = health(*lines, says=says)
    assert statuses(run) == {**HEALTHY, check: status}
    end = run.end(check)
    assert end.get("cause") == cause
    if status == "fail":
        assert end["evidence"]


def test_what_others_do_is_no_fault_of_this_card(health):
    said = (
        XID.format(31)
        + XID.format(43)
        + XID.format(79).replace("0000:01", "0000:02")
        + "4,9,9000000,-;usb 1-1: reset\n"
    )
    run = health("nvlinks 4", "nvlinks_active 0", LATER, "pcie_replays 8", "ecc_corrected 50", says=said)
    assert statuses(run) == HEALTHY
    assert run.end("health.xid-host")["numbers"] == {"xids": 2, "xids_of_programs": 2}
    assert run.end("health.ecc")["numbers"]["corrected_delta"] == 50


def test_a_card_that_is_lost_in_the_run_fails_the_link_and_leaves_the_rest_unknown(health):
    run = health(LATER, "handle !15")
    lost = {**HEALTHY, "health.ecc": "unknown", "health.remap": "unknown", "health.link": "fail"}
    assert statuses(run) == lost
    assert run.end("health.link")["cause"] == "gpu-off-bus"
    assert "GPU is lost" in run.end("health.link")["evidence"]


def test_nvml_that_fails_later_is_unknown_and_one_that_is_absent_is_skipped(health, tmp_path):
    late = health(LATER, "init 999")
    assert statuses(late) == {**HEALTHY, **dict.fromkeys(("health.ecc", "health.remap", "health.link"), "unknown")}
    assert late.end("health.ecc")["evidence"] == "Failed to initialize NVML: Unknown Error"
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    absent = health(LD_LIBRARY_PATH=str(tmp_path))
    gone = ("health.ecc", "health.remap", "health.link", "health.xid-host")
    assert statuses(absent) == {**HEALTHY, **dict.fromkeys(gone, "skip")}


def test_a_hanging_nvml_costs_each_check_its_time_and_the_neighbour_nothing(deployed, fake):
    rows = [
        item_row("health.ecc", "checks_health:ecc", limit_s=1, group="health"),
        item_row("health.remap", "checks_health:remap", limit_s=1, group="health"),
        item_row("neighbour", "checks_stub:neighbour"),
    ]
    deployed.items(*rows, checks=CHECKS)
    run = deployed.run(env=fake.set("hang DeviceGetTotalEccErrors").environment)
    assert run.statuses() == {"health.ecc": "timeout", "health.remap": "timeout", "neighbour": "pass"}


def test_on_a_card_the_link_is_loaded_and_the_clocks_are_watched(health):
    run = health("pcie_generation 1,1,4", card=True)  # the link rises only with work
    assert statuses(run) == {**HEALTHY, "throttle": "pass"}, run.end("throttle")
    link = run.end("health.link")["numbers"]
    assert (link["under_load"], link["pcie_generation"], link["pcie_generation_max"]) == (True, 4, 4)
    assert run.end("throttle")["numbers"]["worst"] == "load"
    assert run.end("throttle")["numbers"]["busy_samples"] >= 10


@pytest.mark.parametrize(
    ("lines", "check", "status"),
    [
        (["events 0x20"], "throttle", "warn"),
        (["events 0x8,0,0,0"], "throttle", "warn"),
        (["events 0x4"], "throttle", "pass"),  # the power limit is only noted
        (["events 0x1"], "throttle", "skip"),  # an idle card's events are of no work
        (["events !3"], "throttle", "skip"),
        (["pcie_generation 3"], "health.link", "warn"),
        (["pcie_width 8"], "health.link", "warn"),
    ],
)
def test_each_fault_under_load_is_seen_by_its_check_alone(health, lines, check, status):
    run = health(*lines, card=True)
    assert statuses(run) == {**HEALTHY, "throttle": "pass", check: status}
    if lines == ["events 0x4"]:
        assert run.end("throttle")["summary"].endswith("at the power limit 100% of the time")
    if lines == ["events 0x20"]:
        assert run.end("throttle")["evidence"] == "event reasons: sw_thermal 100.0%"


# ---- pure verdicts ----

THROTTLE = {"throttle_share": 0.01, "invalid_share": 0.10, "busy_samples": 10}


def watched(*masks):
    base = dict.fromkeys(("sm_clock_mhz", "memory_clock_mhz", "power_w", "energy_mj"), None)
    base.update(temperature_c=60, pcie_generation=4, pcie_width=16)
    return telemetry.summarise([{**base, "at_s": index / 8, "event_mask": mask} for index, mask in enumerate(masks)])


def test_throttle_pools_the_benchmarks_and_names_the_worst():
    calm, hot = watched(*[0] * 190), watched(*[0x40] * 2 + [0] * 8)
    end = checks_health.judge_throttle({"gemm.fp32": calm, "resnet50.train": hot}, THROTTLE)
    assert (end["status"], end["numbers"]["worst"], end["numbers"]["worst_share"]) == ("warn", "resnet50.train", 0.2)
    assert end["numbers"]["throttle_share"] == 0.01
    below = checks_health.judge_throttle({"gemm.fp32": calm, "resnet50.train": watched(0x40, *[0] * 9)}, THROTTLE)
    assert below["status"] == "pass"  # 10 % of one, 0.5 % of all
    mild = checks_health.judge_throttle({"a": watched(*[0x80] * 5 + [0] * 95)}, THROTTLE)
    assert (mild["status"], mild["evidence"]) == ("warn", "event reasons: power_brake 5.0%")


def test_throttle_needs_samples():
    assert checks_health.judge_throttle({"a": watched(0, 0, 0)}, THROTTLE)["status"] == "unknown"
    none = checks_health.judge_throttle({"a": {"samples": 0, "reason": "NVML does not answer"}}, THROTTLE)
    assert (none["status"], none["summary"]) == ("skip", "no event reasons: NVML does not answer")


def test_what_the_benchmarks_saw_counts_for_the_link(health):
    saw = item_row("gemm.fp32", "checks_stub:saw")
    run = health("pcie_generation 1", extra=[saw])
    assert statuses(run) == {**HEALTHY, "throttle": "unknown"}  # two samples say too little of the clocks
    assert run.end("health.link")["numbers"]["pcie_generation"] == 4


def counters(**keys):
    absent = ("ecc_uncorrected", "ecc_corrected", "ecc_uncorrected_ever", "ecc_corrected_ever", "pcie_replays")
    return {**dict.fromkeys(absent), "why": {}, "faults": {}, "nvlinks": [], **keys}


def test_ecc_without_a_beginning():
    judge, limits = checks_health.judge_ecc, {"uncorrected_delta": 0}
    assert judge([(None, counters(ecc_uncorrected=0))], limits)["status"] == "pass"
    assert judge([(None, counters(ecc_uncorrected=3))], limits)["status"] == "unknown"
    reloaded = (
        counters(ecc_uncorrected=5, ecc_uncorrected_ever=9),
        counters(ecc_uncorrected=0, ecc_uncorrected_ever=10),
    )
    assert judge([reloaded], limits)["numbers"]["uncorrected_delta"] == 1
    assert judge([reloaded], limits)["status"] == "fail"


def test_replays_are_judged_by_the_minute():
    now = {"pcie_generation": 4, "pcie_generation_max": 4, "pcie_width": 16, "pcie_width_max": 16}
    pair = (counters(pcie_replays=100), counters(pcie_replays=120, **now))
    assert checks_health.judge_link([pair], True, 1.0, {"replays_per_minute": 8})["status"] == "warn"
    assert checks_health.judge_link([pair], True, 3.0, {"replays_per_minute": 8})["status"] == "pass"


def test_bus_ids_are_the_same_in_every_spelling():
    spellings = ("0000:65:00", "00000000:65:00.0", "0000:65:00.0", "65:00.0")
    assert {checks_health._slot(text) for text in spellings} == {(0, 0x65, 0)}


# ---- the kernel's log ----


def test_the_log_of_the_kernel_is_read_from_its_device(tmp_path):
    device = tmp_path / "kmsg"
    device.write_text("6,1,1500000,-;first\n SUBSYSTEM=pci\n3,2,2500000,c;NVRM: Xid (PCI:0000:65:00): 31; pid=1\n")
    assert kernel_log.lines(str(device)) == [(1.5, "first"), (2.5, "NVRM: Xid (PCI:0000:65:00): 31; pid=1")]
    assert kernel_log.newest_s(str(device)) == 2.5


def test_the_log_of_dmesg_is_read_too():
    text = "<6>[    0.000000] Linux version\n<3>[  123.456789] NVRM: Xid (PCI:0000:65:00): 79\n<6>no time stamp\n"
    assert kernel_log.parse_ring_buffer(text) == [
        (0.0, "Linux version"),
        (123.456789, "NVRM: Xid (PCI:0000:65:00): 79"),
    ]


def test_a_log_that_may_not_be_read_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_log, "_ring_buffer", lambda: None)
    assert kernel_log.lines(str(tmp_path / "missing")) is None
    assert kernel_log.newest_s(str(tmp_path / "missing")) is None
    context = type("Context", (), {"kept": {"nvml.before": {"kernel_log_s": None}}, "thresholds": {}})()
    monkeypatch.setattr(kernel_log, "lines", lambda: None)
    end = checks_health.xid_host(context)
    assert (end["status"], end["summary"]) == ("skip", "the kernel's log is not visible inside the container")


def test_the_load_is_real_work_for_a_real_torch(deployed, fake, real_torch):
    deployed.use(real_torch)
    deployed.pretend_cuda()
    rows = {row["id"]: row for row in json.loads(payload_sources(load_reference())["items.json"])["items"]}
    chosen = [item_row("begin", "checks_stub:begin"), rows["torch.import"]]
    chosen += [item_row("first-kernel", "checks_stub:first_kernel", needs=["torch.import"])]
    deployed.items(*chosen, rows["health.link"], rows["throttle"], checks=CHECKS)
    run = deployed.run(env=fake.set("events 0x40,0,0,0,0,0,0,0,0,0").environment)
    assert run.end("health.link")["status"] == "pass"
    assert run.end("health.link")["numbers"]["under_load"] is True
    end = run.end("throttle")
    assert end["status"] == "warn"
    assert end["evidence"].startswith("event reasons: hw_thermal")
