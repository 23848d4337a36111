"""Whole reports for golden files: a mixed fleet, an all-green one, and one with only hostile texts."""

from __future__ import annotations

from datetime import timedelta

from builders import (
    STARTED,
    make_benchmark,
    make_diagnosis,
    make_facts,
    make_image,
    make_plan,
    make_prediction,
    make_result,
    make_runner,
)
from cuda_matrix.config import ExpectFail, Policy
from cuda_matrix.errors import Problem
from cuda_matrix.gate import judge, newest_date
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.report.build import NO_LINKS, build_view
from cuda_matrix.report.view import Links, View
from cuda_matrix.result import CellResult, CheckResult, ImageIdentity

HOSTILE = (
    "</details> | `tick` ``` <script>alert(1)</script> <img src=x onerror=alert(1)> @octocat #1 GH-2 "
    "https://evil.example www.evil.example [x](javascript:alert(1)) **b** $x$ "
    "\x1b[31mred\x1b[0m \u202eabc\u2066 \x00\x08 "
    "line\none\r\ntwo\u2028three ::error::boom ##[error]boom ]]> \ufffe & \\| --> <!--"
)


def view_of(
    plan: Plan, results: tuple[CellResult, ...], problems: tuple[Problem, ...] = (), links: Links = NO_LINKS
) -> View:
    return build_view(plan, judge(plan, results, newest_date(results)), problems, links)


def mixed() -> View:
    """The fleet of the articles: three cards and a CPU machine, one verdict of each kind."""
    plan = make_plan(
        images=(
            make_image("torch2.2.0-cu118", expect={"torch": "2.2.0+cu118", "cuda": "11.8"}),
            make_image("torch2.2.0-cu121", expect={"torch": "2.2.0+cu121", "cuda": "12.1"}),
            make_image("torch2.9.1-cu130", expect={"torch": "2.9.1+cu130", "cuda": "13.0"}, digest=None),
            make_image("torch2.6.0-cpu", expect={"cuda": "none"}),
        ),
        runners=(
            make_runner("rtx3090", "RTX 3090"),
            make_runner("rtx4090"),
            make_runner("a800", "A800 80GB", "470.129.06"),
            make_runner("cpu", None, None),
        ),
        skipped=(
            (
                "torch2.9.1-cu130",
                "rtx4090",
                "predicted",
                "driver-too-old: driver 550.54.15 runs CUDA 12, the image has 13.0",
            ),
            ("torch2.9.1-cu130", "cpu", "excluded", "needs a card"),
        ),
        absent=(
            "torch2.6.0-cpu@rtx3090",
            "torch2.6.0-cpu@rtx4090",
            "torch2.6.0-cpu@a800",
            "torch2.2.0-cu118@cpu",
            "torch2.2.0-cu121@cpu",
        ),
        policy=Policy(
            expect_fail=(
                ExpectFail(
                    cell="torch2.9.1-cu130@rtx3090",
                    cause="no-native-kernels",
                    until="2026-12-31",
                    reason="upstream issue",
                ),
                ExpectFail(cell="torch2.2.0-cu118@rtx4090", until="2026-11-20", reason="an old one"),
                ExpectFail(cell="torch2.2.0-cu121@rtx3090", until="2026-11-21", reason="was slow"),
            )
        ),
    )
    a800 = make_facts("NVIDIA A800 80GB PCIe", 81920, driver="470.129.06", torch="2.2.0+cu118", torch_cuda="11.8")
    rtx3090 = make_facts("NVIDIA GeForce RTX 3090", 24576)
    too_old = make_diagnosis(
        title="The driver is older than the image's CUDA runtime needs",
        side="image",
        evidence="The NVIDIA driver on your system is too old (found version 11040).",
        where="first-kernel",
        explanation="The image's CUDA 12.1 runtime needs driver 525.60.13 or newer; this host has 470.129.06.",
        fix=("Upgrade the driver to 525.60.13 or newer (`nvidia-smi` shows it).",),
        source="https://docs.nvidia.com/deploy/cuda-compatibility/",
        alternatives=("gpu-not-exposed",),
    )
    checks = (
        CheckResult(id="torch.import", status=CheckStatus.PASS, summary="imported", seconds=1.84),
        CheckResult(
            id="first-kernel",
            status=CheckStatus.FAIL,
            device="cpu",
            evidence="The NVIDIA driver on your system is too old (found version 11040).",
            numbers={"max_error": 0.00012, "verified": False},
            thresholds={"max_error": 0.001},
            log='Traceback (most recent call last):\n  File "x.py", line 1\nRuntimeError: driver too old',
            seconds=0.31,
        ),
    )
    throttled = CheckResult(
        id="throttled", status=CheckStatus.WARN, summary="the card was power-limited in 3 of 3 rounds"
    )
    no_card = CheckResult(id="host.driver", status=CheckStatus.SKIP, summary="no NVIDIA driver here | none required")
    no_gpu = CheckResult(id="numerics.tf32", status=CheckStatus.SKIP, summary="no NVIDIA driver here | none required")
    no_path = CheckResult(id="cuda.runtimes", status=CheckStatus.UNKNOWN, evidence="no libcudart in the usual places")
    drifts = {"stable": False, "drift": -0.071, "peak_memory_gb": 18.2, "library_path": ""}
    results = (
        make_result(
            "torch2.2.0-cu118@rtx3090",
            images_per_s=900,
            facts=rtx3090,
            engine=EngineName.SIMULATED,
            prediction=make_prediction(),
        ),
        make_result("torch2.2.0-cu121@rtx3090", images_per_s=861.2, facts=rtx3090, checks=(no_path,)),
        make_result(
            "torch2.9.1-cu130@rtx3090",
            Verdict.FAIL,
            facts=rtx3090,
            prediction=make_prediction("fail", "driver-too-old"),
            diagnosis=make_diagnosis(
                "no-native-kernels", evidence="no kernel image is available", explanation="Too new."
            ),
        ),
        make_result(
            "torch2.2.0-cu118@rtx4090",
            Verdict.WARN,
            images_per_s=1180,
            prediction=make_prediction("fail", "arch-no-kernel", rule="kernel-coverage", explanation="No sm_89."),
            checks=(throttled,),
            remarks=("the card was power-limited in 3 of 3 rounds", "the image runs as root"),
        ),
        make_result(
            "torch2.2.0-cu121@rtx4090",
            images_per_s=1245.3,
            started_at=STARTED + timedelta(minutes=6),
            prediction=make_prediction("unknown"),
        ),
        make_result("torch2.2.0-cu118@a800", benchmarks=(make_benchmark(980, numbers=drifts),), facts=a800),
        make_result(
            "torch2.2.0-cu121@a800",
            Verdict.FAIL,
            facts=make_facts("NVIDIA A800 80GB PCIe", 81920, driver="470.129.06"),
            checks=checks,
            diagnosis=too_old,
            prediction=make_prediction(),
            prediction_here=make_prediction("fail", "driver-too-old"),
            repro="docker run --rm --gpus all example.org/torch2.2.0-cu121@sha256:1212 python -c 'import torch'",
        ),
        make_result(
            "torch2.6.0-cpu@cpu",
            gpu=None,
            facts=make_facts(gpus=(), driver=None, cpu_model="AMD EPYC 7763", torch="2.6.0+cpu", torch_cuda="none"),
            checks=(no_card, no_gpu, no_path),
            benchmarks=(make_benchmark(12.34, device="cpu"),),
        ),
        make_result("torch1.0@rtx3090"),
    )
    problems = (Problem("lane-2/torch2.9.1-cu130@a800.json", 0, 0, "", "is not complete JSON: EOF"),)
    links = Links(
        run="https://github.com/o/r/actions/runs/1", page="https://o.github.io/r/", results="javascript:alert(1)"
    )
    skipped = (plan.skipped[0].model_copy(update={"prediction": make_prediction("fail", "driver-too-old")}),)
    plan = plan.model_copy(update={"skipped": skipped + plan.skipped[1:]})
    return view_of(plan, results, problems, links)


