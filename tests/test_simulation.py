"""The simulated fleet: the same lines as the payload, decided by rules, and read by the same parser and verdict."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix import simulation
from cuda_matrix.config import Config
from cuda_matrix.documents import load_table, parse, validate
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.payload import table as payload_table
from cuda_matrix.protocol import EventStream, Request, payload_sources
from cuda_matrix.reference import data_text, load_reference
from cuda_matrix.scenario import Scenario
from cuda_matrix.simulated_items import SimulatedCell, covers, spread
from cuda_matrix.verdict import Expectation, LaunchFailure, Outcome, judge_cell

REFERENCE = load_reference()
DEMO = simulation.load_scenario(None)
MARKER = "0123456789abcdef" * 2
PAYLOAD_TABLE = payload_table.Table(json.loads(payload_sources(REFERENCE)["items.json"]))
GOOD = ("torch2.2.0-cu118", "rtx3090")


def request(**values: Any) -> Request:
    defaults = {"marker": MARKER, "profile": "standard", "checks": ("*",), "benchmarks": ("*",), "gpu_required": True}
    return Request(**{**defaults, "expect": {}, "limit_s": 1200.0, **values})


def with_faults(*faults: dict[str, Any]) -> Scenario:
    return Scenario(**{**DEMO.model_dump(), "faults": [{"cell": "*", **fault} for fault in faults]})


def cell_of(scenario: Scenario, image: str, runner: str, *, gpu_required: bool = True) -> SimulatedCell:
    return simulation.simulated_cell(scenario, image, runner, REFERENCE, gpu_required=gpu_required)


def play(cell: SimulatedCell, ask: Request) -> Outcome:
    stream = EventStream(ask.marker)
    for chunk in simulation.events(cell, ask):
        stream.feed(chunk)
    assert stream.anomalies == []
    return stream.outcome(simulation.ending(cell))


def verdict_of(cell: SimulatedCell, ask: Request) -> tuple[str, str | None]:
    expectation = Expectation(gpu=cell.host.card, driver=cell.host.driver, gpu_requested=True, gpu_required=True)
    failure = simulation.launch_failure(cell)
    seen = LaunchFailure(stage=failure[0], text=failure[1]) if failure else play(cell, ask)
    judgement = judge_cell(seen, simulation.ending(cell), expectation, REFERENCE)
    return judgement.verdict.value, judgement.diagnosis.cause if judgement.diagnosis else None


@pytest.mark.parametrize(
    ("image", "runner", "verdict", "cause", "images_per_s", "memory_gb"),
    [
        # The articles' table: these five rows, its crash as what it is.
        ("torch2.2.0-cu121", "rtx4090", "pass", None, 1245, 18.2),
        ("torch2.2.0-cu118", "rtx4090", "pass", None, 1180, 18.5),
        ("torch2.2.0-cu118", "a800", "pass", None, 980, 32.1),
        ("torch2.2.0-cu121", "a800", "fail", "driver-too-old", None, None),
        ("torch2.2.0-cu118", "rtx3090", "pass", None, 850, 22.3),
        # The rest of the demo.
        ("torch2.2.0-cu121", "rtx3090", "pass", None, 905, None),
        ("torch2.9.1-cu130", "rtx3090", "pass", None, 905, None),
        ("torch2.9.1-cu130", "rtx4090", "pass", None, 1301, None),
        ("torch2.9.1-cu130", "a800", "fail", "driver-too-old", None, None),
    ],
)
def test_the_demo_fleet(
    image: str, runner: str, verdict: str, cause: str | None, images_per_s: float | None, memory_gb: float | None
) -> None:
    cell, ask = cell_of(DEMO, image, runner), request(expect={"cuda": image[-3:-1] + "." + image[-1]})
    assert verdict_of(cell, ask) == (verdict, cause)
    resnet = next(each for each in play(cell, ask).benchmarks if each.id == "resnet50.train")
    assert (resnet.samples.median if resnet.samples else None) == images_per_s
    assert resnet.numbers.get("peak_memory_gb") == memory_gb
    if images_per_s:
        assert resnet.numbers["source"]


def test_the_a800_prints_what_pytorch_prints_there() -> None:
    seen = play(cell_of(DEMO, "torch2.2.0-cu121", "a800"), request())
    kernel = next(check for check in seen.checks if check.id == "first-kernel")
    assert "The NVIDIA driver on your system is too old (found version 11040)." in kernel.evidence
    needy = {item.id for item in REFERENCE.items.items if "first-kernel" in item.needs}
    assert {item.status.value for item in (*seen.checks, *seen.benchmarks) if item.id in needy} == {"skip"}


def test_the_demo_configuration_fits_the_demo_fleet() -> None:
    document = parse(data_text("demo-config.yml").encode(), "demo-config.yml")
    config = validate(Config, document.value, document.locate)
    assert set(config.runners) == set(DEMO.hosts)
    for runner, host in DEMO.hosts.items():
        assert config.runners[runner].driver == host.driver
    for image in config.images:
        inside = DEMO.image_of(image.id)
        assert (inside.torch.split("+")[0], inside.cuda) == (image.expect["torch"], image.expect["cuda"])


@pytest.mark.parametrize(
    ("fault", "verdict", "cause"),
    [
        ({"kind": "hang"}, "fail", "cell-timeout"),
        ({"kind": "segfault"}, "fail", "native-crash"),
        ({"kind": "oom"}, "fail", "host-oom-kill"),
        ({"kind": "gpu-oom"}, "fail", "gpu-oom"),
        ({"kind": "ecc"}, "host-failed", "gpu-ecc"),
        ({"kind": "throttled"}, "warn", None),
        ({"kind": "flood"}, "pass", None),
        ({"kind": "no-hello"}, "fail", "payload-never-started"),
        ({"kind": "launch", "message": "image-not-found"}, "fail", "image-not-found"),
        ({"kind": "launch", "message": "toolkit-missing"}, "host-failed", "toolkit-missing"),
        ({"kind": "launch", "message": "disk-full"}, "host-failed", "disk-full"),
        ({"kind": "launch", "message": "image-require-unsatisfied"}, "fail", "image-require-unsatisfied"),
    ],
    ids=lambda value: str(value.get("message", value["kind"])) if isinstance(value, dict) else None,
)
def test_every_fault_ends_as_what_it_is(fault: dict[str, Any], verdict: str, cause: str | None) -> None:
    assert verdict_of(cell_of(with_faults(fault), *GOOD), request()) == (verdict, cause)


def test_a_cut_stream_ends_in_the_middle_of_a_line_and_fails() -> None:
    cell = cell_of(with_faults({"kind": "cut-stream"}), *GOOD)
    assert not list(simulation.events(cell, request()))[-1].endswith(b"\n")
    assert verdict_of(cell, request())[0] == "fail"
    assert not play(cell, request()).done


def test_a_fault_strikes_only_its_cells() -> None:
    scenario = with_faults({"cell": "*@rtx4090", "kind": "ecc"})
    assert verdict_of(cell_of(scenario, *GOOD), request()) == ("pass", None)
    assert verdict_of(cell_of(scenario, GOOD[0], "rtx4090"), request()) == ("host-failed", "gpu-ecc")


def test_a_card_without_code_in_the_build_ends_as_pytorch_says_it() -> None:
    hosts = {"rtx5090": {"card": "rtx5090", "driver": "580.65.06"}}
    scenario = Scenario(**{**DEMO.model_dump(), "hosts": hosts})
    old, new = (cell_of(scenario, image, "rtx5090") for image in ("torch2.2.0-cu121", "torch2.9.1-cu130"))
    assert verdict_of(old, request()) == ("fail", "arch-no-kernel")
    kernel = next(check for check in play(old, request()).checks if check.id == "first-kernel")
    assert "sm_120 is not compatible" in kernel.log
    assert verdict_of(new, request()) == ("pass", None)
    measured = next(each for each in play(new, request()).benchmarks if each.id == "resnet50.train")
    assert "assumption" in str(measured.numbers["source"])  # nothing is published for it here, and that is said


def test_a_machine_without_a_card() -> None:
    scenario = Scenario(**{**DEMO.model_dump(), "hosts": {"cpu": {}}})
    required, free = (cell_of(scenario, GOOD[0], "cpu", gpu_required=required) for required in (True, False))
    kernel = {check.id: check for check in play(required, request()).checks}
    assert (kernel["host.driver"].status.value, kernel["host.driver"].cause) == ("fail", "gpu-not-exposed")
    assert {check.device for check in play(free, request(gpu_required=False)).checks} == {None, "cpu"}


def test_versions_other_than_expected_fail() -> None:
    cell = cell_of(DEMO, *GOOD)
    assert verdict_of(cell, request(expect={"torch": "2.2.0", "cuda": "11.8"})) == ("pass", None)
    assert verdict_of(cell, request(expect={"cuda": "12.1"})) == ("fail", "expectation-mismatch")
    assert verdict_of(cell, request(expect={"torch": "2.2"})) == ("pass", None)
    assert verdict_of(cell, request(expect={"torch": "2.2.0+cu121"})) == ("fail", "expectation-mismatch")


def test_the_same_cell_is_the_same_bytes_and_another_differs() -> None:
    one, again = (b"".join(simulation.events(cell_of(DEMO, *GOOD), request())) for _ in range(2))
    other = b"".join(simulation.events(cell_of(DEMO, "torch2.2.0-cu121", "rtx3090"), request()))
    assert one == again
    assert one != other


globs = st.lists(
    st.sampled_from(
        ["*", "gemm.*", "gemm", "numerics", "first-*", "python", "resnet50", "nothing", "t*", "gpt2", "soak"]
    )
)


@given(globs, globs, st.sampled_from(["smoke", "standard", "full", "soak"]))
def test_globs_select_what_they_select_in_the_payload(checks: list[str], benchmarks: list[str], profile: str) -> None:
    ask = request(checks=tuple(checks), benchmarks=tuple(benchmarks), profile=profile)
    lines = simulation.events(cell_of(DEMO, *GOOD), ask)
    plan = next(event for line in lines if (event := json.loads(line.split(b" ", 1)[1]))["event"] == "plan")
    chosen, barren = payload_table.select(PAYLOAD_TABLE.items, profile, checks, benchmarks)
    expected = [{"id": i.id, "kind": i.kind, "limit_s": i.limit_s(profile)} for i in chosen]
    assert plan["items"] == expected + [{"id": glob, "kind": kind, "limit_s": 0} for kind, glob, _ in barren]


@pytest.mark.parametrize(
    ("arch", "capability", "runs"),
    [
        ("sm_86", "8.6", True),
        ("sm_80", "8.6", True),
        ("sm_86", "8.9", True),
        ("sm_86", "8.0", False),
        ("sm_90", "8.9", False),
        ("sm_80", "9.0", False),
        ("sm_90a", "9.0", True),
        ("sm_100a", "10.3", False),
        ("sm_100f", "10.3", True),
        ("sm_120", "12.1", True),
        ("compute_90", "9.0", False),
    ],
)
def test_machine_code_runs_inside_its_major(arch: str, capability: str, runs: bool) -> None:
    assert covers(arch, capability) is runs


@given(st.text(max_size=40), st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_spread_stays_inside_and_is_fixed(seed: str, low: float, width: float) -> None:
    value = spread(seed, low, low + width)
    assert low <= value <= low + width
    assert value == spread(seed, low, low + width)


@pytest.mark.parametrize(
    ("change", "image", "runner", "said"),
    [
        ({}, "torch9", "rtx3090", "no image for 'torch9'"),
        ({}, GOOD[0], "h100", "no host for the runner 'h100'"),
        ({"hosts": {"x": {"card": "voodoo2", "driver": "1.0"}}}, GOOD[0], "x", "not in the table of cards"),
    ],
)
def test_a_scenario_that_does_not_fit_is_the_users_error(
    change: dict[str, Any], image: str, runner: str, said: str
) -> None:
    scenario = Scenario(**{**copy.deepcopy(DEMO.model_dump()), **change})
    with pytest.raises(ConfigurationError, match=said):
        cell_of(scenario, image, runner)


def test_a_launch_fault_needs_the_engines_words() -> None:
    for message in (None, "no-such-message", "gpu-ecc"):
        cell = cell_of(with_faults({"kind": "launch", "message": message}), *GOOD)
        with pytest.raises(ConfigurationError, match="image-not-found"):
            simulation.launch_failure(cell)


def test_an_unquoted_version_in_a_scenario_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(data_text("demo-fleet.yml").replace('cuda: "12.1"', "cuda: 12.10"))
    with pytest.raises(ConfigurationError) as caught:
        simulation.load_scenario(path)
    assert "12.10" in caught.value.problems[0].message
    assert load_table(Scenario, data_text("demo-fleet.yml").encode(), "demo-fleet.yml") == DEMO


def test_the_request_may_be_any_object_of_its_shape() -> None:
    plain = SimpleNamespace(marker=MARKER, profile="smoke", checks=("python",), benchmarks=(), expect={})
    lines = list(simulation.events(cell_of(DEMO, *GOOD), plain))
    assert [json.loads(line.split(b" ", 1)[1])["event"] for line in lines][-3:] == ["start", "end", "done"]
