"""NVML by ctypes, and the fake it is tested with: NVIDIA's own Python client reads the fake first, and must agree."""

from __future__ import annotations

import ctypes
import hashlib

import pytest

from cuda_matrix.payload import nvml, nvml_device, telemetry
from fake_nvml import FakeNvml, compiled

pynvml = pytest.importorskip("pynvml", reason="NVIDIA's client: pip install nvidia-ml-py")

# Every number differs from every other: a getter that reads its neighbour is seen.
SETTINGS = """
count 2
name NVIDIA Test Card
driver 570.86.15
1.sm_clock 1411
1.memory_clock 1593
1.sm_clock_max 1981
1.memory_clock_max 2619
1.temperature 61
1.power 301500
1.power_limit 402000
1.energy 77001
energy_rate 0
1.events 0x24
1.utilisation 87
1.ecc_uncorrected 3
1.ecc_corrected 7000000000
1.ecc_uncorrected_ever 11
1.ecc_corrected_ever 8000000000
1.rows_correctable 13
1.rows_uncorrectable 17
1.rows_pending 1
1.rows_failed 0
1.pages 19
1.pages_pending 1
1.pcie_generation 3
1.pcie_generation_max 5
1.pcie_width 8
1.pcie_width_max 16
1.pcie_replays 23
1.nvlinks 6
1.nvlinks_active 4
1.compute_mode 3
1.mig 0
1.mig_pending 1
1.persistence 1
memory_total 40960
1.memory_reserved 512
1.memory_used 2048
1.processes 2
1.process_memory 900
1.mps 1
""".splitlines()

EXPECTED = {
    "count": 2,
    "driver": "570.86.15",
    "name": "NVIDIA Test Card",
    "uuid": "GPU-02020202-0202-0202-0202-020202020202",
    "bus_id": "00000000:02:00.0",
    "sm_clock_mhz": 1411,
    "memory_clock_mhz": 1593,
    "temperature_c": 61,
    "power_w": 301.5,
    "energy_mj": 77001,
    "event_reasons": 0x24,
    "utilisation": 87,
    "ecc": [3, 7000000000, 11, 8000000000],
    "remapped_rows": {"correctable": 13, "uncorrectable": 17, "pending": 1, "failed": 0},
    "retired_pages": 19,
    "retired_pages_pending": 1,
    "pcie": [3, 5, 8, 16, 23],
    "nvlinks": [1, 1, 1, 1, 0, 0],
    "compute_mode": 3,
    "mig_mode": [0, 1],
    "memory_used_mib": 2048,
    "processes": [{"pid": 4000, "used_mib": 900}, {"pid": 4001, "used_mib": 900}],
    "mps_processes": [{"pid": 4000, "used_mib": 900}],
}

