"""Owns running a cell of a described fleet: the same event stream through the same code, from no machine at all.

Must not know the rules of the simulation (simulation).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cuda_matrix import simulation
from cuda_matrix.execute import LaunchFailed, planned_identity
from cuda_matrix.model import EngineName, image_key
from cuda_matrix.result import ImageIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cuda_matrix.execute import Channel, Job
    from cuda_matrix.result import Exit
    from cuda_matrix.scenario import Scenario
    from cuda_matrix.simulated_items import SimulatedCell
    from cuda_matrix.tables import Reference


class SimulatedSession:
    """One simulated cell."""

    pull_s = 0.0
    start_s = 0.0

    def __init__(self, cell: SimulatedCell, job: Job, identity: ImageIdentity) -> None:
        self._cell = cell
        self._job = job
        self.identity = identity

    def chunks(self) -> Iterator[tuple[Channel, bytes]]:
        """The lines that the payload would print."""
        for line in simulation.events(self._cell, self._job.request):
            yield "stdout", line

    def kill(self) -> None:
        """Nothing runs that could be killed."""

    def wait(self) -> Exit:
        """How the scenario lets it end."""
        return simulation.ending(self._cell)


class SimulatedEngine:
    """Runs cells of one scenario. Every result carries the engine's name, and every report says `simulated`."""

    name = EngineName.SIMULATED

    def __init__(self, scenario: Scenario, reference: Reference) -> None:
        self._scenario = scenario
        self._reference = reference

    def prepare(self, cells: Iterable[tuple[str, str]]) -> None:
        """See that the scenario knows every (image key, runner) before the first one runs.

        Raises:
            ConfigurationError: it does not.
        """
        for image, runner in cells:
            cell = simulation.simulated_cell(self._scenario, image, runner, self._reference, gpu_required=True)
            simulation.launch_failure(cell)

    @contextlib.contextmanager
    def launch(self, job: Job, progress: Callable[[str], None]) -> Iterator[SimulatedSession]:
        """Decide the cell by the scenario."""
        key = image_key(job.image.id, job.image.variant)
        cell = simulation.simulated_cell(
            self._scenario, key, job.runner.id, self._reference, gpu_required=job.request.gpu_required
        )
        identity = planned_identity(job.image)
        failure = simulation.launch_failure(cell)
        if failure is not None:
            stage, text = failure
            raise LaunchFailed(stage=stage, text=text, identity=identity)
        progress("simulated")
        yield SimulatedSession(cell, job, identity)
