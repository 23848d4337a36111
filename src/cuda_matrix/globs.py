"""Owns the one meaning of a glob over ids: `*` and `?`, case counts, `[` is an ordinary character."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(text: str, glob: str) -> bool:
    """Whether a whole id matches."""
    return fnmatchcase(text, glob.replace("[", "[[]"))