NVIDIA = """
import json, pynvml as p
p.nvmlInit()
d = p.nvmlDeviceGetHandleByPciBusId("0000:02:00.0")
def links():
    for link in range(p.NVML_NVLINK_MAX_LINKS):
        try:
            yield p.nvmlDeviceGetNvLinkState(d, link)
        except p.NVMLError_InvalidArgument:
            return
def processes(found):
    return [{"pid": one.pid, "used_mib": one.usedGpuMemory >> 20} for one in found]
def pages(cause):
    return len(p.nvmlDeviceGetRetiredPages(d, cause))
print(json.dumps({
    "count": p.nvmlDeviceGetCount(),
    "driver": p.nvmlSystemGetDriverVersion(),
    "name": p.nvmlDeviceGetName(d),
    "uuid": p.nvmlDeviceGetUUID(d),
    "bus_id": p.nvmlDeviceGetPciInfo(d).busId.decode() if hasattr(p.nvmlDeviceGetPciInfo(d).busId, "decode")
        else p.nvmlDeviceGetPciInfo(d).busId,
    "sm_clock_mhz": p.nvmlDeviceGetClockInfo(d, p.NVML_CLOCK_SM),
    "memory_clock_mhz": p.nvmlDeviceGetClockInfo(d, p.NVML_CLOCK_MEM),
    "temperature_c": p.nvmlDeviceGetTemperature(d, p.NVML_TEMPERATURE_GPU),
    "power_w": p.nvmlDeviceGetPowerUsage(d) / 1000,
    "energy_mj": p.nvmlDeviceGetTotalEnergyConsumption(d),
    "event_reasons": EVENTS(d),
    "utilisation": p.nvmlDeviceGetUtilizationRates(d).gpu,
    "ecc": [p.nvmlDeviceGetTotalEccErrors(d, kind, period) for period in (p.NVML_VOLATILE_ECC, p.NVML_AGGREGATE_ECC)
            for kind in (p.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, p.NVML_MEMORY_ERROR_TYPE_CORRECTED)],
    "remapped_rows": dict(zip(("correctable", "uncorrectable", "pending", "failed"), p.nvmlDeviceGetRemappedRows(d))),
    "retired_pages": pages(p.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS)
        + pages(p.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR),
    "retired_pages_pending": p.nvmlDeviceGetRetiredPagesPendingStatus(d),
    "pcie": [p.nvmlDeviceGetCurrPcieLinkGeneration(d), p.nvmlDeviceGetMaxPcieLinkGeneration(d),
             p.nvmlDeviceGetCurrPcieLinkWidth(d), p.nvmlDeviceGetMaxPcieLinkWidth(d),
             p.nvmlDeviceGetPcieReplayCounter(d)],
    "nvlinks": list(links()),
    "compute_mode": p.nvmlDeviceGetComputeMode(d),
    "mig_mode": p.nvmlDeviceGetMigMode(d),
    "memory_used_mib": MEMORY(d).used >> 20,
    "processes": processes(p.PROCESSES(d)),
    "mps_processes": processes(p.MPS(d)),
}))
"""

OURS = """
import json
from cuda_matrix.payload import nvml
library, reason = nvml.open_library()
with library:
    d, reason = library.device_by_bus_id("0000:02:00.0")
    names = NAMES
    seen = {name: getattr(d, name)() for name in names}
    seen["ecc"] = [f(aggregate) for aggregate in (False, True) for f in (d.ecc_uncorrected, d.ecc_corrected)]
    seen["pcie"] = [d.pcie_generation(), d.pcie_generation_max(), d.pcie_width(), d.pcie_width_max(), d.pcie_replays()]
    seen.update(count=library.count(), driver=library.driver(), why=d.why)
print(json.dumps(seen))
""".replace("NAMES", repr([name for name in EXPECTED if hasattr(nvml_device.Device, name)] + ["uuid_hash"]))
NEW = {
    "EVENTS": "p.nvmlDeviceGetCurrentClocksEventReasons",
    "MEMORY(d)": "p.nvmlDeviceGetMemoryInfo(d, version=p.nvmlMemory_v2)",
    "PROCESSES": "nvmlDeviceGetComputeRunningProcesses_v3",
    "MPS": "nvmlDeviceGetMPSComputeRunningProcesses_v3",
}
OLD = {
    "EVENTS": "p.nvmlDeviceGetCurrentClocksThrottleReasons",
    "MEMORY(d)": "p.nvmlDeviceGetMemoryInfo(d)",
    "PROCESSES": "nvmlDeviceGetComputeRunningProcesses_v2",
    "MPS": "nvmlDeviceGetMPSComputeRunningProcesses_v2",
}


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def old_library_folder(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("old-nvml"), "OLD_DRIVER")


@pytest.fixture
def fake(library_folder, tmp_path):
    return FakeNvml(library_folder, tmp_path)


@pytest.fixture
def old_fake(old_library_folder, tmp_path):
    return FakeNvml(old_library_folder, tmp_path)


def nvidias(names):
    source = NVIDIA
    for name, function in names.items():
        source = source.replace(name, function)
    return source


