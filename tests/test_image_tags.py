from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.errors import ConfigurationError
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.image_tags import facts_given, facts_of_ref
from cuda_matrix.reference import load_reference

DIGEST = "sha256:" + "0" * 64


def tag(ref: str) -> ImageFacts:
    return facts_of_ref(ref, load_reference().schemes)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        (
            "pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime",
            {"torch": "2.2.0", "cuda": "12.1", "cudnn": "8", "flavour": "runtime", "os": "ubuntu22.04"},
        ),
        (
            "docker.io/pytorch/pytorch:1.10.0-cuda11.3-cudnn8-devel",
            {"torch": "1.10.0", "cuda": "11.3", "flavour": "devel"},
        ),
        (
            "registry.example:5000/hub/nvidia/cuda:12.4.1-cudnn-runtime-ubuntu22.04",
            {"torch": "none", "cuda": "12.4.1", "cudnn": None, "flavour": "runtime", "os": "ubuntu22.04"},
        ),
        ("nvcr.io/nvidia/pytorch:25.10-py3", {"torch": "2.9.0a0", "cuda": "13.0.2", "python": None, "flavour": None}),
        ("nvcr.io/nvidia/pytorch:26.07-py3", {"cuda": "13.3.1", "compat": "13.3", "compat_driver": "610.43.02"}),
        ("nvcr.io/nvidia/pytorch:25.08-py3", {"cuda": "13.0.0", "compat": "13.0", "compat_driver": None}),
        ("nvidia/cuda:13.0.2-base-ubuntu24.04", {"cuda": "13.0.2", "compat": "13.0"}),
        ("pytorch/pytorch:2.9.1-cuda13.0-cudnn9-devel", {"compat": "13.0"}),
        ("pytorch/pytorch:2.9.1-cuda13.0-cudnn9-runtime", {"compat": None}),
        ("pytorch/pytorch:2.10.0-cuda13.0-cudnn9-devel", {"compat": None}),
        (
            "nvcr.io/nvidia/pytorch:24.07-py3-igpu",
            {"flavour": "igpu", "platforms": ("linux/arm64",), "compat": None},
        ),
        ("nvcr.io/nvidia/pytorch:99.01-py3", {"torch": None, "cuda": None, "mutable_tag": False}),
        ("pytorch-cuda:v2.9", {"torch": "2.9", "cuda": None, "mutable_tag": True}),
        ("lab/train:2.5.1-cuda12.4-cudnn9-runtime", {"torch": "2.5.1", "cuda": "12.4", "mutable_tag": False}),
        ("lab/train:2.5.1-cuda12.4-cudnn9-runtime-lts", {"torch": "2.5.1", "mutable_tag": True}),
        ("lab/other:2024-01-01", {"torch": None, "cuda": None}),
    ],
)
def test_what_a_tag_says(ref: str, expected: dict[str, Any]) -> None:
    found = tag(ref)
    assert {name: getattr(found, name) for name in expected} == expected
    known = {name for name in ImageFacts.model_fields if found.knows(name)} - {"ref"}
    assert known == set(found.origins)


@pytest.mark.parametrize(
    ("ref", "moving"),
    [
        ("pytorch/pytorch", True),
        ("pytorch/pytorch:latest", True),
        ("a/b:nightly", True),
        ("a/b:2", True),
        ("a/b:v2.9", True),
        ("a/b:cuda12-latest", True),
        ("a/b:2.9.1-lts", True),
        ("a/b:2.5.1", False),
        ("nvcr.io/nvidia/pytorch:25.10-py3", False),
        ("a/b:build17", None),
        (f"a/b:latest@{DIGEST}", False),
        (f"pytorch/pytorch:latest@{DIGEST}", False),
    ],
)
def test_tags_that_move(ref: str, moving: bool | None) -> None:
    assert tag(ref).mutable_tag is moving


def test_every_example_of_the_table_is_read() -> None:
    schemes = load_reference().schemes
    for scheme in schemes.schemes:
        for example in scheme.examples:
            assert any(f"({scheme.id})" in origin for origin in tag(example).origins.values()) or "latest" in example


def test_a_digest_beside_a_tag() -> None:
    found = tag(f"pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime@{DIGEST}")
    assert (found.torch, found.digest, found.mutable_tag) == ("2.2.0", DIGEST, False)


@given(st.text(max_size=200))
def test_no_reference_is_too_odd(ref: str) -> None:
    assert tag(ref).ref == ref


def test_what_is_known_of_a_fixed_tag_stays_known() -> None:
    """False is an answer, not a gap."""
    below = tag("a/b:2.5.1")
    assert ImageFacts(cuda="12.4").over(below).mutable_tag is False
    assert tag("a/b:latest").over(below).mutable_tag is True


