"""Owns the figures of a report: the main number, the performance table and the chart.

Must not know formats. A figure counts only where its benchmark passed; CPU, simulated and measured never compete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cuda_matrix.gate import GOOD, Judgement
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.report import numbers
from cuda_matrix.report.view import Bar, CellView, Chart, Column, Performance, Row
from cuda_matrix.report.words import CPU, DRIFTS, LOCAL, SIMULATED, WORDS
from cuda_matrix.result import BenchmarkResult, CellResult

# The main number of a cell: the first of these that it has. A soak run trains the same network, for hours.
MAIN_BENCHMARKS = ("resnet50.train", "soak.train")
_FEWEST_RIVALS = 2
_COUNTS = frozenset({CheckStatus.PASS, CheckStatus.WARN})


class Figure(NamedTuple):
    """The main number of a cell. `engine` and `cpu` say with which others it can be compared.

    `low` and `high` are p5 and p95 in images/s; `drifting` is true where the benchmark says that it is not stable.
    """

    images_per_s: float
    engine: EngineName
    cpu: bool
    low: float
    high: float
    drifting: bool


def main_benchmark(result: CellResult | None) -> BenchmarkResult | None:
    """ResNet-50 training, whatever its status; None where it was not asked for or not reached."""
    if result is None:
        return None
    by_id = {benchmark.id: benchmark for benchmark in result.benchmarks}
    return next((by_id[name] for name in MAIN_BENCHMARKS if name in by_id), None)


def figure(result: CellResult | None) -> Figure | None:
    """Median images/s of ResNet-50 training, only where that benchmark passed."""
    benchmark = main_benchmark(result)
    if result is None or benchmark is None or benchmark.samples is None or benchmark.status not in _COUNTS:
        return None
    median = numbers.as_float(benchmark.samples.median)
    if median is None:
        return None
    low, high = benchmark.samples.p5, benchmark.samples.p95
    return Figure(median, result.engine, ran_on_cpu(benchmark), low, high, benchmark.numbers.get("stable") is False)


def ran_on_cpu(benchmark: BenchmarkResult) -> bool:
    """True unless the benchmark says that a CUDA device did the work."""
    return not (benchmark.device or "").startswith("cuda")


def marks(result: CellResult | None) -> tuple[str, ...]:
    """What must stand beside every figure of this result."""
    if result is None:
        return ()
    found = figure(result)
    origin = engine_mark(result)
    return ((CPU,) if found and found.cpu else ()) + ((origin,) if origin else ())


def engine_mark(result: CellResult) -> str:
    """What must be said of where this result comes from; empty for a container."""
    return {EngineName.SIMULATED: SIMULATED, EngineName.LOCAL: LOCAL}.get(result.engine, "")


def fastest(cells: Iterable[Judgement]) -> str:
    """Id of the good cell of one runner that is clearly the fastest; empty where none is."""
    rivals = _rivals(cells)
    if len(rivals) < _FEWEST_RIVALS:
        return ""
    first, *others = sorted(rivals, key=lambda cell: -rivals[cell].images_per_s)
    return first if all(rivals[other].high < rivals[first].low for other in others) else ""


def contested(cells: Iterable[Judgement]) -> bool:
    """True where images of one runner can be compared and none is clearly the fastest."""
    cells = list(cells)
    return len(_rivals(cells)) >= _FEWEST_RIVALS and not fastest(cells)


def _rivals(cells: Iterable[Judgement]) -> dict[str, Figure]:
    """Figures of a card that can be compared: all of one engine, measured before simulated. A CPU's are too noisy."""
    figures = {cell.cell: found for cell in cells if cell.verdict in GOOD and (found := figure(cell.result))}
    on_card = {cell: found for cell, found in figures.items() if not found.cpu}
    engines = {(found.engine is EngineName.SIMULATED, found.engine.value) for found in on_card.values()}
    if not engines:
        return {}
    _, engine = min(engines)
    return {cell: found for cell, found in on_card.items() if found.engine.value == engine}