def as_ours(expected):
    hashed = hashlib.sha256(EXPECTED["uuid"].encode()).hexdigest()[:16]
    return {**{name: value for name, value in expected.items() if name != "uuid"}, "uuid_hash": hashed}


def test_nvidias_client_and_ours_read_the_same(fake):
    fake.set(*SETTINGS)
    assert fake.ask(nvidias(NEW)) == EXPECTED
    assert fake.ask(OURS) == {**as_ours(EXPECTED), "why": {}}


def test_a_driver_without_the_new_functions_is_asked_by_the_old_ones(old_fake):
    old_fake.set(*SETTINGS)
    missing = "import json, pynvml as p\np.nvmlInit()\nd = p.nvmlDeviceGetHandleByIndex(1)\n"
    missing += "try:\n    EVENTS(d)\nexcept p.NVMLError_FunctionNotFound:\n    print('true')\n"
    assert old_fake.ask(missing.replace("EVENTS", NEW["EVENTS"])) is True
    expected = {**EXPECTED, "memory_used_mib": 2048 + 512}  # the first version counts the driver's own memory
    assert old_fake.ask(nvidias(OLD)) == expected
    seen = old_fake.ask(OURS)
    assert set(seen.pop("why").values()) == {"Function Not Found"}
    assert seen == as_ours(expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nvml_device._PciInfo, "nvmlPciInfo_t"),
        (nvml_device._Memory, "c_nvmlMemory_t"),
        (nvml_device._MemoryV2, "c_nvmlMemory_v2_t"),
        (nvml_device._Utilization, "c_nvmlUtilization_t"),
        (nvml_device._Process, "c_nvmlProcessInfo_v3_t"),
    ],
)
def test_structures_are_laid_out_as_nvidias(ours, theirs):
    theirs = getattr(pynvml, theirs)

    def layout(kind):
        return [(getattr(kind, name).offset, getattr(kind, name).size) for name, _ in kind._fields_]

    assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
    assert layout(ours) == layout(theirs)


