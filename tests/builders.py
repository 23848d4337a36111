"""Small plans and results for tests; every argument has a plain default."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from cuda_matrix.config import ContainerOptions, PayloadOptions, Policy
from cuda_matrix.model import CheckStatus, EngineName, Verdict, cell_id
from cuda_matrix.plan import Lane, Plan, PlannedCell, PlannedImage, PlannedRunner, SkippedCell
from cuda_matrix.prediction import Prediction
from cuda_matrix.result import BenchmarkResult, CellResult, Diagnosis, Facts, Gpu, ImageIdentity, Samples, Timings

STARTED = datetime(2026, 11, 21, 9, 14, tzinfo=timezone.utc)
PAYLOAD = "sha256:" + "ab" * 32
CARDS = {"rtx3090": "RTX 3090", "a800": "A800 80GB", "cpu": None}  # of the runners that reports are made of
DIGEST = "sha256:" + "12" * 32


def make_runner(name: str, gpu: str | None = "RTX 4090", driver: str | None = "550.54.15") -> PlannedRunner:
    return PlannedRunner(id=name, labels=("self-hosted", name), gpu=gpu, driver=driver)


def make_image(name: str, **values: Any) -> PlannedImage:
    return PlannedImage(**{"id": name, "ref": f"example.org/{name}:1", "digest": DIGEST, **values})


def make_plan(
    images: tuple[PlannedImage | str, ...] = ("good",),
    runners: tuple[PlannedRunner | str, ...] = ("rtx4090",),
    skipped: tuple[tuple[str, str, str, str], ...] = (),
    policy: Policy | None = None,
    absent: tuple[str, ...] = (),
) -> Plan:
    """Every image on every runner. `skipped` holds (image, runner, kind, reason); `absent` cells are nowhere."""
    rows = {image.id: image for image in (make_image(i) if isinstance(i, str) else i for i in images)}
    columns = {runner.id: runner for runner in (make_runner(r) if isinstance(r, str) else r for r in runners)}
    left_out = {cell_id(image, None, runner) for image, runner, _, _ in skipped} | set(absent)
    cells = [
        PlannedCell(id=cell_id(image, None, runner), image=image, runner=runner, lane=lane)
        for lane, runner in enumerate(columns)
        for image in rows
        if cell_id(image, None, runner) not in left_out
    ]
    return Plan(
        images=rows,
        runners=columns,
        cells=tuple(cells),
        skipped=tuple(
            SkippedCell(id=cell_id(image, None, runner), image=image, runner=runner, kind=kind, reason=reason)
            for image, runner, kind, reason in skipped
        ),
        lanes=tuple(
            Lane(index=lane, runner=runner, cells=tuple(cell.id for cell in cells if cell.runner == runner))
            for lane, runner in enumerate(columns)
        ),
        payload=PayloadOptions(),
        container=ContainerOptions(),
        policy=policy or Policy(),
    )


def make_facts(gpu: str = "NVIDIA GeForce RTX 4090", memory_mib: int = 24564, **values: Any) -> Facts:
    card = Gpu(index=0, name=gpu, uuid_hash="9f3a5c7712de", memory_mib=memory_mib, compute_capability="8.9")
    defaults = {"driver": "550.54.15", "gpus": (card,), "torch": "2.2.0+cu121", "torch_cuda": "12.1"}
    return Facts(**{**defaults, **values})


def make_benchmark(median: float, **values: Any) -> BenchmarkResult:
    defaults: dict[str, Any] = {
        "id": "resnet50.train",
        "status": CheckStatus.PASS,
        "device": "cuda:0",
        "unit": "images/s",
        "samples": Samples(n=30, median=median, p5=median * 0.99, p95=median * 1.01, cv=0.004),
        "numbers": {
            "batch": 128,
            "precision": "amp",
            "peak_memory_gb": 18.21,
            "rounds": 3,
            "drift": 0.01,
            "stable": True,
        },
        "seconds": 61.5,
    }
    return BenchmarkResult(**{**defaults, **values})


def make_diagnosis(cause: str = "driver-too-old", **values: Any) -> Diagnosis:
    return Diagnosis(**{"cause": cause, "confidence": 0.9, **values})


def make_prediction(verdict: str = "pass", cause: str | None = None, **values: Any) -> Prediction:
    """What a plan says of a cell; by a rule of this file's own."""
    defaults: dict[str, Any] = {
        "verdict": verdict,
        "rule": "driver-floor",
        "cause": cause,
        "explanation": "CUDA 12.1 needs driver 525.60.13 or newer.",
        "source": "https://docs.nvidia.com/deploy/cuda-compatibility/",
        "confidence": 0.97,
    }
    return Prediction(**{**defaults, **values})


def make_result(
    cell: str, verdict: Verdict = Verdict.PASS, images_per_s: float | None = None, **values: Any
) -> CellResult:
    """A result of `image@runner`; with `images_per_s` it holds the main benchmark."""
    image, runner = cell.rsplit("@", 1)
    defaults: dict[str, Any] = {
        "cell": cell,
        "runner": runner,
        "gpu": CARDS.get(runner, "RTX 4090"),
        "image": ImageIdentity(id=image, ref=f"example.org/{image}:1", digest=DIGEST),
        "run_id": "run-1",
        "tool_version": "0.1.0",
        "payload_sha256": PAYLOAD,
        "profile": "standard",
        "engine": EngineName.DOCKER,
        "started_at": STARTED,
        "timings": Timings(total_s=90.0),
        "verdict": verdict,
        "reason": "every check passed" if verdict is Verdict.PASS else "a check did not pass",
        "facts": make_facts(),
        "benchmarks": () if images_per_s is None else (make_benchmark(images_per_s),),
    }
    return CellResult(**{**defaults, **values})


def item_row(id_: str, run: str, limit_s: float = 2, **keys: Any) -> dict[str, Any]:
    """One row of the table of items, the same in every profile."""
    limits = dict.fromkeys(("smoke", "standard", "full", "soak"), limit_s)
    return {"id": id_, "kind": "check", "run": run, "limits_s": limits, **keys}
