"""Owns the job summary: the whole report, or as much of it as a summary holds.

Must not know the file that it is written to (adapters/actions_env). A summary of more than 1 MiB is dropped as a whole
(https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#adding-a-job-summary).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cuda_matrix.report.brief import changes, rungs, without_good
from cuda_matrix.report.differences import NO_DIFFERENCES, Differences
from cuda_matrix.report.ladder import fitting
from cuda_matrix.report.markdown import render_markdown

if TYPE_CHECKING:
    from cuda_matrix.report.view import View

LIMIT_BYTES = 900 << 10


def compose(view: View, changed: Differences = NO_DIFFERENCES) -> str:
    """At most 900 KiB of Markdown: the rest is room for what else the same step says."""
    news = changes(view, changed)
    whole, less = (lambda: render_markdown(view, news)), (lambda: render_markdown(without_good(view), news))
    return fitting((whole, less, *rungs(view, changed)), LIMIT_BYTES)
