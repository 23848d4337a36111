"""What a cell costs beside a bare `docker run`: interleaved pairs in one run, medians compared with the bars.

Usage: make bench, or: python bench/bench.py --image IMAGE [--pairs 10]. IMAGE must hold python3 and torch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from cuda_matrix import matrix, protocol
from cuda_matrix.adapters.containers import Ownership, process_owner
from cuda_matrix.adapters.docker_engine import DockerEngine
from cuda_matrix.adapters.endpoint import connect
from cuda_matrix.config import Config
from cuda_matrix.errors import InfrastructureError
from cuda_matrix.execute import Run, run_cells
from cuda_matrix.plan import Plan
from cuda_matrix.reference import load_reference
from cuda_matrix.result import CellResult

HERE = Path(__file__).parent
EMPTY_CELL_BAR_S = 0.25  # more than `docker run --rm --gpus all IMAGE true`
TEN_CHECKS_BAR = 1.3  # times `docker run --rm IMAGE python3 -c "import torch"`


class Silent:
    """Progress that nobody watches."""

    def stage(self, cell: str, text: str) -> None:
        """Nothing."""

    def finished(self, result: CellResult) -> None:
        """Nothing."""


def configuration(image: str, checks: list[str], *, gpu: bool) -> dict[str, object]:
    """A matrix of one cell."""
    return {
        "version": 1,
        "images": [{"id": "bench", "ref": image}],
        "runners": {"here": {"labels": ["here"], **({"gpu": "RTX 3090"} if gpu else {})}},
        "payload": {"profile": "smoke", "checks": checks, "benchmarks": []},
    }


def plan_of(config: dict[str, object]) -> Plan:
    """Its plan."""
    parsed = Config.model_validate(config)
    return matrix.make_plan(matrix.expand(parsed), parsed)


def cell_runner(engine: DockerEngine, sources: dict[str, bytes]) -> Callable[[Plan], CellResult]:
    """A function that runs a plan's only cell through the same code as `cuda-matrix run`."""
    run = Run(
        engine=engine,
        run_id="bench",
        tool_version="bench",
        sources=sources,
        reference=load_reference(),
        clock=lambda: datetime.now(timezone.utc),
        elapsed=time.monotonic,
        new_marker=lambda: os.urandom(16).hex(),
        progress=Silent(),
        shield=contextlib.nullcontext,
    )

    def one(plan: Plan) -> CellResult:
        results: list[CellResult] = []
        run_cells(run, plan, plan.cells, {}, results.append)
        return results[0]

    return one


def timed(action: Callable[[], object]) -> float:
    """Seconds of wall time."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def docker_run(*arguments: str) -> None:
    """The peer."""
    subprocess.run(["docker", "run", "--rm", *arguments], check=True, stdout=subprocess.DEVNULL)


def pairs(count: int, actions: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Run every action once per round, in turn, the order reversed every second round; the first round warms up."""
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(count + 1):
        names = list(actions) if number % 2 else list(reversed(actions))
        for name in names:
            seconds = timed(actions[name])
            if number:
                samples[name].append(seconds)
    return samples


def show(title: str, samples: dict[str, list[float]]) -> dict[str, float]:
    """Print one comparison; returns the medians."""
    print(title)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    for name, values in samples.items():
        print(f"  {name:<52} {medians[name]:7.3f} s   ({min(values):.3f}–{max(values):.3f}, n={len(values)})")
    return medians


def has_gpus(image: str) -> bool:
    """Whether this daemon can serve --gpus at all."""
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["docker", "run", "--rm", "--gpus", "all", image, "true"], check=True, capture_output=True)
        return True
    return False


def empty_cell(image: str, count: int, engine: DockerEngine) -> bool:
    """Bar: a cell whose payload does nothing."""
    gpu = has_gpus(image)
    if not gpu:
        print("this daemon serves no --gpus: both sides go without")
    plan = plan_of(configuration(image, [], gpu=gpu))
    run_one = cell_runner(engine, protocol.payload_sources())
    result = run_one(plan)
    assert result.exit.code == 0, result.log
    peer = (*(["--gpus", "all"] if gpu else []), image, "true")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        file.write_text(plan.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "cuda_matrix", "run", "--plan", str(file), "--out", f"{folder}/results"]
        name = " ".join(["docker run --rm", *peer[:-2], "IMAGE true"])
        samples = pairs(
            count,
            {
                name: lambda: docker_run(*peer),
                "one cell whose payload does nothing": lambda: run_one(plan),
                "the whole process `cuda-matrix run` with that cell": lambda: subprocess.run(
                    command, check=True, stderr=subprocess.DEVNULL
                ),
            },
        )
    medians = show("An empty cell", samples)
    more = medians["one cell whose payload does nothing"] - medians[name]
    good = more <= EMPTY_CELL_BAR_S
    print(f"  the cell costs {more:+.3f} s; bar: at most +{EMPTY_CELL_BAR_S} s: {'good' if good else 'MISSED'}\n")
    return good


def ten_checks(image: str, count: int, engine: DockerEngine) -> bool:
    """Bar: ten trivial torch checks in one cell."""
    plan = plan_of(configuration(image, ["*"], gpu=False))
    sources = protocol.payload_sources()
    sources["cuda_matrix_payload/items.py"] = (HERE / "trivial_items.py").read_bytes()
    sources["cuda_matrix_payload/trivial.py"] = (HERE / "trivial.py").read_bytes()
    run_one = cell_runner(engine, sources)
    result = run_one(plan)
    passed = [check.id for check in result.checks if check.status.value == "pass" and check.id.startswith("trivial.")]
    assert len(passed) == 10, (result.verdict, result.log)
    samples = pairs(
        count,
        {
            'docker run --rm IMAGE python3 -c "import torch"': lambda: docker_run(
                image, "python3", "-c", "import torch"
            ),
            "one cell with ten trivial torch checks": lambda: run_one(plan),
        },
    )
    peer, ours = show("Ten trivial torch checks", samples).values()
    good = ours <= TEN_CHECKS_BAR * peer
    print(f"  {ours / peer:.2f} times the peer; bar: at most {TEN_CHECKS_BAR}: {'good' if good else 'MISSED'}")
    return good


def main() -> int:
    """Compare; 1 where a bar is missed."""
    registry = os.environ.get("CUDA_MATRIX_TEST_REGISTRY", "")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default=f"{registry}/cm/torch26:test" if registry else "")
    parser.add_argument("--pairs", type=int, default=10)
    arguments = parser.parse_args()
    try:
        connect(os.environ).close()
    except InfrastructureError as error:
        print(f"skipped: {error}")
        return 0
    if not arguments.image:
        print('skipped: no image; give --image, or start the test bed: eval "$(sudo tests/docker/testbed.sh up)"')
        return 0
    engine = DockerEngine(Ownership("bench", process_owner(os.getpid()), time.time), os.environ)
    subprocess.run(["docker", "pull", "--quiet", arguments.image], check=False, capture_output=True)
    good = [empty_cell(arguments.image, arguments.pairs, engine), ten_checks(arguments.image, arguments.pairs, engine)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
