"""What stands beside a log, in the shapes that people have it in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builders import make_result
from cuda_matrix.context_file import read_context
from cuda_matrix.diagnose import Evidence
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.model import CheckStatus, Verdict
from cuda_matrix.result import CheckResult, Diagnosis, Exit


def read(value: Any) -> Evidence:
    return read_context(json.dumps(value).encode(), "c.json")


def test_a_plain_object() -> None:
    found = read(
        {
            "stage": "run",
            "exit_code": 137,
            "signal": "SIGKILL",
            "oom_killed": True,
            "gpu_requested": True,
            "facts": {"driver": "535.129.03", "torch_cuda": "12.1", "gpus": ["RTX 4090"], "arch_list": ["sm_80"]},
            "events": ["NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus."],
            "log": "last words",
        }
    )
    assert found.stage == "run"
    assert found.exit == Exit(code=137, signal=9, oom_killed=True)
    assert found.gpu_requested is True
    assert found.facts.gpus[0].name == "RTX 4090"
    assert [(each.where, each.text[:10]) for each in found.fragments] == [
        ("events", "NVRM: Xid "),
        ("log", "last words"),
    ]


@pytest.mark.parametrize(
    ("words", "driver", "torch", "cuda"),
    [
        (
            {"gpu": "2x RTX 5090", "driver": "570.124.06", "torch": "2.7.0.dev20250310+cu124"},
            "570.124.06",
            "2.7.0.dev20250310+cu124",
            "12.4",
        ),
        ({"driver": "525.60.11 (CUDA 12.0)"}, "525.60.11", None, None),
        ({"driver": "510 -> 515", "torch": "NGC build"}, None, None, None),
        ({"driver": "475.14", "docker": "--gpus all", "cuda": "12.4 (image)"}, "475.14", None, None),
        ({}, None, None, None),
    ],
)
def test_free_words_are_kept_and_figures_are_read_where_they_are_sure(
    words: dict[str, str], driver: str | None, torch: str | None, cuda: str | None
) -> None:
    found = read(words)
    assert found.context == words
    assert (found.facts.driver, found.facts.torch, found.facts.torch_cuda) == (driver, torch, cuda)


@pytest.mark.parametrize("key", ["gpu", "gpus", "image", "docker", "cuda", "dmesg", "kernel", "os", "killed", "code"])
def test_a_word_of_its_own_is_no_misspelt_key(key: str) -> None:
    assert read({key: "x"}).context == {key: "x"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_as_powershell_writes_it(encoding: str) -> None:
    assert read_context('{"exit_code": 137}'.encode(encoding), "c.json").exit.code == 137


def test_half_a_character_is_replaced() -> None:
    found = read_context(rb'{"log": "\ud800 out of memory \ud83d\ude00", "gpu": "\udfff"}', "c.json")
    assert found.fragments[0].text == "\ufffd out of memory \U0001f600"
    assert found.context == {"gpu": "\ufffd"}


@pytest.mark.parametrize(("code", "exit_"), [(-9, Exit(signal=9)), (-1000, Exit(code=-1000)), (0, Exit(code=0))])
def test_a_negative_exit_code_is_a_signal_as_python_says_it(code: int, exit_: Exit) -> None:
    assert read({"exit_code": code}).exit == exit_


def test_unknown_keys_are_words_whatever_they_hold() -> None:
    assert read({"kernel": 5.15, "compose": {"gpus": "all"}, "x": None}).context == {
        "kernel": "5.15",
        "compose": '{"gpus": "all"}',
        "x": "null",
    }


def container(**state: Any) -> dict[str, Any]:
    return {
        "Id": "abc",
        "State": {"Status": "exited", "OOMKilled": False, "ExitCode": 0, "Error": "", **state},
        "HostConfig": {"DeviceRequests": None, "Runtime": "runc", "ShmSize": 67_108_864, "Memory": 0},
        "Config": {"Image": "pytorch/pytorch:2.5.1", "Env": ["CUDA_VISIBLE_DEVICES=7", "TOKEN=secret", "PATH=/bin"]},
    }


def test_docker_inspect_as_a_list_of_one() -> None:
    found = read([container(OOMKilled=True, ExitCode=137)])
    assert found.exit == Exit(code=137, oom_killed=True)
    assert found.gpu_requested is False
    assert found.facts.environment == {"CUDA_VISIBLE_DEVICES": "7"}
    assert found.facts.shm_gb == pytest.approx(0.067108864)
    assert found.context == {"docker": "pytorch/pytorch:2.5.1"}


def test_a_container_that_never_started_has_no_exit_code_but_words() -> None:
    found = read(container(Status="created", ExitCode=128, Error='exec: "python": executable file not found in $PATH'))
    assert found.stage == "start"
    assert found.exit == Exit()
    assert found.fragments[0].where == "inspect"


@pytest.mark.parametrize(("requests", "runtime"), [([{"Driver": "nvidia", "Count": -1}], "runc"), (None, "nvidia")])
def test_both_ways_of_asking_for_a_card(requests: Any, runtime: str) -> None:
    value = container()
    value["HostConfig"].update(DeviceRequests=requests, Runtime=runtime)
    assert read(value).gpu_requested is True


def test_a_running_container_has_not_ended() -> None:
    assert read(container(Status="running")).exit.code is None


def test_a_result_file() -> None:
    bad = CheckResult(
        id="torch.cuda", status=CheckStatus.FAIL, cause="arch-no-kernel", evidence="no kernel image", log="more"
    )
    result = make_result("a@b", verdict=Verdict.FAIL).model_copy(
        update={
            "checks": (bad,),
            "log": "the log",
            "exit": Exit(code=1),
            "diagnosis": Diagnosis(cause="x", confidence=0.5),
        }
    )
    found = read_context(result.model_dump_json().encode(), "a@b.json")
    assert (found.stage, found.hint, found.exit.code) == ("run", "arch-no-kernel", 1)
    assert [(each.where, each.text) for each in found.fragments] == [
        ("torch.cuda", "no kernel image\nmore"),
        ("log", "the log"),
    ]


def test_a_result_of_a_cell_that_never_started_says_in_which_stage() -> None:
    result = make_result("a@b", verdict=Verdict.FAIL).model_copy(
        update={
            "diagnosis": Diagnosis(cause="image-not-found", confidence=0.9, where="pull", evidence="manifest unknown")
        }
    )
    found = read_context(result.model_dump_json().encode(), "a@b.json")
    assert found.stage == "pull"
    assert "manifest unknown" in [each.text for each in found.fragments]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"exit_code": "x"}', ["c.json:1:15: exit_code: expected a whole number, found 'x'"]),
        (
            '{\n  "facts": {"drver": "535"},\n  "oom_killed": 1}',
            [
                "c.json:2:13: facts.drver: unknown key 'drver'; did you mean 'driver'?",
                "c.json:3:17: oom_killed: expected true or false, found the number 1",
            ],
        ),
        ('{"stage": "boot"}', ["c.json:1:11: stage: "]),
        ('{"signal": "SIGFOO"}', ["c.json:1:12: signal: "]),
        (
            '[{"State": {"OOMKilled": "yes"}}]',
            ["c.json:1:26: [0].State.OOMKilled: expected true or false, found 'yes'"],
        ),
        ("[1, 2", ["c.json:1:6: no JSON: "]),
        ("[]", ["c.json: a list of 0: "]),
        ("[{}, {}]", ["c.json: a list of 2: "]),
        ("5", ["c.json: expected an object"]),
        ('{"result_version": 9}', ["c.json: a result of version 9"]),
        ('{"result_version": 1}', ["c.json: "]),
        ("\ud800", ["c.json: not UTF-8"]),
        ("[" * 100_000, ["c.json: no JSON that can be read"]),
        (
            '{"ExitCode": 1,\n "oomkilled": true, "drvier": "535", "gpu": "x", "image": "y"}',
            [
                "c.json:1:2: ExitCode: unknown key 'ExitCode'; did you mean 'exit_code'?",
                "c.json:2:2: oomkilled: unknown key 'oomkilled'; did you mean 'oom_killed'?",
                "c.json:2:21: drvier: unknown key 'drvier'; did you mean 'driver'?",
            ],
        ),
        ('{"exit_code": 1, "exit_code": 2}', ["c.json:1:18: the key 'exit_code' stands twice"]),
        ('[{"Id": "sha256:0", "RepoTags": ["a:b"]}]', ["c.json: [0] has no State"]),
        ("[5]", ["c.json: [0] has no State"]),
        (" " * (8 << 20) + "{}", ["c.json: the file is larger than 8 MiB"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: list[str]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    with pytest.raises(ConfigurationError) as caught:
        read_context(data, "c.json")
    shown = [str(problem) for problem in caught.value.problems]
    assert len(shown) >= len(said)
    for begin, line in zip(said, shown, strict=False):
        assert line.startswith(begin)