def test_facts_as_pairs() -> None:
    found = facts_given("torch=2.2.0,CUDA=12.1, arch=sm_80 9.0+PTX,machine=aarch64,memory=16g,flavor=devel")
    assert found is not None
    assert (found.torch, found.cuda, found.flavour, found.platforms) == ("2.2.0", "12.1", "devel", ("linux/arm64",))
    assert found.arch_list == ("sm_80", "sm_90", "compute_90")
    assert found.gpu_memory_bytes == 16 << 30
    assert set(found.origins.values()) == {"given"}


@pytest.mark.parametrize(
    ("text", "torch", "cuda"),
    [
        ("torch=2.5.1+cu124", "2.5.1", "12.4"),
        ("torch=1.10.0+cu113", "1.10.0", "11.3"),
        ("torch=1.5.0+cu92", "1.5.0", "9.2"),
        ("torch=2.5.1+cpu", "2.5.1", "none"),
        ("torch=2.5.1+cu124,cuda=12.1", "2.5.1", "12.1"),
        ("torch=2.9.0a0+145a3a7bda", "2.9.0a0", None),
        ('{"torch": "2.5.1+cu118", "cuda": null}', "2.5.1", None),
    ],
)
def test_the_word_behind_the_plus_of_a_wheel(text: str, torch: str, cuda: str | None) -> None:
    found = facts_given(text)
    assert found is not None
    assert (found.torch, found.cuda) == (torch, cuda)


def test_commas_of_a_requirement() -> None:
    found = facts_given("cuda=12.4,NVIDIA_REQUIRE_CUDA=cuda>=12.4 brand=tesla,driver>=470,driver<471,torch=2.5.1")
    assert found is not None
    assert found.require == {"NVIDIA_REQUIRE_CUDA": "cuda>=12.4 brand=tesla,driver>=470,driver<471"}
    assert found.torch == "2.5.1"


def test_facts_as_json() -> None:
    require = '"require": {"NVIDIA_REQUIRE_CUDA": "cuda>=12.4"}'
    text = f'{{"torch": "2.5.1+cu124", "cuda": "none", {require}, "mutable": false, "os": null}}'
    found = facts_given(text)
    assert found is not None
    assert (found.torch, found.cuda, found.mutable_tag, found.os) == ("2.5.1", "none", False, None)
    assert found.require == {"NVIDIA_REQUIRE_CUDA": "cuda>=12.4"}


@pytest.mark.parametrize("text", ["pytorch/pytorch:2.2.0-cuda12.1", "a/b", f"a/b@{DIGEST}", "", "host:5000/a:1"])
def test_a_reference_is_no_fact(text: str) -> None:
    assert facts_given(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("torhc=2.2.0", "'torhc' is no fact of an image; did you mean 'torch'?"),
        ('{"torch": 2.10}', "write a version in quotes"),
        ("torch=two", "'two' is no version"),
        ("torch=2.2.0,pytorch=2.3.0", "torch is given twice"),
        ("torch=2.2.0,torch=2.3.0", "torch is given twice"),
        ("arch=ampere", "'ampere' is no architecture"),
        ("memory=16", "is not a size"),
        ("mutable=maybe", "neither true nor false"),
        ('{"torch": "2.2.0"', "no JSON object"),
        ('{"platforms": 5}', "platforms"),
        ('{"platforms": [1, {}]}', "'1' is no platform"),
        ('{"torch": "2.5.1", "torch": "2.6.0"}', "torch is given twice"),
        ("memory=" + "9" * 400 + "g", "no size of this world"),
        ('{"require": {"a": 5}}', "require"),
        ("digest=abc", "digest"),
        ("torch=" + "1" * 100_000, "at most 100000 characters"),
    ],
)
def test_facts_that_are_wrong(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        facts_given(text)
    assert words in str(caught.value)


@given(
    st.text(max_size=80)
    | st.text(max_size=40).map(lambda text: f"torch={text}")
    | st.text(max_size=60).map(lambda text: "{" + text)
)
def test_whatever_is_typed(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        facts_given(text)


def test_a_fact_says_whether_somebody_vouches_for_it() -> None:
    """The grammar of a stranger's tag is a guess, and so are the rows that the table calls uncertain."""
    for ref, sure in (
        ("pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime", True),
        ("lab/train:2.5.1-cuda12.4-cudnn9-runtime", False),
        ("nvcr.io/nvidia/pytorch:25.10-py3", True),
        ("nvcr.io/nvidia/pytorch:25.09-py3", False),
    ):
        found = tag(ref)
        assert (found.confirmed("cuda"), found.by_tag("cuda"), found.examined) == (sure, True, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r'{"require": {"NVIDIA_REQUIRE_CUDA": "\ud800"}}', "no text"),
        (r'{"\udfff": "1"}', "no text"),
        ("torch=2.2,os=\udcff", "UTF-8"),
        ('{"cuda": "١٢.١"}', "no version"),
        ('{"size_bytes": -1}', "size_bytes"),
        ('{"arch_list": 5}', "not of its kind"),
        ('{"torch": ["2.2"]}', "is no text"),
    ],
)
def test_facts_that_are_no_text_of_their_kind(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        facts_given(text)
