"""Owns one run of one image on this machine for `doctor`: the pipeline's smoke profile. Nothing of it is kept."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cuda_matrix import matrix, result_files
from cuda_matrix.adapters.containers import Ownership, process_owner
from cuda_matrix.adapters.docker_engine import DockerEngine
from cuda_matrix.commands import wiring
from cuda_matrix.config import Config

if TYPE_CHECKING:
    from cuda_matrix.result import CellResult

LIMIT = "90s"


def run_once(ref: str, gpu: str | None, environ: dict[str, str]) -> CellResult:
    """The result of one cell: the image on this machine's cards, on its CPU where `gpu` is None.

    `ref` must mean an image that the daemon holds, by digest where it has one: a tag is asked of its registry, and
    pulled where it has moved.

    Raises:
        InfrastructureError: the daemon does not answer.
    """
    config = Config.model_validate(
        {
            "version": 1,
            "images": [{"id": "image", "ref": ref}],
            "runners": {"this-machine": {"labels": ["local"], "gpu": gpu}},
            "payload": {"profile": "smoke", "benchmarks": [], "timeout": LIMIT},
        }
    )
    plan = matrix.make_plan(matrix.expand(config), config)
    run_id = wiring.new_run_id(environ)
    engine = DockerEngine(Ownership(run_id=run_id, owner=process_owner(os.getpid()), now=time.time), environ)
    engine.prepare({None}, lambda _text: None)
    with tempfile.TemporaryDirectory(prefix="cuda-matrix-doctor-") as folder:
        out = Path(folder)
        attempts = wiring.open_folder(out, plan, plan.cells, beside=None)
        wiring.run_and_record(engine, run_id, plan, plan.cells, out, attempts)
        (result,) = result_files.read_results([out]).results
    return result
