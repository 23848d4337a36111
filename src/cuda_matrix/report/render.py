"""Owns the set of files that a report consists of.

Must not know where they are written.
"""

from __future__ import annotations

from collections.abc import Iterable

from cuda_matrix.report.html import render_html
from cuda_matrix.report.jsonform import render_json
from cuda_matrix.report.junit import render_junit
from cuda_matrix.report.markdown import render_markdown
from cuda_matrix.report.view import View

FILES = {
    "markdown": ("report.md", render_markdown),
    "html": ("index.html", render_html),
    "json": ("report.json", render_json),
    "junit": ("junit.xml", render_junit),
}


def render(view: View, formats: Iterable[str] = FILES) -> dict[str, str]:
    """File name → text (UTF-8), for the formats asked for; an unknown one is a KeyError."""
    return {FILES[name][0]: FILES[name][1](view) for name in formats}
