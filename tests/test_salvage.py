"""Mistakes that have nothing to do with each other are told together, each once, and nothing else is told."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda_matrix import config_files
from cuda_matrix.errors import ConfigurationError

GOOD = {
    "images.yml": """\
version: 1
images:
  - id: torch{torch}-cu{cuda}
    ref: p/t:{torch}-{cuda}
    axes: {torch: ["2.4", "2.5"], cuda: ["11.8", "12.10"]}
    exclude: [{torch: "2.5", cuda: "11.8", reason: never made}]
    expect: {torch: "{torch}"}
  - id: universal
    ref: p/u:1
    variants:
      cu118: {env: {A: b}}
      cu121: {}
  - id: plain
    ref: p/p:1
    paths: [a]
  - {id: last, ref: "p/l:1"}
""",
    "runners.yml": """\
version: 1
runners:
  g1:
    labels: [g1]
    jobs: 2
    driver: "550.54"
  g2:
    labels: [g2]
    docker_host: ssh://ci@g2
  g3: {labels: [g3]}
exclude:
  - {image: plain, runner: g3, reason: no use}
  - {image: "torch*", runner: g3, reason: no use}
  - {image: universal, variant: cu118, runner: g3, reason: no use}
include:
  - {image: plain, runner: g3}
  - {image: universal, variant: cu118, runner: g3}
""",
    "policy.yml": """\
payload:
  timeout: 20m
  checks: [numerics]
  benchmarks: ["gemm.*"]
container:
  shm_size: 8g
  memory: 64g
policy:
  tiers:
    fast: ["*@g1"]
    slow: ["torch2.4*@*", "universal+cu121@g2"]
  required: ["plain@g3"]
  expect_fail:
    - cell: "torch*@g2"
      until: "2030-01-01"
      cause: driver-too-old
      reason: known
