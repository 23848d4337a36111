"""Owns what an item is and how a request selects items; the items themselves stand in items.py.

Must not know how an item is run.
"""

from __future__ import annotations

import fnmatch

PROFILES = ("smoke", "standard", "full")


class Item:
    """One check or benchmark.

    `run` is "module:function" inside this package. `needs` are ids of checks that must have passed (or warned) first.
    `limits` are seconds for smoke, standard and full; None leaves the item out of that profile.
    `torch` says that it runs in a process where torch is imported.
    """

    __slots__ = ("higher_is_better", "id", "kind", "limits", "needs", "run", "torch", "unit")

    def __init__(self, id_, kind, run, limits, needs=(), **options):
        self.id = id_
        self.kind = kind
        self.run = run
        self.limits = dict(zip(PROFILES, limits))
        self.needs = tuple(needs)
        self.torch = options.pop("torch", "torch.import" in needs)
        self.unit = options.pop("unit", "")
        self.higher_is_better = options.pop("higher_is_better", True)
        if options:
            raise TypeError("unknown options: {}".format(", ".join(sorted(options))))

    def limit_s(self, profile):
        """Seconds that this item may take, or None where the profile leaves it out."""
        return self.limits.get(profile)


def matches(item_id: str, pattern: str) -> bool:
    """Whether a glob matches the whole id or a whole dotted prefix of it."""
    parts = item_id.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def select(items, profile, checks, benchmarks):
    """The items that a request asks for, with all they need, in the table's order; and the globs that match none.

    A prerequisite is planned even where it was not asked for: without its verdict, the item's own would be a guess.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}")
    offered = [item for item in items if item.limit_s(profile) is not None]
    by_id = {item.id: item for item in offered}
    wanted = set()
    unmatched = []
    for kind, patterns in (("check", checks), ("benchmark", benchmarks)):
        for pattern in patterns:
            found = [item.id for item in offered if item.kind == kind and matches(item.id, pattern)]
            wanted.update(found)
            # "*" asks for everything there is; any other glob names something.
            if not found and pattern != "*" and pattern not in [other for _, other in unmatched]:
                unmatched.append((kind, pattern))
    queue = list(wanted)
    while queue:
        for need in by_id[queue.pop()].needs:
            if need not in wanted:
                wanted.add(need)
                queue.append(need)
    return [item for item in offered if item.id in wanted], unmatched
