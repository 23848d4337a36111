"""Every rule of the verdict, both ways: it speaks where it must, and only there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.model import CheckStatus, Verdict
from cuda_matrix.reference import load_reference
from cuda_matrix.result import BenchmarkResult, CheckResult, Exit, Facts, Gpu
from cuda_matrix.verdict import Expectation, Judgement, LaunchFailure, Outcome, PlannedItem, judge_cell

REFERENCE = load_reference()
ON_A_CARD = Expectation(gpu="RTX 3090", driver="550.54.15", gpu_requested=True, gpu_required=True)
MACHINE = Facts(driver="550.54.15", device_name="NVIDIA GeForce RTX 3090")
ENDED = Exit(code=0)


def check(id_: str = "first-kernel", status: str = "pass", **values: Any) -> CheckResult:
    return CheckResult(**{"id": id_, "status": status, "device": "cuda:0", **values})


def bench(id_: str = "resnet50.train", status: str = "pass", **values: Any) -> BenchmarkResult:
    return BenchmarkResult(**{"id": id_, "status": status, "device": "cuda:0", **values})


def outcome(*items: CheckResult, missing: tuple[str, ...] = (), **values: Any) -> Outcome:
    checks = tuple(item for item in items if not isinstance(item, BenchmarkResult))
    benchmarks = tuple(item for item in items if isinstance(item, BenchmarkResult))
    planned = [PlannedItem(id=i.id, kind="benchmark" if isinstance(i, BenchmarkResult) else "check") for i in items]
    planned += [PlannedItem(id=name, kind="check") for name in missing]
    defaults = {"hello": True, "planned": tuple(planned), "done": True, "facts": MACHINE}
    return Outcome(**{**defaults, "checks": checks, "benchmarks": benchmarks, **values})


def judge(seen: LaunchFailure | Outcome, exit_: Exit = ENDED, expectation: Expectation = ON_A_CARD) -> Judgement:
    return judge_cell(seen, exit_, expectation, REFERENCE)


def cause(judgement: Judgement) -> str | None:
    return judgement.diagnosis.cause if judgement.diagnosis else None


@pytest.mark.parametrize(
    ("stage", "text", "verdict", "code"),
    [
        ("start", 'could not select device driver "" with capabilities: [[gpu]]', "host-failed", "toolkit-missing"),
        ("pull", "failed to register layer: ApplyLayer no space left on device", "host-failed", "disk-full"),
        ("pull", "manifest unknown", "fail", "image-not-found"),
        ("pull", "toomanyrequests", "inconclusive", "registry-rate-limit"),
        ("start", "unsatisfied condition: cuda>=12.8", "fail", "image-require-unsatisfied"),
        ("start", "device error: 7: unknown device", "fail", "device-id-invalid"),
        ("start", 'exec: "/bin/sh": stat /bin/sh: no such file or directory', "fail", "no-shell"),
        ("pull", "something nobody has seen", "inconclusive", "unknown"),
        ("create", "something nobody has seen", "fail", "unknown"),
        ("start", "something nobody has seen", "fail", "unknown"),
    ],
)
def test_a_cell_that_never_started(stage: Any, text: str, verdict: str, code: str) -> None:
    judgement = judge(LaunchFailure(stage=stage, text=text), Exit())
    assert (judgement.verdict.value, cause(judgement)) == (verdict, code)
    assert judgement.reason.startswith(f"{stage}: ")


def test_a_good_cell_passes() -> None:
    judgement = judge(outcome(check(), bench()))
    assert judgement == (Verdict.PASS, "2 of 2 passed", (), None)


def test_interrupted_says_nothing_of_the_image() -> None:
    assert judge(outcome(check(status="fail")), Exit(interrupted=True))[:2] == (Verdict.INCONCLUSIVE, "interrupted")


@pytest.mark.parametrize(
    ("log", "exit_", "verdict", "code"),
    [
        ("Jupyter Server is running", ENDED, "fail", "payload-never-started"),
        ("Jupyter Server is running", Exit(timed_out=True), "fail", "payload-never-started"),
        (
            "/opt/nvidia/nvidia_entrypoint.sh: line 67: exec: python: not found",
            Exit(code=127),
            "fail",
            "entrypoint-not-found",
        ),
        ("exec /bin/sh: exec format error", Exit(code=255), "fail", "platform-mismatch"),
        ("", Exit(code=137, oom_killed=True), "fail", "host-oom-kill"),
    ],
)
def test_no_hello(log: str, exit_: Exit, verdict: str, code: str) -> None:
    judgement = judge(Outcome(hello=False, log=log), exit_)
    assert (judgement.verdict.value, cause(judgement)) == (verdict, code)


@pytest.mark.parametrize("status", ["fail", "crash", "timeout"])
def test_a_bad_check_fails_the_cell(status: str) -> None:
    assert judge(outcome(check("python"), check(status=status))).verdict is Verdict.FAIL


@pytest.mark.parametrize("status", ["fail", "crash", "timeout"])
def test_a_bad_benchmark_fails_the_cell(status: str) -> None:
    assert judge(outcome(check(), bench(status=status))).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("values", "verdict", "code"),
    [
        ({"status": "fail", "cause": "numerics-wrong"}, "fail", "numerics-wrong"),
        ({"status": "fail", "evidence": "Torch not compiled with CUDA enabled"}, "fail", "cpu-only-torch"),
        ({"status": "fail", "log": "Torch not compiled with CUDA enabled"}, "fail", "cpu-only-torch"),
        ({"status": "fail", "evidence": "Driver/library version mismatch"}, "host-failed", "driver-lib-mismatch"),
        ({"status": "fail", "evidence": "uncorrectable ECC error encountered"}, "host-failed", "gpu-ecc"),
        ({"status": "fail", "cause": "no-such-cause"}, "fail", "unknown"),
        ({"status": "crash", "numbers": {"signal": 11}}, "fail", "native-crash"),
        ({"status": "crash", "numbers": {"signal": 4}}, "host-failed", "cpu-instruction-set"),
        ({"status": "crash", "numbers": {"exit_code": 3}}, "fail", "native-crash"),
        ({"status": "timeout"}, "fail", "check-timeout"),
        ({"status": "skip", "cause": "cell-timeout"}, "fail", "cell-timeout"),
    ],
)
def test_the_cause_of_a_bad_check(values: dict[str, Any], verdict: str, code: str) -> None:
    judgement = judge(outcome(check("python"), check(**values), bench(status="skip")))
    assert (judgement.verdict.value, cause(judgement)) == (verdict, code)
    assert judgement.reason.startswith("first-kernel: ")


def test_the_first_bad_check_is_the_root() -> None:
    first = check("torch.import", status="fail", evidence="ModuleNotFoundError: No module named 'torch'")
    second = check(status="fail", evidence="Error 803: driver combination")
    assert cause(judge(outcome(first, second))) == "torch-missing"
    silent = check("torch.import", status="fail", evidence="it did not work")
    assert cause(judge(outcome(silent, second))) == "compat-lib-mismatch"  # the root says nothing, so the next is heard


@pytest.mark.parametrize(
    ("done", "missing", "exit_", "verdict", "code"),
    [
        (False, ("training.cnn",), Exit(code=137, timed_out=True), "fail", "cell-timeout"),
        (False, ("training.cnn",), Exit(code=137, oom_killed=True), "fail", "host-oom-kill"),
        (False, ("training.cnn",), Exit(code=139), "fail", "native-crash"),
        (False, ("training.cnn",), ENDED, "fail", "result-incomplete"),
        (True, ("training.cnn",), ENDED, "fail", "result-incomplete"),
        (False, (), ENDED, "fail", "result-incomplete"),
    ],
)
def test_absent_is_failed(done: bool, missing: tuple[str, ...], exit_: Exit, verdict: str, code: str) -> None:
    judgement = judge(outcome(check(), missing=missing, done=done), exit_)
    assert (judgement.verdict.value, cause(judgement)) == (verdict, code)


@pytest.mark.parametrize(
    ("configured", "facts", "verdict"),
    [
        ("RTX 3090", MACHINE, "pass"),
        ("RTX 3090 Ti", MACHINE, "host-failed"),
        ("A800", MACHINE, "host-failed"),
        (None, MACHINE, "pass"),
        ("RTX 3090", Facts(gpus=(Gpu(index=0, name="NVIDIA GeForce RTX 4090"),)), "host-failed"),
        ("RTX 3090", MACHINE.model_copy(update={"gpus": (Gpu(index=1, name="NVIDIA GeForce GT 710"),)}), "pass"),
        ("RTX 3090", Facts(), "pass"),  # not seen is not another one
    ],
)
def test_the_card_of_the_column(configured: str | None, facts: Facts, verdict: str) -> None:
    expectation = Expectation(gpu=configured, gpu_requested=True, gpu_required=True)
    judgement = judge(outcome(check(), facts=facts), expectation=expectation)
    assert judgement.verdict.value == verdict
    assert (cause(judgement) == "runner-card-mismatch") is (verdict == "host-failed")


def test_another_card_wins_over_what_failed_on_it() -> None:
    seen = outcome(check(status="fail", cause="numerics-wrong"))
    assert cause(judge(seen, expectation=Expectation(gpu="A800", gpu_required=True))) == "runner-card-mismatch"


@pytest.mark.parametrize(
    ("items", "verdict"),
    [
        ((), "inconclusive"),
        ((check(status="skip"),), "inconclusive"),
        ((check(status="skip"), bench(status="skip")), "inconclusive"),
        ((check(status="unknown"),), "inconclusive"),
        ((bench(status="invalid"),), "inconclusive"),
        ((check("python", device=None), check(status="skip", device=None)), "inconclusive"),  # a card was required
        ((check(), bench(status="skip")), "pass"),
    ],
)
def test_a_skip_is_not_a_pass(items: tuple[CheckResult, ...], verdict: str) -> None:
    assert judge(outcome(*items)).verdict.value == verdict


def test_work_on_the_cpu_is_a_failure_where_a_card_is_required() -> None:
    on_cpu = outcome(check("training.cnn", device="cpu"), check())
    assert cause(judge(on_cpu)) == "silent-cpu-fallback"
    for device in ("cpu:0", "CPU", "meta"):
        assert cause(judge(outcome(check("training.cnn", device=device), check()))) == "silent-cpu-fallback"
    declared = Expectation(gpu="RTX 3090", gpu_requested=True, gpu_required=False)
    assert judge(outcome(check(device="cpu")), expectation=declared).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("item", "remark"),
    [
        (check("x", "warn", summary="two copies of libcudart"), "x: two copies of libcudart"),
        (check("x", "unknown", summary="no counter"), "x: no counter"),
        (bench("x", "invalid", summary="too noisy"), "x: too noisy"),
        (bench("x", "warn", summary="throttled"), "x: throttled"),
    ],
)
def test_doubts_are_a_warning_with_a_remark(item: CheckResult, remark: str) -> None:
    judgement = judge(outcome(check(), item))
    assert (judgement.verdict, judgement.remarks, judgement.diagnosis) == (Verdict.WARN, (remark,), None)


def test_another_driver_is_a_remark() -> None:
    judgement = judge(outcome(check(), facts=MACHINE.model_copy(update={"driver": "535.104.05"})))
    assert judgement.verdict is Verdict.WARN
    assert judgement.remarks == ("the machine has driver 535.104.05; the configuration says 550.54.15",)
    unseen = MACHINE.model_copy(update={"driver": None})
    assert judge(outcome(check(), facts=unseen)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("exit_", "text"),
    [
        (Exit(code=1), "exit code 1"),
        (Exit(signal=11), "signal 11"),
        (Exit(code=137, timed_out=True), "did not end by itself"),
        (Exit(code=0, oom_killed=True), "memory limit"),
    ],
)
def test_a_strange_end_after_the_last_result_is_a_remark(exit_: Exit, text: str) -> None:
    judgement = judge(outcome(check()), exit_)
    assert judgement.verdict is Verdict.WARN
    assert text in judgement.remarks[0]


statuses = st.sampled_from([status.value for status in CheckStatus if status is not CheckStatus.INVALID])


@given(st.lists(statuses, max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_good_needs_a_pass_and_nothing_against_it(found: list[str], hello: bool, done: bool, required: bool) -> None:
    items = [check(f"item{index}", status) for index, status in enumerate(found)]
    expectation = Expectation(gpu="RTX 3090", gpu_requested=True, gpu_required=required)
    judgement = judge(outcome(*items, hello=hello, done=done), expectation=expectation)
    bad = not hello or not done or bool({"fail", "crash", "timeout"} & set(found))
    if judgement.verdict in {Verdict.PASS, Verdict.WARN}:
        assert not bad
        assert {"pass", "warn"} & set(found)
    if judgement.verdict is Verdict.PASS:
        assert set(found) <= {"pass", "skip"}
    if bad:
        assert judgement.diagnosis is not None


@pytest.mark.parametrize(
    ("in_container", "verdict", "side"), [(True, "fail", "configuration"), (False, "host-failed", "host")]
)
def test_a_card_that_is_not_seen_outside_a_container_is_the_machine_s_fault(
    in_container: bool, verdict: str, side: str
) -> None:
    expectation = ON_A_CARD.model_copy(update={"in_container": in_container})
    seen = outcome(check("host.driver", "fail", cause="gpu-not-exposed"), facts=Facts())
    judgement = judge(seen, expectation=expectation)
    assert judgement.verdict.value == verdict
    assert judgement.diagnosis is not None
    assert judgement.diagnosis.side == side
