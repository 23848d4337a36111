from __future__ import annotations

import pytest

from cuda_matrix.image_reference import digest_of, problem_of

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "ref",
    [
        "ubuntu",
        "pytorch/pytorch:2.4.1-cuda12.1-cudnn9-runtime",
        "nvcr.io/nvidia/pytorch:25.10-py3",
        "localhost:5000/a/b_c/d--e:T_1",
        "[::1]:5000/a",
        f"registry.example/universal@{DIGEST}",
        f"a:tag@{DIGEST}",
        "Registry.Example/a",
        "a__b.c",
    ],
)
def test_references_that_docker_accepts(ref: str) -> None:
    assert problem_of(ref) == ""


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("a b", "white space"),
        ("a\n", "white space"),
        ("https://a/b", "leave https:// away"),
        ("PyTorch/pytorch:2", "in lower case: 'pytorch/pytorch'"),
        ("a@sha256:12", "not a digest"),
        ("a@", "not a digest"),
        ("a:", "not a tag"),
        ("a:-x", "not a tag"),
        ("a:" + "x" * 129, "not a tag"),
        ("a//b", "not a repository"),
        ("/a", "not a repository"),
        ("-a", "not a repository"),
        ("a_-b", "not a repository"),
        ("a..b/c", "not a registry"),
        ("host:port/a", "not a registry"),
        ("0a" * 32, "image id"),
        ("a" * 256, "longer than 255"),
        (":tag", "not a repository"),
    ],
)
def test_references_that_docker_refuses(ref: str, words: str) -> None:
    assert words in problem_of(ref)


def test_digest_of() -> None:
    assert digest_of(f"a:tag@{DIGEST}") == DIGEST
    assert digest_of("a:tag") is None
