"""Owns the diagnosis tree: its shape, the walk down it, and which answers a cell's result gives.

Must not know how a path is drawn (report) or where the tree is read from (reference). An answer is either
seen, or follows from the diagnosed cause (then it says so); where neither holds, the path ends: nothing is guessed.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from cuda_matrix.drivers import DriverTable
from cuda_matrix.facts import version_key
from cuda_matrix.kernels import coverage
from cuda_matrix.model import CheckStatus, EngineName, Frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cuda_matrix.result import CellResult, CheckResult

YES, NO = "yes", "no"
EVIDENCE_LIMIT = 200  # characters of one answer's evidence

# seen: a fact or a check says it. diagnosis: it follows from the diagnosed cause. unseen: nothing was seen, and that is
# what the question asks. open: no answer, the path ends here. clash: what was seen leads away from the diagnosed cause.
Basis = Literal["seen", "diagnosis", "unseen", "open", "clash"]
Id = Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$")]

_CAPABILITY = re.compile(r"\d{1,2}\.\d")
_STAGES = frozenset({"pull", "create", "start"})
_OTHER_CARD = "runner-card-mismatch"
_BROKEN = frozenset({CheckStatus.FAIL, CheckStatus.CRASH, CheckStatus.TIMEOUT})


class Local(Frozen):
    """What differs where a machine's own interpreter runs, without image and container; None: nothing does."""

    question: str | None = None
    answers: dict[str, Id] | None = None
    title: str | None = None
    do: tuple[str, ...] | None = None

    @property
    def changes(self) -> dict[str, object]:
        """The fields that differ."""
        return {name: value for name, value in self if value is not None}


class Node(Frozen):
    """One question of data/diagnosis-tree.yml, whose header explains every field."""

    id: Id
    question: str
    answers: dict[str, Id] = Field(min_length=2)
    bad: tuple[str, ...] = Field(min_length=1)
    aside: tuple[str, ...] = ()
    unseen: str | None = None
    local: Local = Local()
    sources: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _of_its_own(self) -> Node:
        strange = {*self.bad, *self.aside, *([self.unseen] if self.unseen else [])} - set(self.answers)
        if strange:
            msg = f"{self.id}: no such answer: {', '.join(sorted(strange))}"
            raise ValueError(msg)
        return self


class Leaf(Frozen):
    """One end: the causes that are found there, and what to do when no more is known."""

    id: Id
    title: str
    causes: tuple[str, ...]
    do: tuple[str, ...] = Field(min_length=1)
    local: Local = Local()


class Tree(Frozen):
    """All of it. The first node is the root; several ways may lead to one node, none leads back."""

    nodes: tuple[Node, ...]
    leaves: tuple[Leaf, ...]

    @model_validator(mode="after")
    def _one_piece(self) -> Tree:
        ids = [node.id for node in self.nodes] + [leaf.id for leaf in self.leaves]
        targets = {to for node in self.nodes for to in node.answers.values()}
        wrong = sorted({each for each in ids if ids.count(each) > 1} | targets ^ set(ids[1:]))
        # Answers only lead to what stands further down in the file: so no way leads back.
        wrong += [n.id for i, n in enumerate(self.nodes) if any(to in ids[: i + 1] for to in n.answers.values())]
        if wrong:
            msg = f"twice, never reached, not there, or leading back: {', '.join(wrong)}"
            raise ValueError(msg)
        return self

    @cached_property
    def causes_below(self) -> dict[str, frozenset[str]]:
        """Node or leaf → every cause that can be found from there."""
        found = {leaf.id: frozenset(leaf.causes) for leaf in self.leaves}
        for node in reversed(self.nodes):
            found[node.id] = frozenset().union(*(found[to] for to in node.answers.values()))
        return found

    @cached_property
    def local(self) -> Tree:
        """The same tree for a machine's own interpreter: in its words, without what only a container can meet."""
        nodes = [node.model_copy(update=node.local.changes) for node in self.nodes]
        kept = {nodes[0].id}
        for node in nodes:  # what an answer leads to stands further down
            kept |= set(node.answers.values()) if node.id in kept else set()
        leaves = tuple(leaf.model_copy(update=leaf.local.changes) for leaf in self.leaves if leaf.id in kept)
        return Tree(nodes=tuple(node for node in nodes if node.id in kept), leaves=leaves)

    def node(self, id_: str) -> Node | None:
        """The question of this id; None where it is a leaf's."""
        return next((node for node in self.nodes if node.id == id_), None)

    def leaf(self, id_: str) -> Leaf | None:
        """The leaf of this id; None where it is a question's."""
        return next((leaf for leaf in self.leaves if leaf.id == id_), None)


