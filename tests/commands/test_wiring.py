"""What `run` does with a machine that fails: a second try, and no third."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builders import make_plan, make_result
from cuda_matrix.commands.wiring import open_folder, run_and_record
from cuda_matrix.execute import Job, LaunchFailed, Session, after, worth_again
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.result import REMARKS_LIMIT, CellResult, Exit
from cuda_matrix.result_files import read_results
from test_execute import PlaybackSession, passing

FULL = "failed to register layer: write /x: no space left on device"


class FlakyEngine:
    """A machine whose disk is full for the first `failures` launches of each cell."""

    def __init__(self, failures: int, name: EngineName = EngineName.DOCKER) -> None:
        self.name = name
        self._failures = failures
        self.launched: list[str] = []

    @contextlib.contextmanager
    def launch(self, job: Job, progress: Callable[[str], None]) -> Iterator[Session]:
        progress("starting")
        self.launched.append(job.cell.id)
        if self.launched.count(job.cell.id) <= self._failures and job.cell.image == "good":
            raise LaunchFailed("pull", FULL, None)
        yield PlaybackSession(passing(job), Exit(code=0))  # type: ignore[misc]


def run(engine: FlakyEngine, out: Path) -> dict[str, CellResult]:
    plan = make_plan(images=("good", "other"))
    attempts = open_folder(out, plan, plan.cells, None)
    run_and_record(engine, "run-1", plan, plan.cells, out, attempts)  # type: ignore[arg-type]
    return {result.cell: result for result in read_results([out]).results}


def test_a_machine_that_failed_once_gets_a_second_try_which_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FlakyEngine(failures=1)
    results = run(engine, tmp_path)
    told = capsys.readouterr().err
    counts = [line.split()[0] for line in told.splitlines() if "@rtx4090  starting" in line]
    assert counts == ["[1/2]", "[2/2]", "[1/1]"]
    assert engine.launched == ["good@rtx4090", "other@rtx4090", "good@rtx4090"]
    good = results["good@rtx4090"]
    assert (good.verdict, good.attempt) == (Verdict.PASS, 2)
    assert good.remarks[0].startswith("second try; the first was host-failed, disk-full: ")
    assert results["other@rtx4090"].attempt == 1
    assert [path.name for path in (tmp_path / "previous").iterdir()] == ["good@rtx4090.1.json"]


def test_there_is_no_third_try(tmp_path: Path) -> None:
    engine = FlakyEngine(failures=9)
    assert run(engine, tmp_path)["good@rtx4090"].verdict is Verdict.HOST_FAILED
    assert engine.launched.count("good@rtx4090") == 2


def test_a_simulated_machine_says_the_same_again(tmp_path: Path) -> None:
    engine = FlakyEngine(failures=1, name=EngineName.SIMULATED)
    assert run(engine, tmp_path)["good@rtx4090"].verdict is Verdict.HOST_FAILED
    assert engine.launched.count("good@rtx4090") == 1


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_machines_and_registries_are_asked_again(verdict: Verdict) -> None:
    again = verdict in {Verdict.HOST_FAILED, Verdict.INCONCLUSIVE}
    assert worth_again(make_result("good@rtx4090", verdict)) is again
    assert not worth_again(make_result("good@rtx4090", verdict, exit=Exit(interrupted=True)))


def test_the_first_try_is_told_within_the_bounds() -> None:
    remarks = tuple(f"remark {number}" for number in range(REMARKS_LIMIT))
    first = make_result("good@rtx4090", Verdict.HOST_FAILED, reason="x" * 2000)
    told = after(first, make_result("good@rtx4090", remarks=remarks))
    assert len(told.remarks) == REMARKS_LIMIT
    assert CellResult.model_validate_json(told.model_dump_json()) == told
