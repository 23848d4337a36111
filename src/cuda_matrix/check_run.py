"""Owns what the check run of a matrix shows, and with which conclusion.

Must not know HTTP (forge). The check run is for reading: the job's exit code is the gate. `neutral` and `skipped` count
as success where a check is required, so neither is ever given
(https://docs.github.com/pull-requests/collaborating-with-pull-requests/collaborating-on-repositories-with-code-quality-features/about-status-checks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cuda_matrix.forge import Annotation, CheckReport, Conclusion
from cuda_matrix.model import Verdict
from cuda_matrix.report.brief import counts, rungs, without_good
from cuda_matrix.report.differences import NO_DIFFERENCES, Differences
from cuda_matrix.report.escape import one_line
from cuda_matrix.report.ladder import fitting, size_bytes
from cuda_matrix.report.markdown import render_body

if TYPE_CHECKING:
    from cuda_matrix.gate import GateVerdict
    from cuda_matrix.report.view import View

TITLE_BYTES = 255
FIELD_BYTES = 60_000  # of summary and of text; GitHub's limit is 65,535 for each

# The image was not judged: somebody must look at a machine or a registry, not at the change.
_SOMEBODY_MUST_ACT = frozenset({Verdict.HOST_FAILED, Verdict.INCONCLUSIVE})


def compose(view: View, annotations: Sequence[Annotation] = (), changed: Differences = NO_DIFFERENCES) -> CheckReport:
    """Title at most 255 bytes, summary and text at most 60,000 each, by the same ladder as the comment."""
    return CheckReport(
        title=_title(view),
        summary=fitting(rungs(view, changed), FIELD_BYTES),
        text=_text(view),
        annotations=tuple(annotations),
    )


def conclusion(gate: GateVerdict) -> Conclusion:
    """`success`, `failure`, or `action_required` where nothing but machines stands in the way; both of these block."""
    if gate.released:
        return "success"
    kinds = {reason.verdict for reason in gate.reasons}
    return "action_required" if kinds and kinds <= _SOMEBODY_MUST_ACT else "failure"


def _title(view: View) -> str:
    said = one_line(f"{view.headline} · release: {'yes' if view.released else 'no'}")
    while size_bytes(said) > TITLE_BYTES:
        said = f"{said[:-2]}…"
    return said


def _text(view: View) -> str:
    """The report without the head, which is the summary's; charts are not drawn on a checks page."""
    page = view.links.page or None
    whole, less = (lambda: render_body(view, page)), (lambda: render_body(without_good(view), page))
    return fitting((whole, less, lambda: counts(view)), FIELD_BYTES)