class Known(Frozen):
    """An answer that was seen, and by what."""

    answer: str
    evidence: str


class Step(Frozen):
    """One question on the way. `answer` is empty where the path ends here for want of one."""

    node: Node
    answer: str
    basis: Basis
    evidence: str

    @property
    def bad(self) -> bool:
        """True where the answer says that something is wrong here."""
        return self.answer in self.node.bad


class Path(Frozen):
    """The way down. `leaf` is None where it ended before one; `cause` is the diagnosed one, if there is a diagnosis."""

    steps: tuple[Step, ...]
    leaf: Leaf | None
    cause: str | None = None


def walk(tree: Tree, known: Mapping[str, Known], cause: str | None = None, said: str = "") -> Path:
    """From the root as far down as answers are known.

    `known`: node id → what was seen. `cause`: the diagnosed code, None without a diagnosis; `said`: its evidence. A
    cause that is nowhere in the tree (of a newer catalogue) is as none. With a diagnosis the path ends in a leaf that
    names its cause, or before any leaf.
    """
    wanted = cause if cause in tree.causes_below[tree.nodes[0].id] else None
    steps: list[Step] = []
    place = tree.nodes[0]
    while True:
        step = _step(tree, place, known.get(place.id), wanted, said)
        steps.append(step)
        if step.basis in {"open", "clash"}:
            return Path(steps=tuple(steps), leaf=None, cause=cause)
        below = place.answers[step.answer]
        leaf, node = tree.leaf(below), tree.node(below)
        if node is None:
            return Path(steps=tuple(steps), leaf=leaf, cause=cause)
        place = node


def _step(tree: Tree, node: Node, seen: Known | None, cause: str | None, said: str) -> Step:
    leading = [word for word, to in node.answers.items() if cause is None or cause in tree.causes_below[to]]
    if seen is not None and seen.answer in node.answers:
        evidence = seen.evidence[:EVIDENCE_LIMIT]
        if seen.answer in leading:
            return Step(node=node, answer=seen.answer, basis="seen", evidence=evidence)
        return Step(node=node, answer=seen.answer, basis="clash", evidence=evidence)
    following = [word for word in leading if word not in node.aside]
    if cause is not None and len(following) == 1:
        evidence = said[:EVIDENCE_LIMIT] if following[0] in node.bad else ""
        return Step(node=node, answer=following[0], basis="diagnosis", evidence=evidence)
    if node.unseen in leading:
        return Step(node=node, answer=node.unseen or "", basis="unseen", evidence="")
    return Step(node=node, answer="", basis="open", evidence="")


def path_of(tree: Tree, result: CellResult, drivers: DriverTable) -> Path:
    """The way of one cell down the tree."""
    diagnosis = result.diagnosis
    known = answers_of(result, drivers)
    return walk(tree, known, diagnosis.cause, diagnosis.evidence) if diagnosis else walk(tree, known)


def answers_of(result: CellResult, drivers: DriverTable) -> dict[str, Known]:
    """Node id → what the result itself shows. A question that it says nothing of is not in it."""
    checks = {check.id: check for check in (*result.checks, *result.benchmarks)}
    found = {
        "works": _works(result, checks),
        "started": _started(result),
        "runs": Known(answer=YES, evidence=f"Python {result.facts.python}") if result.facts.python else None,
        "smi": _smi(result, checks),
        "init": _check(checks.get("driver.init"), both=True),
        "floor": _floor(result, checks.get("driver.init"), drivers),
        "imports": _imports(result, checks),
        "build": _build(result),
        "arch": _check(checks.get("arch.execution")) or _arch(result),
        "libs": _check(checks.get("libs.identity")),
    }
    return {id_: answer for id_, answer in found.items() if answer is not None}


def _works(result: CellResult, checks: Mapping[str, CheckResult]) -> Known | None:
    kernel = checks.get("first-kernel")
    if kernel is not None and kernel.status is CheckStatus.PASS and (kernel.device or "").startswith("cuda"):
        return Known(answer=YES, evidence=f"first-kernel passed on {kernel.device}")
    if kernel is not None and kernel.status in _BROKEN:
        return Known(answer=NO, evidence=f"first-kernel: {kernel.status.value}")
    if result.facts.cuda_available is False:
        return Known(answer=NO, evidence="torch.cuda.is_available() is False")
    return None


