"""Owns the ledger, `results.jsonl`: the last result of every cell, as lines that a commit holds.

Line 1 is `{"ledger_version": 1, "plan": {…}}`, each further line one result, sorted by cell. Must not know where the
file lies (result_files, commit_back) or what replaces what (ledger_merge). Whoever may push can write anything into
it: size, schema and ids are checked, and a bad line is data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cuda_matrix.errors import Problem
from cuda_matrix.gate import GOOD
from cuda_matrix.model import CELL_PATTERN, CheckStatus
from cuda_matrix.plan import Plan
from cuda_matrix.result import RESULT_VERSION, BenchmarkResult, CellResult, CheckResult
from cuda_matrix.result_documents import (
    RESULT_LIMIT_BYTES,
    NewerError,
    UnreadableError,
    check_version,
    json_object,
    parse_plan,
    parse_result,
)

LEDGER_FILE = "results.jsonl"
LEDGER_VERSION: Literal[1] = 1
LEDGER_LIMIT_BYTES = 32 << 20  # a request to GitHub's Git Data API ends at about 40 MB, and JSON adds its escapes
_LINES_LIMIT = 200_000

_QUIET = frozenset({CheckStatus.PASS, CheckStatus.WARN, CheckStatus.SKIP})


class LedgerTooLargeError(Exception):
    """Even without logs and passed checks the results do not fit into one file of a commit."""


@dataclass(frozen=True)
class Ledger:
    """A plan, and by cell id the last result of each of its cells that has one."""

    plan: Plan
    results: Mapping[str, CellResult]


@dataclass(frozen=True)
class Decoded:
    """What could be read. `results` may name a cell twice, and cells that the plan does not have.

    `newer`: the problem of the first line that a later version of this program wrote, if any.
    """

    plan: Plan | None
    results: tuple[CellResult, ...]
    problems: tuple[Problem, ...]
    newer: Problem | None = None


def encode(ledger: Ledger, limit_bytes: int = LEDGER_LIMIT_BYTES) -> bytes:
    """The file; same ledger, same bytes.

    It holds no logs of good checks. Where it would be larger than `limit_bytes`, it holds no logs at all, then no
    passed checks either: what a table, a recommendation and the next comparison need stays.

    Raises:
        LedgerTooLargeError: It is larger than that all the same.
    """
    for slim in (_without_quiet_logs, _without_logs, _without_passed):
        data = b"".join(_lines(ledger, slim))
        if len(data) <= limit_bytes:
            return data
    msg = f"the results of {len(ledger.results):,} cells take {len(data):,} bytes; {limit_bytes:,} fit into a commit"
    raise LedgerTooLargeError(msg)


def decode(data: bytes, name: str = LEDGER_FILE) -> Decoded:
    """What the file says. Never raises: a line that cannot be used is a problem at its place in `name`."""
    problems: list[Problem] = []
    newer: list[Problem] = []
    if len(data) > LEDGER_LIMIT_BYTES:
        return Decoded(None, (), (_problem(name, 1, f"is larger than {LEDGER_LIMIT_BYTES >> 20} MiB"),))
    lines = data.split(b"\n", _LINES_LIMIT)
    if lines and not lines[-1]:
        lines.pop()
    plan: Plan | None = None
    results: list[CellResult] = []
    try:
        plan = _plan(lines[0] if lines else b"")
    except UnreadableError as error:
        problems.append(_problem(name, 1, f"the first line {error}"))
        newer += problems if isinstance(error, NewerError) else ()
    for number, line in enumerate(lines[1:], 2):
        try:
            results.append(_result(line))
        except UnreadableError as error:  # noqa: PERF203 - each line is for itself
            problems.append(_problem(name, number, f"the line {error}"))
            newer += problems[-1:] if isinstance(error, NewerError) else ()
    return Decoded(plan, tuple(results), tuple(problems), next(iter(newer), None))


def is_plan_problem(problem: Problem) -> bool:
    """Whether what could not be read is a ledger's plan: what it demands is then unknown."""
    return problem.file.endswith(".jsonl") and problem.line == 1


def _lines(ledger: Ledger, slim: Callable[[CellResult], CellResult]) -> Iterator[bytes]:
    # With its defaults: another version of this program may have others, and must not take its own for ours.
    yield _line({"ledger_version": LEDGER_VERSION, "plan": ledger.plan.model_dump(mode="json")})
    for cell in sorted(ledger.results):
        document = slim(ledger.results[cell]).model_dump(mode="json", exclude_defaults=True)
        yield _line({"result_version": RESULT_VERSION, **document})


def _line(document: dict[str, object]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _plan(line: bytes) -> Plan:
    document = json_object(line)
    check_version(document, "ledger_version", LEDGER_VERSION)
    if set(document) != {"ledger_version", "plan"}:
        msg = "holds something else than a plan"
        raise UnreadableError(msg)
    return parse_plan(json.dumps(document["plan"]).encode())


def _result(line: bytes) -> CellResult:
    if len(line) > RESULT_LIMIT_BYTES:
        msg = f"is longer than {RESULT_LIMIT_BYTES >> 20} MiB"
        raise UnreadableError(msg)
    result = parse_result(line)
    if not CELL_PATTERN.fullmatch(result.cell):
        msg = "is of no cell"
        raise UnreadableError(msg)
    return result


def _problem(file: str, line: int, message: str) -> Problem:
    return Problem(file=file, line=line, column=1, path="", message=message)


def _without_quiet_logs(result: CellResult) -> CellResult:
    quiet = {"log": "", "facts": result.facts.model_copy(update={"libraries": ()})} if result.verdict in GOOD else {}
    return result.model_copy(
        update={
            **quiet,
            "checks": tuple(_silent(check) if check.status in _QUIET else check for check in result.checks),
            "benchmarks": tuple(_mute(bench) if bench.status in _QUIET else bench for bench in result.benchmarks),
        }
    )


def _without_logs(result: CellResult) -> CellResult:
    checks = tuple(map(_silent, result.checks))
    bare = {"log": "", "checks": checks, "benchmarks": tuple(map(_mute, result.benchmarks))}
    return result.model_copy(update={**bare, "facts": result.facts.model_copy(update={"libraries": ()})})


def _without_passed(result: CellResult) -> CellResult:
    kept: Iterable[CheckResult] = (check for check in result.checks if check.status is not CheckStatus.PASS)
    return _without_logs(result).model_copy(update={"checks": tuple(map(_silent, kept))})


def _silent(check: CheckResult) -> CheckResult:
    return check.model_copy(update={"log": ""})


def _mute(benchmark: BenchmarkResult) -> BenchmarkResult:
    return benchmark.model_copy(update={"log": ""})
