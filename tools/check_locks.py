"""Says whether the lock files still satisfy pyproject.toml; asks no network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)")


def pins(path: Path) -> dict[str, set[str]]:
    """Name → pinned versions; a name may be pinned twice, for different Pythons."""
    found: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := PIN.match(line):
            found.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return found


def main() -> int:
    """Compare; print what does not fit."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        "requirements.lock": project["dependencies"],
        "requirements-dev.lock": project["dependencies"] + project["optional-dependencies"]["dev"],
    }
    wrong = []
    for lock, requirements in wanted.items():
        pinned = pins(Path(lock))
        for requirement in map(Requirement, requirements):
            versions = pinned.get(canonicalize_name(requirement.name), set())
            if not versions or not all(requirement.specifier.contains(version) for version in versions):
                wrong.append(f"{lock}: {requirement} is not satisfied by {sorted(versions)}; run `make lock`")
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
