"""Owns the reading of the packaged tables (data/*.yml) into frozen types.

Must not know who uses a fact. A broken table is a bug of ours, so every error here is a plain exception.
"""

from __future__ import annotations

import gc
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from cuda_matrix.architectures import ArchitectureTable
from cuda_matrix.cards import Card
from cuda_matrix.catalogue import Catalogue, Cause
from cuda_matrix.drivers import DriverTable
from cuda_matrix.image_schemes import SchemeTable
from cuda_matrix.payload_items import Item, ItemTable
from cuda_matrix.releases import ReleaseTable
from cuda_matrix.rules import Rule
from cuda_matrix.systems import SystemTable
from cuda_matrix.tables import Message, Reference
from cuda_matrix.tree import Tree
from cuda_matrix.xids import Xid


def data_text(name: str) -> str:
    """The text of one packaged file, for example `demo-config.yml`."""
    return files("cuda_matrix").joinpath("data").joinpath(name).read_text(encoding="utf-8")


@cache
def load_reference() -> Reference:
    """Every table of facts, checked; read once per process."""
    return Reference(
        cards=load_cards(),
        drivers=load_drivers(),
        catalogue=load_catalogue(),
        messages={row.pop("id"): Message(**row) for row in unique(_rows("messages.yml"), "id")},
        items=load_items(),
        xids=tuple(Xid(**row) for row in unique(_rows("xids.yml")["xids"], "number")),
        releases=ReleaseTable(**_rows("torch-releases.yml")),
        schemes=SchemeTable(**_rows("image-schemes.yml")),
        systems=SystemTable(**_rows("systems.yml")),
        rules={row["id"]: Rule(**row) for row in unique(_rows("rules.yml"), "id")},
        architectures=ArchitectureTable(**_rows("architectures.yml")),
    )


# Who needs one table does not wait for the others: reading them all takes about 0.1 s.


@cache
def load_cards() -> tuple[Card, ...]:
    """The cards alone."""
    return tuple(Card(**row) for row in unique(_rows("gpus.yml"), "id"))


@cache
def load_drivers() -> DriverTable:
    """What drivers can run, alone."""
    return DriverTable(**_rows("drivers.yml"))


@cache
def load_catalogue() -> Catalogue:
    """The causes alone."""
    return Catalogue(causes={row["code"]: Cause(**row) for row in unique(_rows("causes.yml"), "code")})


@cache
def load_items() -> ItemTable:
    """The table of checks and benchmarks alone."""
    document = _rows("payload-items.yml")
    rows = unique(document["items"], "id")
    return ItemTable(budgets_s=document["budgets_s"], items=tuple(Item(**row) for row in rows))


@cache
def load_tree() -> Tree:
    """The diagnosis tree, which is no part of the facts."""
    return Tree(**_rows("diagnosis-tree.yml"))


def unique(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The rows as they are.

    Raises:
        ValueError: two rows have the same key; a dict would silently keep the last.
    """
    keys = [row[key] for row in rows]
    double = sorted({value for value in keys if keys.count(value) > 1})
    if double:
        msg = f"{key} more than once: {', '.join(double)}"
        raise ValueError(msg)
    return rows


def _rows(name: str) -> Any:
    # Tables are read at every start: the C loader is about ten times as fast as the Python one, and a quarter of its
    # time would go into the collector, which looks for garbage among rows that are all kept.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    collecting = gc.isenabled()
    gc.disable()
    try:
        return yaml.load(data_text(name), Loader=loader)  # noqa: S506 - safe: either of the two safe loaders
    finally:
        if collecting:
            gc.enable()
