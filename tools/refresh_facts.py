"""Holds the tables of src/cuda_matrix/data against the places that they were taken from.

    tools/refresh_facts.py [TABLE…] [--check] [--write]

Without --check it reports and ends with 0. With it: 0 where nothing differs, 1 where something does, 3 where nothing
that was reached differs but something could not be reached. --write adds rows for new PyTorch releases, as PyPI
describes them; rows that are there are never changed: what differs is reported, and a person decides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import facts_cards
import facts_drivers
import facts_images
import facts_links
import facts_torch
import yaml
from facts_report import Outcome
from facts_web import Web

from cuda_matrix.cards import Card
from cuda_matrix.drivers import DriverTable
from cuda_matrix.image_schemes import SchemeTable
from cuda_matrix.releases import ReleaseTable

DATA = Path(__file__).resolve().parent.parent / "src/cuda_matrix/data"
# Settings of a demonstration, not facts.
_NO_FACTS = ("demo-",)

Check = Callable[[Web, Any], Outcome]
# Tables that have more to compare than their sources' addresses.
CHECKS: dict[str, Check] = {
    "torch-releases": lambda web, document: facts_torch.check(web, ReleaseTable.model_validate(document))[0],
    "drivers": lambda web, document: facts_drivers.check(web, DriverTable.model_validate(document)),
    "gpus": lambda web, document: facts_cards.check(web, tuple(Card.model_validate(row) for row in document)),
    "image-schemes": lambda web, document: facts_images.check(web, SchemeTable.model_validate(document)),
}


def main(arguments: list[str]) -> int:
    """Check the tables, say what was found, return the exit code."""
    options = _parser().parse_args(arguments)
    tables = {path.stem: path for path in sorted(options.data.glob("*.yml")) if not path.stem.startswith(_NO_FACTS)}
    unknown = [name for name in options.tables if name not in tables]
    if unknown:
        sys.stderr.write(f"no table {', '.join(unknown)}; there are {', '.join(tables)}\n")
        return 2
    web = Web(dict(pair.split("=", 1) for pair in options.mirror), options.timeout)
    differs = unreached = False
    for name in options.tables or tables:
        for outcome in _outcomes(web, name, tables[name], options):
            print("\n".join(outcome.lines()), flush=True)
            differs |= bool(outcome.differences)
            unreached |= bool(outcome.unreachable)
    if not options.check:
        return 0
    return 1 if differs else 3 if unreached else 0


def _outcomes(web: Web, name: str, path: Path, options: argparse.Namespace) -> list[Outcome]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    outcomes = []
    if name == "torch-releases" and options.write:
        outcome, new = facts_torch.check(web, ReleaseTable.model_validate(document))
        if new:
            facts_torch.write(path, new)
            outcome.notes.append(f"written to {path}: torch {', '.join(release.torch for release in new)}")
        outcomes.append(outcome)
    elif name in CHECKS:
        outcomes.append(CHECKS[name](web, document))
    if options.links:
        outcomes.append(facts_links.check(web, f"{name} (addresses of its sources)", document))
    return outcomes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hold the tables of facts against their sources.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="names of src/cuda_matrix/data/*.yml; all of them")
    parser.add_argument("--check", action="store_true", help="end with 1 where something differs, 3 where unreachable")
    parser.add_argument("--write", action="store_true", help="add rows for new PyTorch releases")
    parser.add_argument("--no-links", dest="links", action="store_false", help="do not ask for the sources' addresses")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the tables")
    parser.add_argument("--timeout", type=float, default=20.0, metavar="SECONDS", help="for each request")
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="ADDRESS=ADDRESS", help="ask there in place of here (a proxy)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
