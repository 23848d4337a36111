"""Owns the chart of one cell's way down the diagnosis tree, in Mermaid's language (GitHub draws it).

Must not know how the way was found (tree). Questions, answers and titles are our own data; evidence came out of a
container and is hostile: every character of a label that means something to Mermaid becomes a look-alike.
Syntax: https://mermaid.js.org/syntax/flowchart.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cuda_matrix.report.escape import one_line, short

if TYPE_CHECKING:
    from cuda_matrix.report.view import Way, WayStep

CHARTS = 20  # of one report: a page with more is slow, and beyond 20 cells nobody looks at each
LABEL = 140  # characters
EVIDENCE = 90

# Quotes end a label; # and & begin an entity, < a tag, $$ a formula, %%{ a directive (found even inside a label).
_LOOK_ALIKES = str.maketrans('"`<>&#;$\\{}[]|*~', "''‹›＆＃,＄/()()¦∗∼")
_RUN = re.compile(r"([%_:-])\1+")  # a comment, bold text, a class, an arrow
_ICON = re.compile(r":(?=fa)", re.IGNORECASE)  # fa:fa-car is drawn as a picture

# Both themes of GitHub: every box brings its own colours.
_STYLES = (
    "classDef way fill:#ddf4ff,stroke:#0969da,stroke-width:2px,color:#1f2328",
    "classDef wrong fill:#ffebe9,stroke:#cf222e,stroke-width:3px,color:#1f2328",
    "classDef open fill:#fff8c5,stroke:#9a6700,stroke-width:2px,color:#1f2328",
    "classDef other fill:#f6f8fa,stroke:#d1d9e0,color:#59636e",
)


def chart(way: Way) -> str:
    """The text of the chart, without its fence. The way taken is drawn thick, what leads off it thin.

    No label is longer than LABEL + EVIDENCE characters, so 30 questions stay far below Mermaid's 50 000.
    """
    taken: list[str] = []
    aside: list[str] = []
    for number, step in enumerate(way.steps):
        taken.append(_question(number, step))
        last = number + 1 == len(way.steps)
        below = "e" if last else f"q{number + 1}"
        arrow = "==" if step.how == "seen" else "--"
        taken.append(f"q{number} {arrow} {_label(_edge(step))} {arrow}> {below}")
        for index, (answer, title) in enumerate(step.others):
            box = f"o{number}x{index}"
            aside.append(f"q{number} -.-> |{_label(answer)}| {box}[{_label(title)}]")
            aside.append(f"class {box} other")
    taken.append(f"e([{_label(way.end)}])")
    taken.append(f"class e {'wrong' if way.found else 'open'}")
    edges = ",".join(str(number) for number in range(len(way.steps)))
    style = f"linkStyle {edges} stroke:#cf222e,stroke-width:3px"
    return "\n".join(["flowchart TD", *(f"  {line}" for line in (*taken, *aside, *_STYLES, style))])


def _question(number: int, step: WayStep) -> str:
    evidence = f"<br/>{_plain(step.evidence, EVIDENCE)}" if step.evidence.strip() else ""
    return f'q{number}["{_plain(step.question, LABEL)}{evidence}"]:::{"wrong" if step.bad else "way"}'


def _edge(step: WayStep) -> str:
    return f"{step.answer} ({step.how})" if step.answer and step.how != "seen" else step.answer or step.how


def _label(text: str) -> str:
    return f'"{_plain(text, LABEL)}"'


def _plain(text: str, limit: int) -> str:
    """Never empty: Mermaid refuses an empty label."""
    bare = _ICON.sub(": ", _RUN.sub(r"\1", one_line(text).translate(_LOOK_ALIKES)))
    return short(bare, limit) or "–"
