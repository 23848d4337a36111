"""Which CUDA builds of PyTorch exist, and what machine code they have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.facts import major_minor, version_key
from cuda_matrix.reference import load_reference

RELEASES = load_reference().releases
TORCHES = [row.torch for row in RELEASES.releases]


def test_releases_are_listed_once_and_in_order() -> None:
    keys = [version_key(torch) for torch in TORCHES]
    assert keys == sorted(set(keys))
    assert (TORCHES[0], TORCHES[-1], len(TORCHES)) == ("1.10", "2.15", 20)


@pytest.mark.parametrize("release", RELEASES.releases, ids=TORCHES)
def test_a_release_agrees_with_itself(release: object) -> None:
    row = RELEASES.release(getattr(release, "torch", ""))
    assert row is release
    assert row is not None
    variants = [variant.variant for variant in row.variants]
    assert len(set(variants)) == len(variants)
    assert row.pypi_default in variants
    assert [f"cu{variant.cuda.replace('.', '')}" for variant in row.variants] == variants
    assert all(major_minor(patch) == row.torch for patch in row.patch_releases)
    assert version_key("3.6") <= version_key(row.python_min) <= version_key(row.python_max) <= version_key("3.15")
    for variant in row.variants:
        capabilities = [version_key(sm) for sm in variant.sm]
        assert capabilities == sorted(set(capabilities)), variant.variant
        known_code = bool(variant.sm) or variant.certainty in {"secondary", "uncertain"}
        assert known_code, f"{variant.variant}: whoever saw the build knows its code"


@pytest.mark.parametrize("torch", ["2.5", "2.5.1", "2.5.1+cu124", "2.5.0a0+b465a5843b", "v2.5.1"])
@pytest.mark.parametrize("cuda", ["12.4", "12.4.1", "12.4.1.003"])
def test_a_build_is_found_by_any_spelling_of_its_versions(torch: str, cuda: str) -> None:
    build = RELEASES.build(torch, cuda)
    assert build is not None
    assert (build.torch, build.variant, build.cudnn, build.nccl) == ("2.5", "cu124", "9.1.0.70", "2.21.5")
    assert build.arch_list == ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
    assert build.certainty == "verified"
    assert all(source.startswith("https://") for source in build.sources)


@pytest.mark.parametrize(
    ("torch", "cuda", "known"),
    [
        ("2.9", "11.8", True),  # what the articles say of 2.9 is wrong: neither was published
        ("2.9", "12.1", True),
        ("2.9.1", "12.8", True),
        ("2.10", "12.9", True),
        ("2.1", "12.4", True),
        ("1.9", "11.1", False),
        ("2.99", "12.8", False),
        ("", "12.8", False),
        ("latest", "12.8", False),
        ("2", "12.8", False),
        ("2.9", "", True),
        ("2.9", "none", True),
    ],
)
def test_never_published_is_told_from_never_heard_of(torch: str, cuda: str, known: bool) -> None:
    assert (RELEASES.release(torch) is not None) is known
    assert (RELEASES.build(torch, cuda) is not None) is (torch == "2.9.1")


def test_the_last_release_with_cuda_11_8_is_2_7_and_with_12_1_is_2_5() -> None:
    last = {cuda: [torch for torch in TORCHES if RELEASES.build(torch, cuda)][-1] for cuda in ("11.8", "12.1", "12.8")}
    assert last == {"11.8": "2.7", "12.1": "2.5", "12.8": "2.11"}


def test_two_ten_is_not_two_one() -> None:
    ten, one = RELEASES.release("2.10"), RELEASES.release("2.1")
    assert ten is not None
    assert one is not None
    assert ten.pypi_default == "cu128"
    assert one.pypi_default == "cu121"


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_builds_for_aarch64_have_lists_of_their_own(machine: str) -> None:
    build = RELEASES.build("2.13", "13.0", machine)
    assert build is not None
    assert (build.machine, build.arch_list) == ("aarch64", ("sm_80", "sm_90", "sm_100", "sm_110", "sm_120"))
    assert build.certainty == "documented"
    unlisted = RELEASES.build("2.5", "12.4", machine)
    assert unlisted is not None
    assert (unlisted.arch_list, unlisted.certainty) == ((), "uncertain")
    assert RELEASES.build("2.13", "13.0", "amd64") == RELEASES.build("2.13", "13.0")
    assert RELEASES.build("2.13", "13.0", "riscv64") is None


def test_a_build_that_one_table_alone_names_decides_nothing() -> None:
    build = RELEASES.build("2.12", "12.9")
    assert build is not None
    assert (build.arch_list, build.certainty) == ((), "uncertain")


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=20))
def test_any_text_can_be_asked_for(torch: str, cuda: str, machine: str) -> None:
    build = RELEASES.build(torch, cuda, machine)
    assert build is None or build.torch in TORCHES


@given(st.integers(0, 9999), st.integers(0, 9999), st.sampled_from(["", ".1", "+cu124", "a0+abc", ".post1", "rc1"]))
def test_major_minor_reads_what_it_is_given(major: int, minor: int, suffix: str) -> None:
    assert major_minor(f"{major}.{minor}{suffix}") == f"{major}.{minor}"


@pytest.mark.parametrize("text", ["", "2", "2.", ".5", "abc", "12345.1", "2.12345", "٢.٥", "latest-2.5"])
def test_major_minor_of_what_is_no_version(text: str) -> None:
    assert major_minor(text) is None
