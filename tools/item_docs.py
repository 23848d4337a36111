"""Writes docs/checks.md and docs/benchmarks.md from the payload's table: `make docs`.

tests/test_item_docs.py compares them with the table.
"""

from __future__ import annotations

import re
from pathlib import Path

from cuda_matrix.model import PROFILES
from cuda_matrix.payload_items import Item, ItemTable, Kind
from cuda_matrix.reference import load_items

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES: dict[str, Kind] = {"checks.md": "check", "benchmarks.md": "benchmark"}
_INTRODUCTIONS: dict[Kind, str] = {
    "check": """# Checks

What the payload verifies inside an image, one section each. Ids are stable. Generated from
`src/cuda_matrix/data/payload-items.yml` (`make docs`).

A check ends as `pass`, `warn` (it works, with a remark), `fail` (verified, and wrong), `skip` (nothing was verified,
and why), `unknown` (it could not be told), `timeout` or `crash`. A counter or a permission that is missing is `skip` or
`unknown`, never `pass`. Where a check that another one needs has not passed, the other is skipped: it would only repeat
the finding.
**P0** decides whether an image works. **P1** is left out where the profile's time budget is used up.
Every result carries its numbers and the thresholds they were compared with.
""",
    "benchmark": """# Benchmarks

What the payload measures inside an image, one section each. Ids are stable. Generated from
`src/cuda_matrix/data/payload-items.yml` (`make docs`).

A benchmark ends as `pass` or `warn` with samples (n, median, 5th and 95th percentile, coefficient of variation), as
`invalid` where its numbers must not be believed (the clocks were held down, the samples scatter, a figure that cannot
be), or like a check. Figures from a CPU prove the code path and rank nothing; each says where it was measured.
""",
}


def page(table: ItemTable, kind: Kind) -> str:
    """The whole page about the items of one kind."""
    items = [item for item in table.items if item.kind == kind]
    return "\n".join([_INTRODUCTIONS[kind], _profiles(table, items), *map(_section, items)])


def _profiles(table: ItemTable, items: list[Item]) -> str:
    head = "| id | what | " + " | ".join(f"`{profile}`" for profile in PROFILES) + " |"
    lines = ["## Profiles", "", head, "|---|---|" + ":-:|" * len(PROFILES)]
    for item in items:
        marks = " | ".join("✓" if profile in item.limits_s else "" for profile in PROFILES)
        lines.append(f"| [`{item.id}`](#{_anchor(item)}) | {item.title} | {marks} |")
    budgets = ", ".join(f"`{profile}` {seconds:.0f} s" for profile, seconds in table.budgets_s.items())
    text = (
        f"Time budgets: {budgets}, counted from the moment torch is imported; `soak` has the cell's `timeout`.\n"
        "Once it is used up, what is P1 is skipped; P0 still runs."
    )
    return "\n".join([*lines, "", text, ""])


def _heading(item: Item) -> str:
    return f"`{item.id}`: {item.title}"


def _anchor(item: Item) -> str:
    """As GitHub makes it of the heading: lower case, without punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", _heading(item).lower()).replace(" ", "-")


def _section(item: Item) -> str:
    limits = ", ".join(f"{profile} {seconds:g} s" for profile, seconds in item.limits_s.items())
    needs = ", ".join(f"`{need}`" for need in item.needs) or "nothing"
    if item.gpu:
        needs += " and a GPU"
    head = f"{item.priority} · needs {needs} · time limit: {limits}"
    if item.unit:
        head += f" · {item.unit}, {'more' if item.higher_is_better else 'less'} is better"
    lines = [f"## {_heading(item)}", "", head, "", item.method.strip(), ""]
    if item.thresholds:
        lines += ["| threshold | value |", "|---|--:|"]
        lines += [f"| `{name}` | {value} |" for name, value in item.thresholds.items()]
        lines.append("")
    lines += [f"**A fail means:** {item.fail_means.strip()}", "", f"Source: {item.source.strip()}", ""]
    return "\n".join(lines)


def main() -> None:
    """Write both pages."""
    for name, kind in PAGES.items():
        (DOCS / name).write_text(page(load_items(), kind), encoding="utf-8")


if __name__ == "__main__":
    main()