report: {dir: a}
""",
}

# Mistake: file, what stands there, what is put there instead (as many lines), path of the one problem.
MISTAKES = {
    "unquoted version": ("images.yml", '"12.10"]', "12.10]", "images[0].axes.cuda[1]"),
    "brace": ("images.yml", 'expect: {torch: "{torch}"}', 'expect: {torch: "{troch}"}', "images[0].expect.torch"),
    "unknown key of an image": ("images.yml", "paths: [a]", "path: [a]", "images[2].path"),
    "unknown mapping of an image": ("images.yml", "    variants:\n", "    variant:\n", "images[1].variant"),
    "not a reference": ("images.yml", '"p/l:1"', '"P/l:1"', "images[3].ref"),
    "number as reference": ("images.yml", "ref: p/p:1", "ref: 12", "images[2].ref"),
    "environment name": ("images.yml", "{env: {A: b}}", "{env: {1A: b}}", "images[1].variants.cu118.env.1A"),
    "environment number": ("images.yml", "{env: {A: b}}", "{env: {A: 5}}", "images[1].variants.cu118.env.A"),
    "double id": ("images.yml", "id: last", "id: plain", "images[3].id"),
    "repeated key": ("images.yml", "paths: [a]", "ref: p/q:1", "images[2].ref"),
    "version 2": ("images.yml", "version: 1", "version: 2", "version"),
    "empty variant": ("images.yml", "cu121: {}", "cu121: []", "images[1].variants.cu121"),
    "jobs": ("runners.yml", "jobs: 2", "jobs: two", "runners.g1.jobs"),
    "driver": ("runners.yml", '"550.54"', '"seven"', "runners.g1.driver"),
    "labels": ("runners.yml", "    labels: [g2]", "    labels: []", "runners.g2.labels"),
    "docker host": ("runners.yml", "ssh://ci@g2", "gpu2", "runners.g2.docker_host"),
    "runner without anything": ("runners.yml", "g3: {labels: [g3]}", "g3: []", "runners.g3"),
    "exclude's unknown runner": ("runners.yml", 'torch*", runner: g3', 'torch*", runner: g9', "exclude[1].runner"),
    "exclude's unknown image": ("runners.yml", '{image: "torch*"', '{image: "trch*"', "exclude[1]"),
    "exclude's unknown key": ("runners.yml", "universal, variant", "universal, varant", "exclude[2].varant"),
    "exclude without reason": (
        "runners.yml",
        "plain, runner: g3, reason: no use",
        "plain, runner: g3",
        "exclude[0].reason",
    ),
    "include's unknown runner": ("runners.yml", "cu118, runner: g3}\n", "cu118, runner: g7}\n", "include[1].runner"),
    "include's unknown variant": (
        "runners.yml",
        "variant: cu118, runner: g3}\n",
        "variant: cu11, runner: g3}\n",
        "include[1].variant",
    ),
    "include's unknown key": ("runners.yml", "- {image: plain, runner: g3}\n", "- {image: plain, card: g3}\n", None),
    "duration": ("policy.yml", "20m", "20", "payload.timeout"),
    "check glob": ("policy.yml", "numerics", "numeric", "payload.checks[0]"),
    "benchmark glob": ("policy.yml", "gemm.*", "gmm.*", "payload.benchmarks[0]"),
    "size without unit": ("policy.yml", "8g", '"8"', "container.shm_size"),
    "little memory": ("policy.yml", "64g", "63m", "container.memory"),
    "tier glob": ("policy.yml", '"*@g1"', '"*@g11"', "policy.tiers.fast[0]"),
    "another tier glob": ("policy.yml", "universal+cu121@g2", "universl+cu121@g2", "policy.tiers.slow[1]"),
    "required number": ("policy.yml", '"plain@g3"', "12", "policy.required[0]"),
    "date": ("policy.yml", "2030-01-01", "soon", "policy.expect_fail[0].until"),
    "cause": ("policy.yml", "driver-too-old", "driver-to-old", "policy.expect_fail[0].cause"),
    "unknown section": ("policy.yml", "report: {", "repotr: {", "repotr"),
}
# These touch the same words, or one hides what the other says.
CLASHES = [
    {"unknown key of an image", "repeated key"},
    {"number as reference", "repeated key"},
    {"environment name", "environment number"},
    {"exclude's unknown runner", "exclude's unknown image"},
    {"include's unknown runner", "include's unknown variant"},
    {"unknown mapping of an image", "include's unknown variant"},
    {"unknown mapping of an image", "environment name"},
    {"unknown mapping of an image", "environment number"},
    {"unknown mapping of an image", "empty variant"},
    {"unknown mapping of an image", "another tier glob"},
]
del MISTAKES["include's unknown key"]


def told(names: Collection[str]) -> list[str]:
    """`file:line:column: path: message` of every problem, sorted."""
    texts = dict(GOOD)
    for name in names:
        file, before, after, _ = MISTAKES[name]
        assert texts[file].count(before) >= 1, name
        texts[file] = texts[file].replace(before, after, 1)
    with TemporaryDirectory() as folder:
        for file, text in texts.items():
            (Path(folder) / file).write_text(text, encoding="utf-8")
        try:
            config_files.load(folder)
        except ConfigurationError as error:
            return sorted(str(problem).replace(f"{folder}/", "") for problem in error.problems)
    return []


def test_the_good_one_is_good() -> None:
    assert told([]) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_one_problem(name: str) -> None:
    file, *_, path = MISTAKES[name]
    (line,) = told([name])
    place, found, _ = line.split(": ", 2)
    assert found == path
    assert place.startswith(f"{file}:")
    assert place.count(":") == 2


@given(
    st.sets(st.sampled_from(sorted(MISTAKES)), min_size=2).filter(lambda names: not any(c <= names for c in CLASHES))
)
@settings(deadline=None)
def test_mistakes_together_are_the_union(names: set[str]) -> None:
    assert without_columns(told(names)) == without_columns(line for name in names for line in told([name]))


def without_columns(lines: Iterable[str]) -> list[tuple[str, str]]:
    """(file:line, path) of each: a longer word moves what stands behind it."""
    places = [line.split(": ", 2) for line in lines]
    return sorted((place.rpartition(":")[0], path) for place, path, _ in places)


VALUES = st.sampled_from([None, True, 0, 12.5, "", "a", "{", "@", [], ["a"], [None], [[]], {}, {"a": 1}, {"": {}}])


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path of a value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for part, each in below for found in places(each, (*path, part)))]


WHOLE = {key: part for text in GOOD.values() for key, part in yaml.safe_load(text).items()}
PLACES = places(WHOLE)[1:]


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=4))
@settings(deadline=None)
def test_whatever_stands_there_is_a_configuration_or_told_at_once(changes: list[tuple[Any, Any]]) -> None:
    whole = copy.deepcopy(WHOLE)
    for path, new in changes:
        parent: Any = whole
        for part in path[:-1]:
            parent = parent[part] if part in places_of(parent) else None
        if parent is not None and path[-1] in places_of(parent):
            parent[path[-1]] = new
    with TemporaryDirectory() as folder, suppress(ConfigurationError):
        (Path(folder) / "a.yml").write_text(yaml.safe_dump(whole), encoding="utf-8")
        assert config_files.load(folder).config.version == 1


def places_of(value: Any) -> Collection[str | int]:
    """What may be asked of a container."""
    return value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
