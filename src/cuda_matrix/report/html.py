"""Owns the page: one file with everything inside, that loads nothing and works without its script.

Must not know what the figures mean. The content security policy allows exactly the style and script of the page.
"""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup

from cuda_matrix.report import words
from cuda_matrix.report.drawings import drawn
from cuda_matrix.report.templating import html_environment
from cuda_matrix.report.view import View
from cuda_matrix.report.words import CPU, WORDS


def render_html(view: View) -> str:
    """The page. Ends with a newline."""
    environment = html_environment()
    environment.filters["drawn"] = drawn
    style = environment.get_template("report.css").render()
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html.j2").render(
        view=view,
        style=Markup(style),  # noqa: S704 (our own file, no value is put into it)
        script=Markup(script),  # noqa: S704 (our own file, no value is put into it)
        style_hash=_hash(style),
        script_hash=_hash(script),
        verdict_words=WORDS,
        words=words,
        has_cpu=any(CPU in bar.kind for chart in view.charts for bar in chart.bars),
        verdicts=[(verdict, count) for verdict, count in view.counts.items() if count],
    )


def _hash(text: str) -> str:
    """Source expression of a content security policy for an inline block (CSP level 2)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