def test_event_bits_are_nvidias():
    assert {
        "sw_power_cap": pynvml.nvmlClocksEventReasonSwPowerCap,
        "hw_slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
        "sw_thermal": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
        "hw_thermal": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        "power_brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    } == nvml.EVENT_BITS
    assert sum(nvml.EVENT_BITS.values()) - nvml.EVENT_BITS["sw_power_cap"] == nvml.THROTTLE_MASK
    assert pynvml.nvmlClocksEventReasonGpuIdle == nvml.IDLE_BIT


ABSENCE = """
import json
from cuda_matrix.payload import nvml
library, _ = nvml.open_library()
with library:
    device, _ = library.device(0)
    print(json.dumps([nvml.counters(device), device.event_reasons(), device.processes(), device.mig_mode()]))
"""


THEIR_ERROR = """
import json, pynvml as p
p.nvmlInit()
try:
    p.nvmlDeviceGetPcieReplayCounter(p.nvmlDeviceGetHandleByIndex(0))
except p.NVMLError as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.mark.parametrize(
    ("code", "text", "fault"),
    [
        (3, "Not Supported", False),
        (4, "Insufficient Permissions", False),
        (13, "Function Not Found", False),
        (15, "GPU is lost", True),
        (999, "Unknown Error", True),
    ],
)
def test_what_nvml_does_not_tell_is_none_and_says_why(fake, code, text, fault):
    keys = ("ecc", "rows", "pages", "pages_pending", "pcie_replays", "pcie_generation", "energy", "events", "processes")
    fake.set(*(f"{key} !{code}" for key in (*keys, "mig", "nvlinks")))
    counters, events, processes, mig = fake.ask(ABSENCE)
    assert (events, processes, mig) == (None, None, None)
    gone = ("ecc_uncorrected", "ecc_corrected_ever", "rows_failed", "pages_retired", "pages_pending", "pcie_replays")
    assert {counters[name] for name in (*gone, "pcie_generation", "energy_mj")} == {None}
    assert counters["nvlinks"] == []
    assert counters["pcie_width"] == 16
    assert set(counters["why"].values()) == {text}
    assert (counters["faults"] != {}) is fault
    names = {3: "NotSupported", 4: "NoPermission", 13: "FunctionNotFound", 15: "GpuIsLost", 999: "Unknown"}
    assert fake.ask(THEIR_ERROR) == "NVMLError_" + names[code]


OPEN = """
import json
from cuda_matrix.payload import nvml
library, reason = nvml.open_library()
print(json.dumps([library is not None, reason]))
"""


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (18, "Driver/library version mismatch"),
        (999, "Unknown Error"),
        (9, "Driver Not Loaded"),
        (4, "Insufficient Permissions"),
    ],
)
def test_a_refused_start_is_told_in_the_words_of_nvidia_smi(fake, code, text):
    assert fake.set(f"init {code}").ask(OPEN) == [False, f"Failed to initialize NVML: {text}"]


def test_the_kth_start_may_be_the_one_that_fails(fake):
    fake.set("[after 2]", "init 999", "ecc_uncorrected 5")
    assert [fake.ask(OPEN)[0] for _ in range(4)] == [True, True, False, False]


def test_without_the_library_or_without_ctypes_there_is_a_reason(fake, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "libnvidia-ml.so.1").write_text("not a library")
    opened, reason = fake.ask(OPEN, LD_LIBRARY_PATH=str(broken))
    assert not opened
    assert reason.startswith(nvml.NOT_LOADED + ": ")
    assert "libnvidia-ml.so.1" in reason
    no_ctypes = "import sys\nsys.modules['ctypes'] = None\n" + OPEN
    assert fake.ask(no_ctypes) == [False, nvml.NOT_LOADED + ": this Python has no ctypes"]


OF_CUDA = """
import json
from cuda_matrix.payload import nvml
library, _ = nvml.open_library()
with library:
    found = [library.device_of_cuda(ordinal) for ordinal in range(2)]
    print(json.dumps([device.bus_id() if device else reason for device, reason in found]))
"""


def test_cudas_first_card_need_not_be_nvmls(fake):
    assert fake.ask(OF_CUDA, CM_FAKE_COUNT="2") == ["00000000:01:00.0", "00000000:02:00.0"]
    hidden = fake.ask(OF_CUDA, CM_FAKE_COUNT="2", CUDA_VISIBLE_DEVICES="1")
    assert hidden == ["00000000:02:00.0", "CUDA does not say which card is cuda:1"]
    # without CUDA, cuda:0 can only be the one card that there is
    assert fake.ask(OF_CUDA, CM_FAKE_COUNT="1", CM_FAKE_CUINIT="999")[0] == "00000000:01:00.0"
    assert fake.ask(OF_CUDA, CM_FAKE_COUNT="2", CM_FAKE_CUINIT="999")[0] == "CUDA does not say which card is cuda:0"


def test_a_card_that_is_lost_is_counted_and_not_forgotten(fake):
    source = "import json\nfrom cuda_matrix.payload import nvml\nlibrary, _ = nvml.open_library()\nwith library:\n"
    source += "    seen = nvml.snapshot(library)\n    print(json.dumps(seen))"
    seen = fake.set("count 2", "1.handle !15").ask(source)
    assert [device["bus_id"] for device in seen["devices"]] == ["00000000:01:00.0"]
    assert seen["unreachable"] == ["GPU is lost"]
    assert "GPU-" not in str(seen)


WATCH = """
import json, os, threading, time
from cuda_matrix.payload import telemetry
started = time.monotonic()
with telemetry.Watch(DEVICE) as watch:
    time.sleep(SECONDS)
took = time.monotonic() - started
alive = [thread.name for thread in threading.enumerate()]
print(json.dumps([watch.summary(), took, alive]))
"""


def watch(fake, device="'cuda:0'", seconds=1.0, **variables):
    return fake.ask(WATCH.replace("DEVICE", device).replace("SECONDS", str(seconds)), **variables)


def test_a_watch_samples_five_to_ten_times_a_second(fake):
    fake.set(
        "energy_rate 200000",
        "sm_clock 1500,1700,1600",
        "events 0x8,0,0,0x4",
        "temperature 60,70",
        "pcie_generation 1,4",
    )
    summary, _, threads = watch(fake, seconds=2.0)
    assert threads == ["MainThread"]
    assert 5 <= (summary["samples"] - 2) / summary["watched_s"] <= 10
    assert summary["energy_j"] == pytest.approx(200 * summary["watched_s"], rel=0.05)
    clocks = [summary[name] for name in ("sm_clock_min_mhz", "sm_clock_mhz", "sm_clock_max_mhz")]
    assert clocks == [1500, 1600, 1700]
    assert (summary["temperature_max_c"], summary["pcie_generation_seen"], summary["power_w"]) == (70, 4, 200.0)
    assert summary["throttle_share"] == summary["share_hw_slowdown"] == pytest.approx(0.25, abs=0.1)
    assert summary["share_sw_power_cap"] == pytest.approx(0.25, abs=0.1)
    assert summary["share_hw_thermal"] == 0.0
    assert "reason" not in summary


def test_a_watch_follows_the_card_that_cuda_uses(fake):
    fake.set("0.temperature 40", "1.temperature 80")
    variables = {"CM_FAKE_COUNT": "2", "CUDA_VISIBLE_DEVICES": "1"}
    assert watch(fake, seconds=0.3, **variables)[0]["temperature_max_c"] == 80
    assert watch(fake, "'0000:01:00.0'", 0.3, **variables)[0]["temperature_max_c"] == 40


@pytest.mark.parametrize("function", ["Init", "DeviceGetClockInfo", "Shutdown"])
def test_a_hanging_nvml_costs_the_measurement_a_second_and_no_more(fake, function):
    fake.set(f"hang {function}")
    summary, took, _ = watch(fake, seconds=0.5)
    assert took < 0.5 + telemetry._LEAVE_S + 0.5
    assert summary["reason"] == "NVML does not answer"


@pytest.mark.parametrize(
    ("settings", "device", "reason"),
    [
        (["init 18"], "'cuda:0'", "Failed to initialize NVML: Driver/library version mismatch"),
        (["handle !15"], "'0000:01:00.0'", "GPU is lost"),
        ([], "7", "CUDA does not say which card is cuda:7"),
        ([], "'cpu'", "no card is in use"),
        ([], "None", "no card is in use"),
    ],
)
def test_without_samples_the_summary_says_why(fake, settings, device, reason):
    fake.set(*settings)
    assert watch(fake, device, 0.3)[0] == {"samples": 0, "reason": reason}


def test_absent_counters_are_none_in_the_summary(fake):
    fake.set("energy !3", "events !3", "power !4")
    summary = watch(fake, seconds=0.3)[0]
    assert (summary["energy_j"], summary["throttle_share"], summary["power_w"]) == (None, None, None)
    assert (summary["busy_samples"], summary["sm_clock_mhz"]) == (0, 1695)


def test_shares_are_of_busy_samples():
    assert telemetry.shares([0x1, 0x1, 0x0, 0x8]) == {
        "busy_samples": 2,
        "throttle_share": 0.5,
        "share_sw_power_cap": 0.0,
        "share_hw_slowdown": 0.5,
        "share_sw_thermal": 0.0,
        "share_hw_thermal": 0.0,
        "share_power_brake": 0.0,
    }
    assert telemetry.shares([0x1, None])["throttle_share"] is None


def test_a_counter_that_was_reset_gives_no_energy():
    assert telemetry._energy_j([5000, None, 9000]) == 4.0
    assert telemetry._energy_j([5000, 100]) is None
    assert telemetry._energy_j([5000]) is None