def performance_rows(
    plan: Plan, cells: Iterable[Judgement], columns: Mapping[str, Column], word: Callable[[Judgement], str]
) -> tuple[Performance, ...]:
    """One row for each planned cell, by runner and then by image, in plan order. `word` says why there is no figure."""
    order = list(plan.runners)
    rows = sorted((cell for cell in cells if cell.verdict is not Verdict.SKIPPED), key=lambda c: order.index(c.runner))
    return tuple(_row(plan, cell, columns[cell.runner], word(cell)) for cell in rows)


def _row(plan: Plan, judged: Judgement, column: Column, word: str) -> Performance:
    result, found, benchmark = judged.result, figure(judged.result), main_benchmark(judged.result)
    expect = plan.images[judged.image].expect
    facts = result.facts if result else None
    samples = benchmark.samples if found and benchmark else None
    peak = numbers.as_float(benchmark.numbers.get("peak_memory_gb")) if found and benchmark else None
    return Performance(
        cell=judged.cell,
        image=judged.image,
        runner=judged.runner,
        verdict=judged.verdict,
        gpu=column.title,
        cuda=_seen(facts.torch_cuda if facts else None, expect.get("cuda")),
        torch=_seen(facts.torch if facts else None, expect.get("torch")),
        images_per_s=numbers.number(found.images_per_s) if found else numbers.NONE,
        spread=numbers.spread(samples.p5, samples.p95) if samples else numbers.NONE,
        memory_gb=numbers.number(peak),
        stable=_stable(judged, benchmark, word),
        how=_how(result, benchmark),
        simulated=bool(result and result.simulated),
        cpu=bool(found and found.cpu),
    )


def _seen(seen: str | None, expected: str | None) -> str:
    if seen:
        return seen
    return f"{expected} (configured)" if expected else numbers.NONE


def _stable(judged: Judgement, benchmark: BenchmarkResult | None, word: str) -> str:
    if judged.verdict not in GOOD:
        return f"no: {judged.cause or word}"
    if benchmark is None:
        return "not measured"
    if benchmark.status not in _COUNTS:
        return f"no: {benchmark.status.value}"
    stable = benchmark.numbers.get("stable")
    if not isinstance(stable, bool):
        return "not measured"
    if stable:
        hours = numbers.as_float(benchmark.numbers.get("hours"))
        return "yes" if hours is None else f"yes, {numbers.quantity(hours, 'h')}"
    drift = numbers.as_float(benchmark.numbers.get("drift"))
    return "no" if drift is None else f"{DRIFTS} {numbers.quantity(100 * drift, '%')}"


def _how(result: CellResult | None, benchmark: BenchmarkResult | None) -> str:
    if result is None:
        return WORDS[Verdict.NOT_RUN].word
    if result.simulated:
        return SIMULATED
    device = benchmark.device if benchmark and benchmark.device else None
    if device is None:
        return result.engine.value
    return f"{CPU if benchmark and ran_on_cpu(benchmark) else device}, {result.engine.value}"


def charts(columns: Iterable[Column], rows: Iterable[Row]) -> tuple[Chart, ...]:
    """Bars per runner, where there is at least one figure; one scale for all cards, another for CPUs."""
    fields = [cell for row in rows for cell in row.cells if cell is not None and cell.images_per_s is not None]
    longest = {
        cpu: max((c.images_per_s or 0.0 for c in fields if (CPU in c.marks) is cpu), default=0.0)
        for cpu in (False, True)
    }
    made = []
    for column in columns:
        bars = tuple(_bar(cell, longest[CPU in cell.marks]) for cell in fields if cell.runner == column.runner)
        if bars:
            made.append(Chart(column.title, bars))
    return tuple(made)


def _kind(cell: CellView) -> str:
    return " ".join(cell.marks) or "measured"


def _bar(cell: CellView, longest: float) -> Bar:
    percent = round(100 * (cell.images_per_s or 0.0) / longest, 1) if longest else 0.0
    return Bar(cell.image, cell.number, percent, _kind(cell), cell.bold)
