"""Owns the one meaning of a glob over cells, images and runners: `*` and `?`, case counts, `[` is a plain character.

Must not know what the ids name. Checks and benchmarks are chosen by the payload's own rule (payload_items).
"""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(text: str, glob: str) -> bool:
    """Whether a whole id matches."""
    return fnmatchcase(text, glob.replace("[", "[[]"))


def may_meet(one: str, other: str) -> bool:
    """Whether some id matches both globs."""
    # Whether the rest of `one` (at first nothing) and other[start:] can meet, for every start.
    ends = [all(right == "*" for right in other[start:]) for start in range(len(other) + 1)]
    for left in reversed(one):
        row = [left == "*" and ends[-1]]
        for start in range(len(other) - 1, -1, -1):
            right = other[start]
            if "*" in {left, right}:  # a star stands for nothing, or takes one more of the other side
                row.append(ends[start] or row[-1])
            else:
                row.append(ends[start + 1] and (left == right or "?" in {left, right}))
        ends = row[::-1]
    return ends[0]
