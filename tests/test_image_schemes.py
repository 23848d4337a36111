"""Tag grammars: each reads its own examples, and nobody reads another's."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cuda_matrix.facts import version_key
from cuda_matrix.image_schemes import Scheme
from cuda_matrix.reference import load_reference

REFERENCE = load_reference()
SCHEMES = REFERENCE.schemes
EXAMPLES = [(scheme.id, example) for scheme in SCHEMES.schemes for example in scheme.examples]


def read(ref: str) -> tuple[str, dict[str, str]] | None:
    repository, _, tag = ref.rpartition(":")
    reading = SCHEMES.read(repository, tag)
    return (reading.scheme.id, reading.says) if reading else None


@pytest.mark.parametrize(("scheme", "example"), EXAMPLES)
def test_an_example_is_read_by_its_own_grammar_and_no_other(scheme: str, example: str) -> None:
    repository, _, tag = example.rpartition(":")
    claiming = [
        row.id for row in SCHEMES.schemes if re.fullmatch(row.repository, repository) and re.fullmatch(row.tag, tag)
    ]
    assert claiming == [scheme]
    found = read(example)
    assert found is not None
    assert found[0] == scheme
    assert found[1]


def test_ids_and_months_are_listed_once() -> None:
    ids = [row.id for row in SCHEMES.schemes]
    assert len(set(ids)) == len(ids)
    months = [row.release for row in SCHEMES.ngc]
    assert months == sorted(set(months))


@pytest.mark.parametrize(
    ("ref", "scheme", "says"),
    [
        (
            "docker.io/pytorch/pytorch:2.11.0-cuda13.0-cudnn9-devel",
            "pytorch",
            {"torch": "2.11.0", "cuda": "13.0", "cudnn": "9", "flavour": "devel"},
        ),
        ("localhost:5000/pytorch/pytorch:latest", "pytorch", {"channel": "latest"}),
        (
            "nvidia/cuda:12.4.1-cudnn-runtime-ubuntu22.04",
            "nvidia-cuda",
            {"cuda": "12.4.1", "flavour": "runtime", "os": "ubuntu22.04"},
        ),
        (
            "nvcr.io/nvidia/cuda:11.8.0-cudnn8-devel-ubi8",
            "nvidia-cuda",
            {"cuda": "11.8.0", "cudnn": "8", "flavour": "devel", "os": "ubi8"},
        ),
        ("nvidia/cuda:11.0-base", "nvidia-cuda", {"cuda": "11.0", "flavour": "base"}),
        ("nvcr.io/nvidia/pytorch:25.10-py3", "ngc-pytorch", {"release": "25.10", "python": "3"}),
        ("nvcr.io/nvidia/pytorch:24.07-py3-igpu", "ngc-pytorch", {"release": "24.07", "python": "3", "igpu": "igpu"}),
        ("pytorch-cuda:v2.9", "pytorch-cuda", {"torch": "2.9"}),
        ("team/pytorch-cuda:v2.9-lts", "pytorch-cuda", {"torch": "2.9", "channel": "lts"}),
        ("team/pytorch-cuda:2.9-latest", "pytorch-cuda", {"torch": "2.9", "channel": "latest"}),
        ("pytorch_cuda:lts", "pytorch-cuda", {"channel": "lts"}),
        (
            "pytorch-cuda:2.9.0-cuda12.1-cudnn9-runtime",
            "pytorch-cuda",
            {"torch": "2.9.0", "cuda": "12.1", "cudnn": "9", "flavour": "runtime"},
        ),
        ("lab/train:2.5.1-cuda12.4", "torch-cuda-tag", {"torch": "2.5.1", "cuda": "12.4"}),
    ],
)
def test_what_a_tag_says(ref: str, scheme: str, says: dict[str, str]) -> None:
    assert read(ref) == (scheme, says)


@pytest.mark.parametrize(
    "ref",
    [
        "pytorch/pytorch:nightly",
        "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime-custom",
        "nvidia/cuda:latest",
        "nvcr.io/nvidia/pytorch:latest",
        "lab/train:v2.9",  # a version of their own, as far as anybody knows
        "lab/train:latest",
        "pytorch-cuda:",
        "pytorch-cuda:v2.9-",
        "pytorch-cuda:v2.9-nightly",
        "notpytorch-cuda:v2.9",
        "evilpytorch/pytorch:latest",
        "pytorch-cuda:٢.٩",
        ":v2.9",
    ],
)
def test_what_no_grammar_understands(ref: str) -> None:
    assert read(ref) is None


def test_a_claim_of_the_articles_decides_nothing() -> None:
    """What a name says of an image by hearsay must never fail a cell."""
    for scheme in SCHEMES.schemes:
        assert scheme.decides is (scheme.id in {"pytorch", "nvidia-cuda", "ngc-pytorch"})


@pytest.mark.parametrize(
    ("torch", "os"), [("1.13.1", "ubuntu18.04"), ("2.2.0", "ubuntu22.04"), ("2.9.1", "ubuntu22.04")]
)
def test_the_system_of_pytorchs_own_images(torch: str, os: str) -> None:
    scheme = SCHEMES.schemes[0]
    assert scheme.id == "pytorch"
    assert scheme.os_of(torch) == os
    assert scheme.os_of("1.9.0") is None
    assert scheme.os_of("2.15.0") is None
    named = {row.os for row in scheme.os_since if row.os}
    assert named <= {row.os for row in REFERENCE.systems.systems}


def test_nvidias_months() -> None:
    row = SCHEMES.ngc_image("26.07")
    assert row is not None
    assert (row.torch, row.cuda, row.cuda_driver) == ("2.13.0a0+9186a08", "13.3.1.008", "610.43.02")
    assert SCHEMES.ngc_image("19.01") is None
    # torch and CUDA never go back from month to month.
    for field in ("torch", "cuda"):
        known = [version_key(text)[:2] for text in (getattr(each, field) for each in SCHEMES.ngc) if text]
        assert known == sorted(known), field


def test_a_group_that_nobody_reads_is_refused() -> None:
    scheme = SCHEMES.schemes[0].model_dump()
    with pytest.raises(ValidationError, match="not colour"):
        Scheme(**scheme | {"tag": "(?P<colour>red)"})
    with pytest.raises(ValidationError, match="no regular expression"):
        Scheme(**scheme | {"tag": "("})


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_text_can_be_asked_for(repository: str, tag: str) -> None:
    SCHEMES.read(repository, tag)


@pytest.mark.parametrize("piece", ["pytorch-cuda", "a/", "-a", "pytorch/pytorch/", "_cuda", "nvidia/"])
@pytest.mark.parametrize("tag_piece", ["1.", "2.9-cuda12.1", "-lts", "ubuntu22.04.", "-cudnn9"])
def test_a_hostile_name_costs_nothing(piece: str, tag_piece: str) -> None:
    repository, tag = (piece * 300)[:300], (tag_piece * 300)[:300]
    begin = time.process_time()
    SCHEMES.read(repository, tag)
    SCHEMES.read(f"pytorch-cuda{repository[:280]}", tag)
    assert time.process_time() - begin < 0.5
