"""Operating systems and their C library; what torch's wheels need of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.facts import version_key
from cuda_matrix.reference import load_reference

SYSTEMS = load_reference().systems


def test_systems_are_listed_once_and_a_distribution_never_goes_back() -> None:
    names = [row.os for row in SYSTEMS.systems]
    assert len(set(names)) == len(names)
    assert len(names) > 20
    by_distribution: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for row in SYSTEMS.systems:
        by_distribution.setdefault(row.os.rstrip("0123456789."), []).append(
            (version_key(row.os), version_key(row.glibc))
        )
    for rows in by_distribution.values():
        assert rows == sorted(rows)
        assert [glibc for _, glibc in rows] == sorted(glibc for _, glibc in rows)
    assert set(SYSTEMS.aliases.values()) <= set(by_distribution)
    assert not set(SYSTEMS.aliases) & set(by_distribution)


@pytest.mark.parametrize("release", ["8", "9", "10"])
def test_rebuilds_of_one_release_have_one_c_library(release: str) -> None:
    names = ("rhel", "ubi", "rockylinux", "alma", "oraclelinux", "centos")
    found = {row.glibc for name in names if (row := SYSTEMS.system(f"{name}{release}"))}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("os", "glibc"),
    [
        ("ubuntu22.04", "2.35"),
        ("Ubuntu 22.04.5", "2.35"),
        ("ubuntu:20.04", "2.31"),
        ("ubuntu16.04", "2.23"),
        ("debian12", "2.36"),
        ("debian 12.9", "2.36"),
        ("rocky:9.3", "2.34"),
        ("rockylinux8", "2.28"),
        ("almalinux9", "2.34"),
        ("ubi8", "2.28"),
        ("centos7", "2.17"),
        ("ubuntu22.10", None),
        ("ubuntu", None),
        ("debian1", None),
        ("ubuntu2", None),
        ("windows11", None),
        ("", None),
    ],
)
def test_the_c_library_of_a_system(os: str, glibc: str | None) -> None:
    row = SYSTEMS.system(os)
    assert (row.glibc if row else None) == glibc


@pytest.mark.parametrize(
    ("torch", "cuda", "machine", "glibc"),
    [
        ("1.13.1", "11.7", "x86_64", "2.17"),
        ("2.5.1+cu124", "12.4", "x86_64", "2.17"),
        ("2.6.0", "12.4", "x86_64", "2.17"),  # PyPI's own wheel of 2.6.0 is manylinux1
        ("2.6.0", "12.6.3", "x86_64", "2.28"),
        ("2.6.0", None, "x86_64", "2.17"),
        ("2.6.0", "12.4", "aarch64", "2.28"),
        ("2.5.1", "12.4", "arm64", "2.17"),
        ("2.7.0", "11.8", "x86_64", "2.28"),
        ("2.10.0", "12.6", "amd64", "2.28"),
        ("2.15.0", "13.2", "x86_64", "2.28"),
        ("1.9.0", "11.1", "x86_64", None),
        ("2.7.0", "12.8", "ppc64le", None),
        ("latest", "12.8", "x86_64", None),
    ],
)
def test_what_a_wheel_needs(torch: str, cuda: str | None, machine: str, glibc: str | None) -> None:
    floor = SYSTEMS.wheel_floor(torch, cuda, machine)
    assert (floor.glibc if floor else None) == glibc


@given(st.text(max_size=80))
def test_any_text_can_be_a_system(os: str) -> None:
    row = SYSTEMS.system(os)
    assert row is None or row in SYSTEMS.systems
