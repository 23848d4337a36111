"""Owns a simulated cell's output: the bytes that the payload would print, how it ends, or why it never starts.

Must not know engines or the clock: nothing here sleeps, and nothing is random that the cell's id does not decide.
The lines follow docs/payload-protocol.md; the plan is that of the real payload (a test compares them).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cuda_matrix import simulated_items
from cuda_matrix.documents import load_table
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.payload_items import Item, ItemTable, matches
from cuda_matrix.reference import data_text
from cuda_matrix.result import Exit
from cuda_matrix.scenario import Scenario
from cuda_matrix.simulated_items import SimulatedCell, reported_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cuda_matrix.model import Profile
    from cuda_matrix.tables import Reference
    from cuda_matrix.verdict import LaunchStage

DEMO = "demo-fleet.yml"
FLOOD_LINES = 20_000
FLOOD_LINE = b"[rank0] step 000000 loss 2.3105 lr 0.1000 images/s 812.4 | " + b"x" * 40 + b"\n"
_STOPPING = frozenset({"hang", "oom", "cut-stream"})


class Request(Protocol):
    """What a simulated payload reads of its request (protocol.Request has it)."""

    @property
    def marker(self) -> str:
        """32 hex digits that begin every event line."""

    @property
    def profile(self) -> Profile:
        """Which items, and how long."""

    @property
    def checks(self) -> tuple[str, ...]:
        """Globs."""

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Globs."""

    @property
    def expect(self) -> dict[str, str]:
        """What must be found in the image."""


def load_scenario(path: Path | None) -> Scenario:
    """A user's scenario, or the demo's.

    Raises:
        ConfigurationError: the file is not a scenario.
    """
    if path is None:
        return load_table(Scenario, data_text(DEMO).encode(), DEMO)
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"the scenario {path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg, hint="without --scenario the demo's fleet is simulated") from error
    return load_table(Scenario, data, str(path))


def simulated_cell(
    scenario: Scenario, image_key: str, runner: str, reference: Reference, *, gpu_required: bool
) -> SimulatedCell:
    """Everything that decides one cell.

    Raises:
        ConfigurationError: the scenario lacks its host or image, or names a card that no table has.
    """
    host = scenario.host_of(runner)
    card = next((card for card in reference.cards if card.id == host.card), None)
    if host.card is not None and card is None:
        msg = f"the scenario's host {runner!r} has the card {host.card!r}, which is not in the table of cards"
        raise ConfigurationError(msg)
    cell_id = f"{image_key}@{runner}"
    return SimulatedCell(
        id=cell_id,
        image_key=image_key,
        host=host,
        card=card,
        image=scenario.image_of(image_key),
        faults=scenario.faults_of(cell_id),
        scenario=scenario,
        reference=reference,
        gpu_required=gpu_required,
    )


def launch_failure(cell: SimulatedCell) -> tuple[LaunchStage, str] | None:
    """The stage and the engine's words, where the scenario says that this cell never starts."""
    for fault in cell.faults:
        if fault.kind == "launch":
            message = cell.reference.messages.get(fault.message or "")
            if message is None or message.stage == "run":
                stages = [name for name, known in cell.reference.messages.items() if known.stage != "run"]
                msg = f"the launch fault of {cell.id} needs a `message` out of {', '.join(stages)}"
                raise ConfigurationError(msg)
            return message.stage, cell.words(fault.message or "")
    return None


def ending(cell: SimulatedCell) -> Exit:
    """How the process ends after its last line."""
    kinds = {fault.kind for fault in cell.faults}
    if "oom" in kinds:
        return Exit(code=137, signal=9, oom_killed=True)
    if "hang" in kinds:
        return Exit(code=137, signal=9, timed_out=True)
    return Exit(code=1 if "cut-stream" in kinds else 0)


def events(cell: SimulatedCell, request: Request) -> Iterator[bytes]:
    """Every line of stdout, in order; the last may be cut."""
    if any(fault.kind == "no-hello" for fault in cell.faults):
        yield b"[I ServerApp] Jupyter Server is running at: http://127.0.0.1:8888/lab\n"
        return
    say = _Speaker(request.marker)
    yield say("hello", protocol=1, python=cell.image.python)
    chosen, barren = _select(cell.reference.items, request)
    planned = [{"id": i.id, "kind": i.kind, "limit_s": i.limits_s[request.profile]} for i in chosen]
    yield say("plan", items=planned + [{"id": glob, "kind": kind, "limit_s": 0} for glob, kind, _ in barren])
    for name, value in _facts(cell):
        yield say("fact", name=name, value=value)
    for glob, _, elsewhere in barren:
        if elsewhere:
            yield say("end", id=glob, status="skip", summary=f"the profile {request.profile} leaves this out")
        else:
            yield say("end", id=glob, status="unknown", summary="no item of this payload matches this glob")
    if any(fault.kind == "flood" for fault in cell.faults):
        yield from (FLOOD_LINE for _ in range(FLOOD_LINES))
    for item in chosen:
        if "first-kernel" in item.needs and cell.device is None:
            yield say("end", id=item.id, status="skip", summary="no usable GPU")
            continue
        yield say("start", id=item.id)
        stop = [fault.kind for fault in cell.faults if fault.kind in _STOPPING and cell.strikes(fault.kind, item.id)]
        result = _result(cell, item, request)  # without `seconds`: nothing took any
        if stop:
            if "cut-stream" in stop:
                yield say("end", id=item.id, **result)[:60]
            return
        yield say("end", id=item.id, **result)
    yield say("done", seconds=0.0)


