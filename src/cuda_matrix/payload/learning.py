"""Owns whether a training benchmark really trained: a speed of training that does not train is worth nothing.

Plain numbers in; must not know which network it was.
"""

from __future__ import annotations

from . import samples
from .context import failed


def complaint(losses, weights_moved: bool) -> str:
    """What is wrong with a run of training, or "": its losses in order, and whether its weights have changed."""
    if not all(samples.finite(loss) for loss in losses):
        return "the loss is not finite: {}".format(", ".join(f"{loss:.4g}" for loss in losses))
    if not weights_moved:
        return "the optimiser's steps have not changed the weights"
    return ""


def judged(answer: dict, wrong: str, cause: str = "training-diverged") -> dict:
    """A speed's result, or the failure where the work itself was `wrong`. Work on the wrong device is worse still."""
    if not wrong or answer["status"] == "fail":
        return answer
    numbers = {**answer["numbers"], "stable": False}
    keys = {"device": answer["device"], "numbers": numbers, "thresholds": answer["thresholds"]}
    return failed(wrong, evidence=wrong, cause=cause, **keys)