def green() -> View:
    """Everything passes on two cards."""
    plan = make_plan(images=("torch2.2.0-cu118", "torch2.2.0-cu121"), runners=("a", "b"))
    said = make_prediction()
    results = (make_result(cell.id, images_per_s=900 + 10 * n, prediction=said) for n, cell in enumerate(plan.cells))
    return view_of(plan, tuple(results))


def nothing_ran() -> View:
    """A plan and not one result."""
    return view_of(make_plan(images=("one", "two"), runners=(make_runner("a"), make_runner("b", None, None))), ())


def hostile() -> View:
    """Every text that a container or a registry can choose is hostile."""
    image = make_image("evil", expect={"torch": HOSTILE})
    plan = make_plan(images=(image, "absent"), runners=(make_runner("card", HOSTILE, HOSTILE),))
    check = CheckResult(
        id=HOSTILE,
        status=CheckStatus.FAIL,
        summary=HOSTILE,
        device=HOSTILE,
        numbers={"n": HOSTILE},
        cause=HOSTILE,
        evidence=HOSTILE,
        log=HOSTILE,
    )
    result = make_result(
        "evil@card",
        Verdict.FAIL,
        prediction=make_prediction(explanation=HOSTILE, rule=HOSTILE, source=HOSTILE),
        prediction_here=make_prediction(explanation=HOSTILE, rule=HOSTILE, source="javascript:alert(1)"),
        gpu=HOSTILE,
        reason=HOSTILE,
        remarks=(HOSTILE,),
        run_id=HOSTILE,
        tool_version=HOSTILE,
        profile=HOSTILE,
        payload_sha256=HOSTILE,
        image=ImageIdentity(id=HOSTILE, ref="example.org/evil:1", image_id=HOSTILE),
        facts=make_facts(HOSTILE, driver=HOSTILE, torch=HOSTILE, torch_cuda=HOSTILE),
        checks=(check,),
        diagnosis=make_diagnosis(
            HOSTILE,
            title=HOSTILE,
            evidence=HOSTILE,
            where=HOSTILE,
            explanation=HOSTILE,
            fix=(HOSTILE,),
            source="javascript:alert(1)",
            alternatives=(HOSTILE,),
        ),
        log=HOSTILE,
        repro=HOSTILE,
    )
    return view_of(plan, (result, make_result(f"{HOSTILE}@x")), (Problem(HOSTILE, 0, 0, "", HOSTILE),))


CASES = {"mixed": mixed, "green": green, "nothing-ran": nothing_ran, "hostile": hostile}