class _Speaker(NamedTuple):
    marker: str

    def __call__(self, event: str, **keys: Any) -> bytes:
        return f"{self.marker} {json.dumps({'event': event, **keys})}\n".encode("ascii")


def _select(table: ItemTable, request: Request) -> tuple[list[Item], list[tuple[str, str, bool]]]:
    """The items asked for with what they need, in the payload's order; and globs without one: glob, kind, known."""
    offered = {item.id: item for item in table.items if request.profile in item.limits_s}
    wanted: set[str] = set()
    barren: list[tuple[str, str, bool]] = []
    for kind, globs in (("check", request.checks), ("benchmark", request.benchmarks)):
        for glob in globs:
            known = {item.id for item in table.items if item.kind == kind and matches(item.id, glob)}
            here = known & offered.keys()
            wanted |= here
            if not here and glob != "*" and glob not in [other for other, _, _ in barren]:
                barren.append((glob, kind, bool(known)))
    for item in reversed(offered.values()):  # what an item needs stands before it
        if item.id in wanted:
            wanted.update(item.needs)
    return [item for item in offered.values() if item.id in wanted], barren


def _facts(cell: SimulatedCell) -> Iterator[tuple[str, Any]]:
    host, image, card = cell.host, cell.image, cell.card
    yield "python", image.python
    yield "os", host.os
    yield "kernel", host.kernel
    yield "machine", "x86_64"
    yield "cpu_count", host.cpu_count
    yield "memory_gb", host.memory_gb
    yield "glibc", image.glibc
    yield "torch", image.torch
    yield "torch_cuda", image.cuda or "none"
    if image.cuda:
        yield "cudnn", image.cudnn
        yield "nccl", image.nccl
        yield "arch_list", list(image.arch_list)
        yield "cuda_runtimes", [{"path": f"/usr/local/cuda-{image.cuda}/lib64/libcudart.so", "version": image.cuda}]
    if card is None:
        yield "nvidia_smi", "missing"
        return
    yield "driver", host.driver
    yield "nvidia_smi", "ok"
    name = reported_name(card)
    memory = round(max(card.memory_gb) * 1024)  # cards are sold in binary gigabytes
    gpus = [{"index": i, "name": name, "memory_mib": memory, "compute_capability": card.cc} for i in range(host.count)]
    yield "gpus", gpus
    yield "cuda_available", cell.device == "cuda:0"
    if cell.device == "cuda:0":
        yield "device_name", name
        yield "device_capability", card.cc


def _result(cell: SimulatedCell, item: Item, request: Request) -> dict[str, Any]:
    if cell.strikes("segfault", item.id):
        summary = "died: signal 11 (Segmentation fault)"
        text = cell.words("segfault")
        return {"status": "crash", "summary": summary, "evidence": text, "numbers": {"signal": 11}}
    for kind, message in (("gpu-oom", "gpu-oom"), ("ecc", "gpu-ecc")):
        if cell.strikes(kind, item.id):
            text = cell.words(message)
            return {"status": "fail", "summary": text[:80], "device": cell.device, "evidence": text}
    if item.kind == "benchmark":
        return simulated_items.benchmark(cell, item.id, item.unit)
    if item.id in simulated_items.PRODUCTS:
        return simulated_items.numerics(cell, item.id.rsplit(".", maxsplit=1)[1])
    image = cell.image
    simple = {
        "python": {"status": "pass", "summary": f"Python {image.python}"},
        "torch.import": {"status": "pass", "summary": f"torch {image.torch}"},
        "cuda.runtimes": {
            "status": "pass" if image.cuda else "skip",
            "summary": f"CUDA runtime {image.cuda or 'none'}",
        },
    }
    if item.id in simple:
        return dict(simple[item.id])
    by_rule = {
        "host.driver": lambda: simulated_items.host_driver(cell),
        "torch.cuda-build": lambda: simulated_items.cuda_build(cell, request.expect),
        "image.expect": lambda: simulated_items.image_expect(cell, request.expect),
        "first-kernel": lambda: simulated_items.first_kernel(cell),
        "training.cnn": lambda: simulated_items.training(cell),
    }.get(item.id)
    # What no rule or published figure decides is not made up.
    return by_rule() if by_rule else {"status": "skip", "summary": "not simulated"}
