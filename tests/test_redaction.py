from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.redaction import Identity, hashed, redact, redact_all

HERE = Identity(user="mallory", home="/srv/people/mallory", host="gpu-box-17.lab.example")
UUID = "GPU-9de4332b-3b09-a3b4-5589-30229f0c14fe"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("pull with ghp_abcdefghijklmnop1234 done", "ghp_abcdefghijklmnop1234"),
        ("github_pat_11ABCDEFG0abcdefghij_xyz", "11ABCDEFG0"),
        ("nvapi-abcdefghij-KLMNOP", "abcdefghij-KLMNOP"),
        ("https://user:hunter2@registry.example/v2/", "hunter2"),
        ("https://hunter2token@registry.example/", "hunter2token"),
        ("HTTPS_PROXY=http://user:pa@ssw0rd@proxy.example:3128", "ssw0rd"),
        ("https://bucket.example/blob?X-Amz-Credential=x&X-Amz-Signature=hunter2hex&y=1", "hunter2hex"),
        ("https://store.example/blob?sv=2024&sig=hunter2%3D", "hunter2%3D"),
        ("DB_PASS=hunter2", "hunter2"),
        ("Authorization: Bearer abc.def.ghi-jkl", "abc.def.ghi-jkl"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ('"auth": "dXNlcjpwYXNz"', "dXNlcjpwYXNz"),
        ('{"identitytoken":"abc123"}', "abc123"),
        ("PASSWORD=hunter2 other", "hunter2"),
        ("export HF_TOKEN='hunter2 with spaces'", "hunter2"),
        ("docker login --password hunter2", "hunter2"),
        ("NGC_API_KEY: hunter2", "hunter2"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza\n-----END OPENSSH PRIVATE KEY-----", "b3BlbnNza"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def", "eyJzdWIi"),
        (f"uuid {UUID}", "9de4332b"),
        (f"MIG-{UUID[4:]}", "9de4332b"),
        ("Serial Number: 1320921234567", "1320921234567"),
        ("serial=1320921234567", "1320921234567"),
        ("/home/alice/.docker/config.json", "alice"),
        ("/Users/alice/x", "alice"),
        ("/srv/people/mallory/data", "mallory"),
        ("owner mallory:docker", "mallory"),
        ("Nov 21 gpu-box-17 kernel: NVRM", "gpu-box-17"),
        ("at gpu-box-17.lab.example:2376", "lab.example"),
        ("dial tcp 10.1.2.3:443: refused", "10.1.2.3"),
        ("dial tcp [2001:db8::8a2e:370:7334]:443", "370:7334"),
        ("link fe80::1ff:fe23:4567:890a up", "fe23"),
        ("ether 02:42:ac:11:00:02 txqueuelen", "02:42:ac"),
        ("from alice@corp.example", "alice"),
    ],
)
def test_what_strangers_should_not_read_is_taken_out(text: str, secret: str) -> None:
    shown = redact(text, HERE)
    assert secret.lower() not in shown.lower()
    assert shown


@pytest.mark.parametrize(
    "text",
    [
        "driver 535.129.03, CUDA 12.4, torch 2.5.1+cu124, Docker Engine 28.2.2, Linux 6.1.0-13-amd64",
        "NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus.",
        "1: 00000000:65:00.0 (10de:2204), NVIDIA GeForce RTX 3090",
        "nvcr.io/nvidia/pytorch:24.10-py3@sha256:0123456789abcdef",
        "listens on 127.0.0.1:5000 and 0.0.0.0:80",
        "torch::autograd::Engine and std::string at 12:34:56",
        "libcuda.so.550.54.15 in /usr/lib/x86_64-linux-gnu",
        "the tokenizer works, so does the secretary",
        "unix:///var/run/docker.sock: permission denied",
        "http://localhost:5000/v2/x@sha256:0123",
        "log out and in; `sudo usermod -aG docker $USER`",
    ],
)
def test_what_helps_stays(text: str) -> None:
    assert redact(text, HERE) == text


def test_a_card_keeps_a_mark_that_a_result_has_too() -> None:
    assert redact(UUID) == f"GPU-#{hashed(UUID)}"


def test_common_and_short_names_are_no_names() -> None:
    text = "root in docker; a car"
    assert redact(text, Identity(user="root", home="/", host="ca")) == text
    assert redact(text, Identity(user="a", home="", host="docker")) == text
    assert redact("1 GPU: /dev/nvidia0", Identity(user="gpu", home="", host="dev")) == "1 GPU: /dev/nvidia0"


def test_lists_and_objects_are_gone_through() -> None:
    shown = redact_all({"/home/alice": ["mallory", 1, None, {"x": ("10.1.2.3",)}]}, HERE)
    assert shown == {"~": ["[user]", 1, None, {"x": ["[address]"]}]}


@given(st.text(max_size=300))
def test_twice_is_as_once(text: str) -> None:
    once = redact(text, HERE)
    assert redact(once, HERE) == once


@pytest.mark.parametrize(
    "unit", ["a:", "::", "1.", "password", "x@", "ghp_", "://a", "?sig", "/home/", "-----BEGIN PRIVATE KEY-----", "a-b"]
)
def test_long_texts_cost_little(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    tracemalloc.start()
    begin = time.process_time()
    redact(text, HERE)
    spent = time.process_time() - begin
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 5
    assert peak < 50_000_000
