"""drivers.yml against NVIDIA's tables: the driver packaged with each toolkit, and each major's oldest driver."""

from __future__ import annotations

import re

from facts_html import table_rows
from facts_report import Outcome
from facts_web import UnreachableError, Web

from cuda_matrix.drivers import DriverTable
from cuda_matrix.facts import version_key

RELEASE_NOTES = "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html"
MINOR_VERSION = "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
_TOOLKIT = re.compile(r"CUDA (\d+\.\d+)\b")
_MAJOR = re.compile(r"CUDA (\d+)\.x")
_AT_LEAST = re.compile(r">=\s*(\d[\d.]*)")


def check(web: Web, table: DriverTable) -> Outcome:
    """Every (toolkit, driver) pair and floor of the pages that the table lacks, and the other way round."""
    outcome = Outcome("drivers")
    for url, compare in ((RELEASE_NOTES, _toolkits), (MINOR_VERSION, _floors)):
        try:
            page = web.get(url)
        except UnreachableError as error:
            outcome.unreachable[url] = str(error)
            continue
        rows = table_rows(page.text) if page else []
        if not compare(rows, table, outcome):
            outcome.differences.append(f"{url}: its table is not found (moved, or written otherwise)")
    return outcome


def _toolkits(rows: list[list[str]], table: DriverTable, outcome: Outcome) -> bool:
    theirs = _pairs(rows, _TOOLKIT)
    ours = {(row.cuda, row.driver) for row in table.toolkits}
    outcome.compared += len(theirs)
    outcome.differences += [f"new: CUDA {cuda} with driver {driver}" for cuda, driver in sorted(theirs - ours)]
    listed = {cuda for cuda, _ in theirs}
    outcome.differences += [
        f"CUDA {cuda} with driver {driver} is in the table, not on the page"
        for cuda, driver in sorted(ours - theirs)
        if cuda in listed
    ]
    return bool(theirs)


def _floors(rows: list[list[str]], table: DriverTable, outcome: Outcome) -> bool:
    theirs = _pairs(rows, _MAJOR)
    for major, driver in sorted(theirs):
        outcome.compared += 1
        ours = table.floor_of(f"{major}.0")
        # The page may name the branch alone: 525 for 525.60.13.
        if (
            ours is None
            or version_key(ours)[: len(version_key(driver))] != version_key(driver)[: len(version_key(ours))]
        ):
            outcome.differences.append(
                f"CUDA {major}.x runs from driver {driver} on; the table says {ours or 'nothing'}"
            )
    return bool(theirs)


def _pairs(rows: list[list[str]], name: re.Pattern[str]) -> set[tuple[str, str]]:
    pairs = set()
    for cells in rows:
        title = name.match(cells[0]) if len(cells) > 1 else None
        driver = _AT_LEAST.match(cells[1]) if title else None
        if title and driver:
            pairs.add((title[1], driver[1]))
    return pairs