def _started(result: CellResult) -> Known | None:
    facts, diagnosis = result.facts, result.diagnosis
    if result.checks or result.benchmarks or facts.python or facts.os:
        return Known(answer=YES, evidence="the payload spoke in it")
    if diagnosis is not None and diagnosis.where in _STAGES:
        return Known(answer=NO, evidence=f"it ended at the stage {diagnosis.where}")
    if result.timings.payload_s is not None:
        return Known(answer=YES, evidence=f"it ran for {result.timings.payload_s:.1f} s")
    return None


def _smi(result: CellResult, checks: Mapping[str, CheckResult]) -> Known | None:
    facts = result.facts
    if facts.gpus:
        other = result.diagnosis is not None and result.diagnosis.cause == _OTHER_CARD
        names = ", ".join(dict.fromkeys(gpu.name for gpu in facts.gpus))
        return Known(answer="another card" if other else YES, evidence=names)
    if facts.nvidia_smi == "ok":
        return Known(answer=YES, evidence="nvidia-smi ended well")
    if result.gpu is None:
        return Known(answer="no card asked for", evidence="the runner has no card in the configuration")
    init = checks.get("driver.init")
    if facts.nvidia_smi is None or facts.cuda_available or (init is not None and init.status is CheckStatus.PASS):
        return None  # an image without nvidia-smi may well see its card
    if facts.nvidia_smi == "missing":
        where = "on this PATH" if result.engine is EngineName.LOCAL else "in the container"
        return Known(answer="not found", evidence=f"no nvidia-smi {where}")
    return Known(answer="it fails", evidence=facts.nvidia_smi)


def _floor(result: CellResult, init: CheckResult | None, drivers: DriverTable) -> Known | None:
    """A driver below the floor is none where an image's own libcuda (forward compatibility) runs on it."""
    driver, cuda = result.facts.driver, result.facts.torch_cuda
    floor = drivers.floor_of(cuda) if driver and cuda and cuda != "none" else None
    if driver is None or floor is None or not version_key(driver):
        return None
    evidence = f"driver {driver}, CUDA {cuda} needs {floor}"
    if version_key(driver) >= version_key(floor):
        return Known(answer=YES, evidence=evidence)
    offered = init.numbers.get("driver_cuda") if init is not None and init.status not in _BROKEN else None
    if isinstance(offered, str) and version_key(offered) >= version_key(str(cuda)):
        return Known(answer=YES, evidence=f"driver {driver}, and a libcuda of CUDA {offered} that starts on it")
    return Known(answer=NO, evidence=evidence)


def _imports(result: CellResult, checks: Mapping[str, CheckResult]) -> Known | None:
    told = _check(checks.get("torch.import"), both=True)
    if told is None and result.facts.torch:
        return Known(answer=YES, evidence=f"torch {result.facts.torch}")
    return told


def _build(result: CellResult) -> Known | None:
    cuda = result.facts.torch_cuda
    if cuda is None:
        return None
    if cuda == "none":
        return Known(answer=NO, evidence="torch.version.cuda is None")
    return Known(answer=YES, evidence=f"torch.version.cuda is {cuda}")


def _arch(result: CellResult) -> Known | None:
    """PTX alone is left open: whether the driver can translate it, only a kernel shows."""
    facts = result.facts
    capability = facts.device_capability or next((gpu.compute_capability for gpu in facts.gpus), None)
    # Jetson's chips run no other chip's code, and their reports are not told apart here.
    if not facts.arch_list or capability is None or not _CAPABILITY.fullmatch(capability) or facts.machine == "aarch64":
        return None
    how = coverage(facts.arch_list, capability)
    evidence = f"card {capability}, build {' '.join(facts.arch_list)}"
    return None if how == "ptx" else Known(answer=YES if how else NO, evidence=evidence)


def _check(check: CheckResult | None, *, both: bool = False) -> Known | None:
    """What a check says of its question. Only with `both` does its failure have no other meaning than "no"."""
    if check is not None and check.status is CheckStatus.PASS:
        return Known(answer=YES, evidence=f"{check.id} passed")
    if both and check is not None and check.status in _BROKEN:
        return Known(answer=NO, evidence=f"{check.id}: {check.status.value}")
    return None
