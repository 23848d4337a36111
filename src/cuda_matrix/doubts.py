"""Owns what is not known of a configuration that is partly wrong, so that one mistake is not told as several.

Pure. Must not know how such a configuration is mended (salvage) or multiplied out (matrix).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cuda_matrix.explain import ValuePath
from cuda_matrix.globs import matches, may_meet


@dataclass(frozen=True)
class Doubts:
    """Which parts of a configuration are not what their author wrote. Indices are those of the merged lists."""

    images: frozenset[int] = frozenset()  # entries whose ids or number cannot be known
    runners: tuple[str, ...] = ()  # names that stand in the file but cannot be used
    rules: frozenset[int] = frozenset()  # of `exclude`: entries that say less than their author meant
    entries: frozenset[ValuePath] = frozenset()  # nothing may be said of such an entry as a whole
    flawed: frozenset[ValuePath] = frozenset()  # told already: nothing more is said here or below
    sections: frozenset[str] = frozenset()  # may hold more entries than were read

    def hides(self, path: ValuePath) -> bool:
        """Whether a finding at this place may be a consequence of another mistake."""
        return path in self.entries or any(path[:end] in self.flawed for end in range(1, len(path) + 1))

    @property
    def of_exclusion(self) -> bool:
        """Whether more cells may be excluded than are known to be."""
        return bool(self.rules) or "exclude" in self.sections

    @property
    def of_inclusion(self) -> bool:
        """Whether more cells may be taken back than are known to be."""
        return "include" in self.sections or any(path[0] == "include" for path in self.entries)


NO_DOUBTS = Doubts()


@dataclass(frozen=True)
class Unseen:
    """Names that may exist although nothing was expanded for them, as globs; and the names that do exist."""

    images: tuple[str, ...] = ()
    runners: tuple[str, ...] = ()
    known_images: Collection[str] = ()
    known_runners: Collection[str] = ()

    def image(self, glob: str) -> bool:
        """Whether an image glob may name one (by its id, or its id with a variant)."""
        return any(may_meet(glob, name) or may_meet(glob, f"{name}+*") for name in self.images)

    def runner(self, glob: str) -> bool:
        """Whether a runner glob may name one."""
        return any(may_meet(glob, name) for name in self.runners)

    def cell(self, glob: str) -> bool:
        """Whether a cell glob may name a cell of one."""
        image, at, runner = glob.rpartition("@")
        if not at:  # a star or a question mark stands for the @ too
            images = any(may_meet(glob, f"{name}@*") or may_meet(glob, f"{name}+*@*") for name in self.images)
            return images or any(may_meet(glob, f"*@{name}") for name in self.runners)
        if self.image(image) and (self.runner(runner) or any(matches(name, runner) for name in self.known_runners)):
            return True
        return self.runner(runner) and any(matches(name, image) for name in self.known_images)
