"""Owns what an item is, how the table is read (items.json beside the request), and how a request selects from it.

Must not know how an item is run.
"""

from __future__ import annotations

import fnmatch
import json


class Item:
    """One check or benchmark.

    `run` is "module:function" inside this package. `needs` are ids of checks that must have passed (or warned) first.
    `limits_s` are seconds by profile; a profile that is absent leaves the item out. Neighbours of one `group` are run
    round by round in one forked child; groups of one `child`, the name before a slash, share it one after the other.
    `torch` says that it runs in a process where torch is imported, `gpu` that without a card it has nothing to do.
    """

    __slots__ = (
        "child", "gpu", "group", "higher_is_better", "id", "kind", "limits_s", "needs", "optional", "run", "thresholds",
        "torch", "unit",
    )  # fmt: skip

    def __init__(self, row: dict, torch: bool):
        self.id = row["id"]
        self.kind = row["kind"]
        self.run = row["run"]
        self.limits_s = row["limits_s"]
        self.needs = tuple(row.get("needs", ()))
        self.optional = row.get("priority") == "P1"
        self.gpu = row.get("gpu", False)
        self.group = row.get("group")
        self.child = (self.group or self.id).partition("/")[0]
        self.unit = row.get("unit", "")
        self.higher_is_better = row.get("higher_is_better", True)
        self.thresholds = row.get("thresholds", {})
        self.torch = torch

    def limit_s(self, profile):
        """Seconds that this item may take, or None where the profile leaves it out."""
        return self.limits_s.get(profile)


class Table:
    """Every item in the order in which they run, and the seconds that a profile's optional items may use."""

    def __init__(self, document: dict):
        items = []
        with_torch = {"torch.import"}
        for row in document["items"]:
            needs_torch = row["id"] in with_torch or not with_torch.isdisjoint(row.get("needs", ()))
            if needs_torch:
                with_torch.add(row["id"])
            items.append(Item(row, needs_torch))
        self.items = tuple(items)
        self.budgets_s = document.get("budgets_s", {})


def load(path: str) -> Table:
    """The table in a JSON file."""
    with open(path, "rb") as stream:
        return Table(json.loads(stream.read().decode("utf-8")))


def matches(item_id: str, pattern: str) -> bool:
    """Whether a glob matches the whole id or a whole dotted prefix of it."""
    parts = item_id.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def select(items, profile, checks, benchmarks):
    """The items that a request asks for, with all they need, in the table's order; and globs that select none.

    A prerequisite is planned even where it was not asked for: without its verdict, the item's own would be a guess.
    A glob without an item comes back as (kind, glob, known): `known` where another profile has items for it.
    """
    offered = [item for item in items if item.limit_s(profile) is not None]
    if not offered:
        raise ValueError(f"unknown profile {profile!r}")
    by_id = {item.id: item for item in offered}
    wanted = set()
    barren = []
    for kind, patterns in (("check", checks), ("benchmark", benchmarks)):
        for pattern in patterns:
            found = [item.id for item in items if item.kind == kind and matches(item.id, pattern)]
            here = [name for name in found if name in by_id]
            wanted.update(here)
            # "*" asks for everything there is; any other glob names something.
            if not here and pattern != "*" and pattern not in [other for _, other, _ in barren]:
                barren.append((kind, pattern, bool(found)))
    queue = list(wanted)
    while queue:
        for need in by_id[queue.pop()].needs:
            if need in by_id and need not in wanted:
                wanted.add(need)
                queue.append(need)
    return [item for item in offered if item.id in wanted], barren
