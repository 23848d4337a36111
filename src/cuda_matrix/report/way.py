"""Owns the way of one failed cell down the diagnosis tree, in the words that every format shows.

Must not know formats, nor answer a question itself (tree).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cuda_matrix.model import EngineName
from cuda_matrix.reference import load_drivers, load_tree
from cuda_matrix.report.view import Way, WayStep
from cuda_matrix.tree import path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cuda_matrix.result import CellResult
    from cuda_matrix.tree import Basis, Path, Step, Tree

HOW: dict[Basis, str] = {
    "seen": "seen",
    "diagnosis": "by the diagnosis",
    "unseen": "nothing was seen",
    "open": "not seen",
    "clash": "seen, but the diagnosis differs",
}


def way_of_result(result: CellResult) -> Way:
    """The way of one cell."""
    tree = load_tree().local if result.engine is EngineName.LOCAL else load_tree()
    return way(path_of(tree, result, load_drivers()), tree)


def way(path: Path, tree: Tree, how: Mapping[Basis, str] = HOW) -> Way:
    """The same path, in words. `how`: why an answer stands."""
    steps = tuple(_step(step, tree, how) for step in path.steps)
    if path.leaf is not None:
        named = path.leaf.title + (f": {path.cause}" if path.cause in path.leaf.causes else "")
        return Way(steps=steps, end=named, found=True, leaf=path.leaf.id, do=path.leaf.do)
    last = path.steps[-1]
    if last.basis == "clash":
        end = f"What was seen leads elsewhere than the diagnosis ({path.cause})"
    else:
        end = "Not seen: the way ends here" + (f"; diagnosed: {path.cause}" if path.cause else "")
    return Way(steps=steps, end=end, found=False)


def _step(step: Step, tree: Tree, how: Mapping[Basis, str]) -> WayStep:
    taken = step.node.answers.get(step.answer)
    others = tuple(
        (answer, _title(tree, to))
        for answer, to in step.node.answers.items()
        if to != taken and answer not in step.node.aside
    )
    return WayStep(
        node=step.node.id,
        question=step.node.question,
        answer=step.answer,
        how=how[step.basis],
        evidence=step.evidence,
        bad=step.bad,
        others=others,
    )


def _title(tree: Tree, id_: str) -> str:
    node, leaf = tree.node(id_), tree.leaf(id_)
    return node.question if node is not None else leaf.title if leaf is not None else id_
