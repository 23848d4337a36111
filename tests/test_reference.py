"""The packaged tables: complete, unique, sourced, and safe to run over hostile text."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.cards import find_gpu, same_card
from cuda_matrix.catalogue import CONTEXT_FACTS
from cuda_matrix.drivers import cuda_of_number
from cuda_matrix.facts import Fact, version_key
from cuda_matrix.model import Frozen
from cuda_matrix.reference import data_text, load_reference, unique
from cuda_matrix.tables import MESSAGE_FACTS

REFERENCE = load_reference()
CAUSES = REFERENCE.catalogue.causes
PATTERNS = sorted(
    {(c.code, p) for c in CAUSES.values() for s in c.signatures for p in (s.pattern, s.also) if p is not None}
)
VERSION_KEYS = {
    *("cc", "branch", "cuda", "cuda_major", "driver", "release", "torch", "cudnn", "nccl", "python", "glibc"),
    *("capability", "cuda_driver", "eol", "family", "first_cuda", "first_toolkit", "last_branch", "patch_releases"),
    *("python_max", "python_min", "removed_in", "since_torch", "sm", "torchvision"),
}
SOURCED = {
    "drivers.yml": REFERENCE.drivers,
    "torch-releases.yml": REFERENCE.releases,
    "image-schemes.yml": REFERENCE.schemes,
    "systems.yml": REFERENCE.systems,
    "architectures.yml": REFERENCE.architectures,
}


def versions_in(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        named = [
            (f"{path}.{key}", entry)
            for key, entry in value.items()
            if key in VERSION_KEYS and not (key == "sm" and isinstance(entry, int))  # gpus.yml: how many of them
        ]
        own = [(where, one) for where, entry in named for one in (entry if isinstance(entry, list) else [entry])]
        return own + [found for key, entry in value.items() for found in versions_in(entry, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for index, entry in enumerate(value) for found in versions_in(entry, f"{path}[{index}]")]
    return []


def facts_in(value: Any) -> list[Fact]:
    """Every row below a table, at any depth."""
    if isinstance(value, tuple):
        return [found for entry in value for found in facts_in(entry)]
    if not isinstance(value, Frozen):
        return []
    below = [found for name in type(value).model_fields for found in facts_in(getattr(value, name))]
    return [value, *below] if isinstance(value, Fact) else below


@pytest.mark.parametrize("name", ["gpus.yml", "demo-fleet.yml", *SOURCED])
def test_every_version_in_a_table_is_quoted(name: str) -> None:
    versions = versions_in(yaml.safe_load(data_text(name)))
    assert len(versions) > 10
    assert [where for where, value in versions if not isinstance(value, str | None)] == []


def test_a_row_that_comes_twice_is_refused() -> None:
    assert unique([{"id": "a"}, {"id": "b"}], "id") == [{"id": "a"}, {"id": "b"}]
    with pytest.raises(ValueError, match="id more than once: a"):
        unique([{"id": "a"}, {"id": "b"}, {"id": "a"}], "id")


def test_every_row_has_a_source() -> None:
    for name, table in SOURCED.items():
        rows = facts_in(table)
        assert len(rows) > 10, name
        assert {key for row in rows for key in row.sources} == set(table.sources), name
        assert all(len(text) > 10 for text in table.sources.values()), name
    for texts in (*(card.sources for card in REFERENCE.cards), *(cause.sources for cause in CAUSES.values())):
        assert texts
        assert all(text.strip() for text in texts)
    assert all(cause.sources[0].startswith("https://") for cause in CAUSES.values())  # a report links the first
    assert all(message.source for message in REFERENCE.messages.values())


def test_driver_rows_are_unique_and_rise() -> None:
    branches = [(version_key(row.branch), version_key(row.cuda)) for row in REFERENCE.drivers.branches]
    assert branches == sorted(branches)
    assert len({branch for branch, _ in branches}) == len(branches)
    releases = [(row.cuda, row.release) for row in REFERENCE.drivers.toolkits]
    assert len(set(releases)) == len(releases)
    floors = [version_key(row.driver) for row in REFERENCE.drivers.toolkits]
    assert floors == sorted(floors)


def test_each_toolkit_comes_with_a_driver_of_its_own_branch() -> None:
    drivers = REFERENCE.drivers
    for row in drivers.toolkits:
        assert drivers.cuda_of(row.driver) == row.cuda, row.release
        floor = drivers.floor_of(row.cuda)
        early = row.cuda == "11.0"  # the floor of CUDA 11 was set after its first drivers
        assert floor is None or early or version_key(floor) <= version_key(row.driver), row.release
    majors = {row.cuda.split(".")[0] for row in drivers.toolkits}
    assert {row.cuda_major for row in drivers.floors} == majors - {"10"}


def test_what_is_said_of_a_branch_or_a_kind_of_card_is_said_once() -> None:
    drivers = REFERENCE.drivers
    supported = [row.branch for row in drivers.support]
    assert len(set(supported)) == len(supported)
    assert set(supported) <= {row.branch for row in drivers.branches}
    kinds = [row.kind for row in drivers.forward.classes]
    assert sorted(kinds) == sorted({card.kind for card in REFERENCE.cards})
    answers = {kind: (drivers.compat(kind) or drivers.forward.classes[0]).supported for kind in kinds}
    assert answers == {"datacenter": "yes", "workstation": "some", "consumer": "no"}
    assert drivers.compat("handheld") is None


def test_a_card_is_of_a_known_generation() -> None:
    for card in REFERENCE.cards:
        generation = REFERENCE.architectures.architecture(card.cc)
        assert generation is not None, card.id
        assert card.architecture.startswith(generation.name), card.id


def test_every_build_of_torch_is_one_that_its_toolkit_can_make() -> None:
    """Its CUDA is one of the toolkits, and each of its capabilities one that this toolkit makes code for."""
    toolkits = {row.cuda for row in REFERENCE.drivers.toolkits}
    for release in REFERENCE.releases.releases:
        for variant in release.variants:
            assert variant.cuda in toolkits, (release.torch, variant.variant)
            for machine in ("x86_64", "aarch64"):
                build = REFERENCE.releases.build(release.torch, variant.cuda, machine)
                assert build is not None
                made = {sm: REFERENCE.architectures.compiles(variant.cuda, sm) for sm in build.capabilities}
                assert set(made.values()) <= {True}, (release.torch, variant.variant, machine, made)


def test_reading_every_table_takes_no_time() -> None:
    """It is done at nearly every start: 0.07 s here; the limit leaves room for a busy machine."""
    load_reference.cache_clear()
    begin = time.process_time()
    load_reference()
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize("card", REFERENCE.cards, ids=lambda card: card.id)
def test_every_card_is_found_by_its_own_name_and_id(card: Any) -> None:
    assert card in find_gpu(card.name, REFERENCE.cards)
    assert find_gpu(card.id, REFERENCE.cards) == (card,)
    assert {found.cc for found in find_gpu(card.name, REFERENCE.cards)} == {card.cc}


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("NVIDIA GeForce RTX 3090", ["rtx3090"]),
        ("RTX 3090", ["rtx3090"]),
        ("RTX3090Ti", ["rtx3090ti"]),
        ("NVIDIA GeForce RTX 4090 D", ["rtx4090d"]),
        ("A800", ["a800-40-pcie", "a800-80-pcie", "a800-80-sxm"]),
        ("NVIDIA A800-SXM4-80GB", ["a800-80-sxm"]),
        ("NVIDIA H100 80GB HBM3", ["h100-sxm"]),
        ("H800", ["h800-sxm", "h800-pcie"]),
        ("NVIDIA H200", ["h200-sxm"]),
        ("L4", ["l4"]),
        ("Tesla V100-SXM2-32GB", ["v100-sxm2"]),
        ("NVIDIA RTX 6000 Ada Generation", ["rtx6000ada"]),
        ("Quadro RTX 6000", []),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", []),
        ("a card of next year", []),
    ],
)
def test_find_gpu(name: str, ids: list[str]) -> None:
    assert [card.id for card in find_gpu(name, REFERENCE.cards)] == ids


@pytest.mark.parametrize(
    ("configured", "reported", "same"),
    [
        ("RTX 3090", "NVIDIA GeForce RTX 3090", True),
        ("RTX 3090", "NVIDIA GeForce RTX 3090 Ti", False),
        ("RTX 3090 Ti", "NVIDIA GeForce RTX 3090", False),
        ("RTX 4090", "NVIDIA GeForce RTX 4090 D", False),
        ("RTX 4090D", "NVIDIA GeForce RTX 4090 D", True),
        ("RTX 3080", "NVIDIA GeForce RTX 3080 Laptop GPU", False),
        ("A800", "NVIDIA A800 80GB PCIe", True),
        ("A800", "NVIDIA A800-SXM4-80GB", True),
        ("A800", "NVIDIA A800 40GB Active", True),
        ("A800 80GB", "NVIDIA A800 40GB Active", False),
        ("A800", "NVIDIA A100-SXM4-80GB", False),
        ("A100 PCIe", "NVIDIA A100-SXM4-40GB", False),
        ("A10", "NVIDIA A10G", False),
        ("L40", "NVIDIA L40S", False),
        ("L4", "NVIDIA L4", True),
        ("H20", "NVIDIA H200", False),
        ("RTX 6000 Ada", "Quadro RTX 6000", False),
        ("RTX PRO 6000 Blackwell", "NVIDIA RTX PRO 6000 Blackwell Server Edition", True),
        ("rtx3090", "NVIDIA GeForce RTX 3090", True),
        ("a800-80-pcie", "NVIDIA A800-SXM4-80GB", False),
    ],
)
def test_same_card(configured: str, reported: str, same: bool) -> None:
    assert same_card(configured, reported, REFERENCE.cards) is same


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [("470.129.06", "11.4"), ("550.54.15", "12.4"), ("580.65.06", "13.0"), ("999.1", None), ("", None)],
)
def test_cuda_of_a_driver(driver: str, cuda: str | None) -> None:
    assert REFERENCE.drivers.cuda_of(driver) == cuda


@pytest.mark.parametrize(
    ("cuda", "floor"), [("11.8", "450.80.02"), ("12.1", "525.60.13"), ("13.0", "580"), ("10.2", None)]
)
def test_floor_of_a_cuda(cuda: str, floor: str | None) -> None:
    assert REFERENCE.drivers.floor_of(cuda) == floor


# What NVIDIA's own libcudart answered over drivers of these CUDA versions, measured 2026-11-21: 12.x and 13.0 alike,
# the major decides.
GATE = [
    *((driver, runtime, False) for driver in ("11.4", "11.7", "11.8") for runtime in ("12.1", "12.4", "12.8", "13.0")),
    *((driver, runtime, True) for driver in ("12.0", "12.1", "12.4", "12.8", "13.0") for runtime in ("12.1", "12.8")),
    *((driver, "13.0", False) for driver in ("12.0", "12.1", "12.4", "12.8")),
    ("13.0", "13.0", True),
    ("10.1", "10.2", False),  # before 11 there is no minor-version compatibility
    ("10.2", "10.1", True),
]


@pytest.mark.parametrize(("driver", "runtime", "starts"), GATE)
def test_the_gate_is_that_of_the_real_runtime(driver: str, runtime: str, starts: bool) -> None:
    assert REFERENCE.drivers.runs(driver, runtime) is starts


@pytest.mark.parametrize(("number", "cuda"), [(11040, "11.4"), (12000, "12.0"), (13010, "13.1")])
def test_cuda_of_number(number: int, cuda: str) -> None:
    assert cuda_of_number(number) == cuda


def test_the_catalogue_holds_what_other_modules_name() -> None:
    ours = {
        *(
            "unknown",
            "torch-missing",
            "python-missing",
            "silent-cpu-fallback",
            "expectation-mismatch",
            "numerics-wrong",
        ),
        *("training-diverged", "check-timeout", "cell-timeout", "payload-never-started", "result-incomplete"),
        *("runner-card-mismatch", "no-shell", "engine-error", "gpu-not-exposed", "driver-caps-missing", "native-crash"),
        *("device-id-invalid", "gpu-oom-other-process", "host-oom-kill", "cpu-only-torch"),
    }
    assert ours <= set(CAUSES)


@pytest.mark.parametrize("cause", CAUSES.values(), ids=lambda cause: cause.code)
def test_a_cause_can_be_read_by_a_person(cause: Any) -> None:
    assert cause.explanation.endswith(".")
    assert all(step.strip() for step in cause.fix)
    assert not cause.fix[0].startswith("As root")  # the first step needs no root
    assert set(re.findall(r"\{(\w+)\}", cause.context)) <= CONTEXT_FACTS


@pytest.mark.parametrize("message", REFERENCE.messages.values(), ids=REFERENCE.messages)
def test_a_message_names_a_known_cause_and_known_facts(message: Any) -> None:
    assert message.cause in CAUSES
    assert set(re.findall(r"\{(\w+)\}", message.text)) <= MESSAGE_FACTS


@pytest.mark.parametrize(("code", "pattern"), PATTERNS)
def test_a_signature_cannot_run_away(code: str, pattern: str) -> None:
    """No unbounded gap and no repeated group: the cost of a line grows with its length alone."""
    assert not re.search(r"(?<!\\)[.\]][*+]|\)[*+]|\)\{", pattern), code
    words = "".join(re.findall(r"[\w /:.]", pattern)) or "x"
    hostile = (words * (2_000 // len(words) + 1))[:2_000]
    begin = time.perf_counter()
    for line in (hostile, "a" * 2_000, "/" * 2_000, "1" * 2_000, " " * 2_000):
        re.search(pattern, line, re.IGNORECASE)
    assert time.perf_counter() - begin < 2.0


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_can_be_a_name(one: str, other: str) -> None:
    assert same_card(one, one, REFERENCE.cards) is True
    assert same_card(one, other, ()) is same_card(other, one, ())
    find_gpu(one, REFERENCE.cards)
