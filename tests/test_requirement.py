"""NVIDIA_REQUIRE_*: what the container toolkit answers, asked with the strings of NVIDIA's own images."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.requirement import Admission, Machine, evaluate, go_bool, says_something

CUDA_12_8 = "cuda>=12.8 " + " ".join(
    f"brand={brand},driver>={branch},driver<{branch + 1}"
    for branch in (470, 535, 550, 560, 565)
    for brand in (
        "unknown",
        "nvidia",
        "tesla",
        "nvidiartx",
        "quadro",
        "quadrortx",
        "grid",
        "vapps",
        "vpc",
        "vcs",
        "vws",
    )
)
# nvidia/cuda:13.2.1, the part that compat.yml quotes
CUDA_13_2 = (
    "cuda>=13.2 brand=tesla,driver>=535,driver<536 brand=tesla,driver>=570,driver<571 "
    "brand=tesla,driver>=580,driver<581 brand=tesla,driver>=590,driver<591"
)
CUDA_12_1_1 = "cuda>=12.1 brand=tesla,driver>=470,driver<471 brand=geforce,driver>=525,driver<526"


def machine(cuda: str | None, driver: str | None, *brands: str, arch: str | None = "8.6") -> Machine:
    return Machine(cuda=(cuda, cuda), driver=driver, arch=arch, brands=brands)


def asked(text: str, host: Machine) -> Admission:
    return evaluate({"NVIDIA_REQUIRE_CUDA": text}, host)


@pytest.mark.parametrize(
    ("text", "host", "admitted", "lasting"),
    [
        (CUDA_12_8, machine("12.8", "570.86.10", "geforce"), True, True),
        (CUDA_12_8, machine("12.4", "550.54.15", "geforce"), False, True),  # ggml-org/llama.cpp#9665
        (CUDA_12_8, machine("12.4", "550.54.15", "tesla", "nvidia"), True, False),
        (CUDA_12_8, machine("12.5", "555.42.06", "tesla", "nvidia"), False, True),  # newer, and not in the list
        (CUDA_12_8, machine("11.4", "470.129.06", "tesla", "nvidia"), True, False),
        (CUDA_13_2, machine("13.2", "595.58.03", "geforce"), True, True),
        (CUDA_13_2, machine("13.0", "580.65.06", "geforce"), False, True),
        (CUDA_13_2, machine("13.0", "580.65.06", "tesla"), True, False),
        (CUDA_13_2, machine("13.0", "580.65.06", "tesla", "nvidia"), None, True),  # this copy names one brand only
        (CUDA_12_1_1, machine("12.0", "525.60.13", "geforce"), True, False),
        (CUDA_12_1_1, machine("11.8", "520.61.05", "geforce"), False, True),
    ],
)
def test_the_strings_of_nvidias_images(text: str, host: Machine, admitted: bool | None, lasting: bool) -> None:
    answer = asked(text, host)
    assert (answer.admitted, answer.lasting) == (admitted, lasting)


def test_the_message_names_the_first_condition_of_the_variable_that_refuses() -> None:
    answer = asked(CUDA_12_8, machine("12.4", "550.54.15", "geforce"))
    assert answer.unsatisfied == "cuda>=12.8"


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("", True),
        ("   ", True),
        ("cuda>=11.6", True),
        ("cuda>11.6", True),
        ("cuda<=11.6", False),
        ("cuda<11.6", False),
        ("cuda=11.6", False),
        ("cuda=12.4", True),
        ("cuda=12.4.0", True),  # missing parts are zero
        ("cuda!=12.4", False),
        ("cuda!=11.6", True),
        ("cuda>=99 arch=8.6", True),  # space: or
        ("cuda>=11.6,arch=5.3", False),  # comma: and
        ("cuda>=99 cuda>=11.6,arch=8.6", True),
        ("cuda>=99,", False),
        (" cuda>=11.6", True),
        ("driver>=550", True),  # 550.54.15 is newer than 550
        ("driver<=550", False),
        ("driver<551", True),
        ("brand=GeForce", True),
        ("brand!=geforce", False),
        ("cuda>=9.10", True),  # by number, not by text
    ],
)
def test_operators(text: str, admitted: bool) -> None:
    assert asked(text, machine("12.4", "550.54.15", "geforce")).admitted is admitted


@pytest.mark.parametrize("text", ["notvalid", "cuda=foo", "cuda>=", ">=12.1", "cuda==12.4", "cuda=>12.4"])
def test_a_malformed_requirement_ends_the_start(text: str) -> None:
    answer = asked(text, machine("12.4", "550.54.15", "geforce"))
    assert answer.admitted is False
    assert "invalid" in answer.reason


@pytest.mark.parametrize("text", ["foo=bar", "cuda>=11.6,foo=bar", "foo=bar cuda>=11.6"])
def test_the_two_readers_part_over_an_unknown_property(text: str) -> None:
    answer = asked(text, machine("12.4", "550.54.15", "geforce"))
    assert answer.admitted is None
    assert "foo=bar" in answer.reason


def test_neither_reader_minds_what_stands_behind_a_group_that_holds() -> None:
    assert asked("cuda>=11.6 foo=bar", machine("12.4", "550.54.15", "geforce")).admitted is True
    assert asked("cuda>=99 foo=bar", machine("12.4", "550.54.15", "geforce")).admitted is False


def test_variables_are_anded_and_jetpack_is_left_out() -> None:
    host = machine("12.4", "550.54.15", "geforce")
    assert evaluate({"NVIDIA_REQUIRE_CUDA": "cuda>=12.1", "NVIDIA_REQUIRE_ARCH": "arch>=9.0"}, host).admitted is False
    assert evaluate({"NVIDIA_REQUIRE_CUDA": "cuda>=12.1", "NVIDIA_REQUIRE_ARCH": "arch>=8.0"}, host).admitted is True
    assert evaluate({"NVIDIA_REQUIRE_JETPACK": "csv-mounts=all", "NVIDIA_REQUIRE_JETPACK_X": "no"}, host).admitted


def test_a_legacy_image_asks_for_its_cuda() -> None:
    host = machine("12.4", "550.54.15", "geforce")
    assert evaluate({"CUDA_VERSION": "12.4.1"}, host).admitted is True
    assert evaluate({"CUDA_VERSION": "12.6.0"}, host).unsatisfied == "cuda>=12.6"
    assert evaluate({"CUDA_VERSION": "12.6.0", "NVIDIA_REQUIRE_CUDA": "cuda>=9.0"}, host).admitted is True
    assert evaluate({"CUDA_VERSION": "12.6.0", "NVIDIA_REQUIRE_CUDA": ""}, host).admitted is False


@pytest.mark.parametrize(
    ("text", "cuda", "admitted"),
    [
        ("cuda>=12.1", ("12.4", "12.5"), True),
        ("cuda>=12.5", ("12.4", "12.6"), None),
        ("cuda>=12.9", ("12.4", "12.6"), False),
        ("cuda>=13.4", ("13.4", None), True),
        ("cuda>=13.5", ("13.4", None), None),
        ("cuda<12.5", ("12.6", None), False),
        ("cuda<12.5", (None, "12.4"), True),
        ("cuda=12.5", ("12.4", "12.6"), None),
        ("cuda>=12.1", (None, None), None),
    ],
)
def test_a_driver_between_two_rows_of_the_table(
    text: str, cuda: tuple[str | None, str | None], admitted: bool | None
) -> None:
    assert asked(text, Machine(cuda=cuda)).admitted is admitted


def test_what_is_not_known_is_said() -> None:
    assert asked("driver>=550", Machine()) == Admission(None, True, "driver>=550", "", "driver")
    assert "brand" in asked("brand=tesla", Machine()).reason
    assert asked("cuda>=99 brand=tesla", machine("12.4", None, "tesla", "nvidia")).reason == (
        "brand of the card (tesla or nvidia)"
    )


def test_go_reads_booleans_its_own_way() -> None:
    assert [
        text for text in ("1", "t", "T", "true", "TRUE", "True", "yes", "on", "tRUE", "", "0") if go_bool(text)
    ] == [*("1", "t", "T", "true", "TRUE", "True")]


def test_ngcs_constant_says_nothing() -> None:
    assert not says_something({"NVIDIA_REQUIRE_CUDA": "cuda>=9.0"})
    assert not says_something({})
    assert says_something({"NVIDIA_REQUIRE_CUDA": "cuda>=9.0", "NVIDIA_REQUIRE_ARCH": "arch>=8.0"})
    assert says_something({"CUDA_VERSION": "12.1.0"})


_CONDITION = st.one_of(
    st.tuples(st.just("cuda"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.sampled_from(["12.1", "12.4"])),
    st.tuples(
        st.just("driver"), st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from(["530", "535", "550", "551"])
    ),
    st.tuples(st.just("brand"), st.just("="), st.sampled_from(["tesla", "geforce"])),
).map("".join)
_TEXT = st.lists(st.lists(_CONDITION, min_size=1, max_size=3).map(",".join), min_size=1, max_size=4).map(" ".join)
_DRIVERS = [("12.1", "530.30.02"), ("12.2", "535.129.03"), ("12.3", "545.23.08"), ("12.4", "550.54.15")]


@given(_TEXT, st.sampled_from(["geforce", "tesla"]))
def test_a_lasting_admission_lasts(text: str, brand: str) -> None:
    answers = [asked(text, machine(cuda, driver, brand)) for cuda, driver in _DRIVERS]
    for older, newer in pairwise(answers):
        if older.admitted and older.lasting:
            assert newer.admitted
            assert newer.lasting


@given(st.text(alphabet="cudabrndive<>=!., 0129x", max_size=40))
def test_any_text_gets_an_answer(text: str) -> None:
    assert asked(text, machine("12.4", "550.54.15", "geforce")).admitted in {True, False, None}


def test_digits_of_other_scripts_are_no_version() -> None:
    assert evaluate({"CUDA_VERSION": "١٢.٨"}, Machine(("11.4", "11.4"), "470.1")).admitted is True
