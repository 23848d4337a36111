"""torch-releases.yml against PyPI: releases, Pythons, and what the default build for Linux x86_64 is made with.

https://packaging.python.org/en/latest/specifications/simple-repository-api/ : the list of files, and each
wheel's metadata at its own address + `.metadata`. No wheel is downloaded.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import yaml
from facts_report import Outcome
from facts_web import Page, UnreachableError, Web

from cuda_matrix.facts import version_key
from cuda_matrix.releases import ReleaseTable, TorchRelease

INDEX = "https://pypi.org/simple/{project}/"
_FILE = re.compile(r'<a href="(?P<url>[^"#]+)[^"]*"(?P<attributes>[^>]*)>(?P<name>[^<]+)</a>')
_WHEEL = re.compile(
    r"(?P<project>\w+)-(?P<version>\d+\.\d+\.\d+)(?:-\d+)?-cp3(?P<python>\d+)-cp3\d+m?-(?:manylinux|linux)\w*x86_64\.whl"
)
_PINNED = re.compile(r"Requires-Dist: (?P<name>[\w.-]+)(?:\[[^\]]*\])?\s*\(?==(?P<version>\d[\d.]*)")
_TORCHVISIONS_TRIED = 6


@dataclass(frozen=True)
class Wheel:
    """One wheel of one project, as the index lists it."""

    version: str
    python: str
    python_min: str | None
    url: str


def check(web: Web, table: ReleaseTable) -> tuple[Outcome, list[TorchRelease]]:
    """The differences, and a row for each newer release that PyPI has and the table lacks."""
    outcome = Outcome("torch-releases")
    new: list[TorchRelease] = []
    try:
        wheels = _wheels(web, "torch")
    except UnreachableError as error:
        outcome.unreachable[INDEX.format(project="torch")] = str(error)
        return outcome, new
    by_minor: dict[str, list[Wheel]] = {}
    for wheel in wheels:
        by_minor.setdefault(_minor(wheel.version), []).append(wheel)
    oldest = version_key(table.releases[0].torch)
    for minor, found in sorted(by_minor.items(), key=lambda pair: version_key(pair[0])):
        row = table.release(minor)
        if version_key(minor) < oldest:
            continue
        try:
            default = _default_build(web, found)
        except UnreachableError as error:
            outcome.unreachable[f"{_newest(found).url}.metadata"] = str(error)
            default = {}
        if row is None:
            outcome.differences.append(f"new: torch {minor} ({default.get('cuda') or 'CUDA unknown'})")
            made = _row(web, minor, found, default, outcome)
            new += [made] if made else []
        else:
            _compare(row, found, default, outcome)
    gone = [row.torch for row in table.releases if row.torch not in by_minor]
    outcome.differences += [f"torch {minor}: not on PyPI" for minor in gone]
    return outcome, new


def _compare(row: TorchRelease, wheels: list[Wheel], default: dict[str, str], outcome: Outcome) -> None:
    outcome.compared += 1
    newest = _newest(wheels)
    pairs = [
        ("patch_releases", ", ".join(row.patch_releases), ", ".join(_versions(wheels))),
        ("python_min", row.python_min, newest.python_min or row.python_min),
        ("python_max", row.python_max, _python_max(wheels)),
    ]
    variant = next((one for one in row.variants if one.variant == row.pypi_default), None)
    if "cuda" in default:
        pairs.append(("pypi_default", row.pypi_default, _name(default["cuda"])))
    for field in ("cudnn", "nccl"):
        ours = getattr(variant, field, None)
        if field in default and ours:
            same = min(len(version_key(ours)), len(version_key(default[field])))
            agree = version_key(ours)[:same] == version_key(default[field])[:same]
            pairs.append((field, ours, ours if agree else default[field]))
        elif field in default:
            outcome.notes.append(f"torch {row.torch}: {row.pypi_default} has no {field}; PyPI says {default[field]}")
    outcome.differences += [
        f"torch {row.torch}: {field} {ours}; PyPI says {theirs}" for field, ours, theirs in pairs if ours != theirs
    ]


def _default_build(web: Web, wheels: list[Wheel]) -> dict[str, str]:
    """cuda, cudnn, nccl of the newest wheel, as far as its metadata pins them (before 1.13 it pins nothing)."""
    page = _metadata(web, wheels)
    if page is None:
        msg = "no metadata beside the wheel"
        raise UnreachableError(msg)
    found: dict[str, str] = {}
    for match in _PINNED.finditer(page.text):
        name = re.sub(r"-cu\d+$", "", match["name"])
        if name in {"nvidia-cuda-runtime", "cuda-toolkit"}:
            found.setdefault("cuda", _minor(match["version"]))
        elif name in {"nvidia-cudnn", "nvidia-nccl"}:
            found.setdefault(name.removeprefix("nvidia-"), match["version"])
    return found


def _row(web: Web, minor: str, wheels: list[Wheel], default: dict[str, str], outcome: Outcome) -> TorchRelease | None:
    """The row of a new release; None, and a note, where PyPI does not say enough for one."""
    torchvision = _torchvision(web, minor) if "cuda" in default else None
    python_min = _newest(wheels).python_min
    if "cuda" not in default or python_min is None or torchvision is None:
        outcome.notes.append(
            f"torch {minor}: PyPI says too little for a row (CUDA, Python, torchvision): write it by hand"
        )
        return None
    return TorchRelease.model_validate(
        {
            "torch": minor,
            "patch_releases": _versions(wheels),
            "python_min": python_min,
            "python_max": _python_max(wheels),
            "pypi_default": _name(default["cuda"]),
            "torchvision": torchvision,
            # The list of builds is not PyPI's to tell: there may be others.
            "certainty": "uncertain",
            "sources": [_source_key(minor)],
            "variants": [
                {"variant": _name(default["cuda"]), **default, "certainty": "verified", "sources": [_source_key(minor)]}
            ],
        }
    )


def _torchvision(web: Web, minor: str) -> str | None:
    """The minor release of torchvision that pins this torch."""
    try:
        wheels = _wheels(web, "torchvision")
        versions = sorted({wheel.version for wheel in wheels}, key=version_key, reverse=True)[:_TORCHVISIONS_TRIED]
        for version in versions:
            page = _metadata(web, [wheel for wheel in wheels if wheel.version == version])
            pins = (
                [match["version"] for match in _PINNED.finditer(page.text) if match["name"] == "torch"] if page else []
            )
            if any(_minor(pin) == minor for pin in pins):
                return _minor(version)
    except UnreachableError:
        pass
    return None


def write(path: Path, releases: list[TorchRelease]) -> None:
    """Add the rows and their sources to the file, and change nothing else in it.

    Raises:
        ValueError: what would be written is no table any more; the file stays as it was.
    """
    text = path.read_text(encoding="utf-8")
    for release in releases:
        version = release.patch_releases[-1]
        source = (
            f'  {_source_key(release.torch)}: "https://pypi.org/project/torch/{version}/ (metadata of the wheel)"\n'
        )
        text = _insert(text, "\nreleases:\n", source)
        text = _insert(text, "\naarch64:\n", _as_yaml(release))
    ReleaseTable.model_validate(yaml.safe_load(text))
    path.write_text(text, encoding="utf-8")


def _insert(text: str, before: str, block: str) -> str:
    """The block at the end of the section in front of `before`, whose blank line stays where it is."""
    head, found, tail = text.partition("\n" + before)
    if not found:
        msg = f"the file has no line {before.strip()!r} with a blank line above it"
        raise ValueError(msg)
    return f"{head}\n{block}{before}{tail}"


def _as_yaml(release: TorchRelease) -> str:
    variant = release.variants[0]
    parts = [("variant", variant.variant), ("cuda", f'"{variant.cuda}"')]
    parts += [(name, f'"{value}"') for name in ("cudnn", "nccl") if (value := getattr(variant, name))]
    parts += [("certainty", variant.certainty), ("sources", f"[{', '.join(variant.sources)}]")]
    patches = ", ".join(f'"{version}"' for version in release.patch_releases)
    lines = [
        f'  - torch: "{release.torch}"',
        f"    patch_releases: [{patches}]",
        f'    python_min: "{release.python_min}"',
        f'    python_max: "{release.python_max}"',
        f"    pypi_default: {release.pypi_default}",
        f'    torchvision: "{release.torchvision}"',
        f"    certainty: {release.certainty}",
        f"    sources: [{', '.join(release.sources)}]",
        "    variants:",
        *(f"      {'- ' if number == 0 else '  '}{name}: {value}" for number, (name, value) in enumerate(parts)),
    ]
    return "\n".join(lines) + "\n"


def _wheels(web: Web, project: str) -> list[Wheel]:
    """The project's wheels for Linux x86_64.

    Raises:
        UnreachableError: the index could not be read.
    """
    url = INDEX.format(project=project)
    page = web.get(url, {"Accept": "text/html"})
    if page is None:
        msg = "the index has no such project"
        raise UnreachableError(msg)
    wheels = []
    for file in _FILE.finditer(page.text):
        wheel = _WHEEL.fullmatch(file["name"].strip())
        if wheel is None or "data-yanked" in file["attributes"]:
            continue
        required = re.search(r'data-requires-python="([^"]*)"', file["attributes"])
        least = re.search(r">=\s*(\d+\.\d+)", html.unescape(required[1])) if required else None
        where = urljoin(url, html.unescape(file["url"]))
        wheels.append(Wheel(wheel["version"], f"3.{wheel['python']}", least[1] if least else None, where))
    return wheels


def _versions(wheels: list[Wheel]) -> list[str]:
    return sorted({wheel.version for wheel in wheels}, key=version_key)


def _metadata(web: Web, wheels: list[Wheel]) -> Page | None:
    """The metadata of the newest version; a mirror may have it for some of the wheels only."""
    newest = [wheel for wheel in wheels if wheel.version == _newest(wheels).version]
    asked = (web.get(f"{wheel.url}.metadata") for wheel in sorted(newest, key=lambda wheel: version_key(wheel.python)))
    return next((page for page in asked if page), None)


def _newest(wheels: list[Wheel]) -> Wheel:
    """A wheel of the newest version; of the oldest Python, so that the answer does not depend on the list's order."""
    last = _versions(wheels)[-1]
    return min((wheel for wheel in wheels if wheel.version == last), key=lambda wheel: version_key(wheel.python))


def _python_max(wheels: list[Wheel]) -> str:
    return max((wheel.python for wheel in wheels), key=version_key)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _name(cuda: str) -> str:
    return f"cu{cuda.replace('.', '')}"


def _source_key(minor: str) -> str:
    return f"pypi-{minor}"
