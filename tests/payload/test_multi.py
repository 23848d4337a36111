"""Several cards: copies byte for byte, and collectives in processes of their own, on the CPU by gloo."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from threading import Thread

import pytest

from cuda_matrix.payload import checks_multi
from cuda_matrix.payload import ranks as launcher

LIMIT_S = 60.0
THRESHOLDS = {"wrong_sums": 0, "attempt_s": 60}
ENDED = {
    "right": {"ending": "right", "wrong": 0, "seconds": 1.0, "words": ""},
    "wrong": {"ending": "wrong", "wrong": 7, "seconds": 1.0, "words": "7 sums are not the exact ones"},
    "hang": {"ending": "hang", "wrong": 0, "seconds": 60.0, "words": "2 of 2 ranks had not ended after 60.0 s"},
    "died": {"ending": "died", "wrong": 0, "seconds": 1.0, "words": "rank 1: DistBackendError: NCCL error"},
}


@pytest.fixture
def ranks(deployed, real_torch, monkeypatch):
    """A function that lets two gloo ranks sum, with `all_reduce(tensor)` replaced by some lines; gives the attempts."""

    def run(lines="", limit_s=LIMIT_S):
        deployed.use(real_torch)
        if lines:
            body = "import os, time\nfrom torch import distributed\ntrue = distributed.all_reduce\n"
            body += "def all_reduce(tensor):\n" + indent(lines.strip() + "\n", "    ")
            body += "distributed.all_reduce = all_reduce\n"
            deployed.mutate("def mutate(torch):\n" + indent(body, "    "))
        for name, value in deployed.environment().items():
            monkeypatch.setenv(name, value)
        return checks_multi.retried("gloo", 2, limit_s)

    return run


def endings(attempts):
    return [each["ending"] for each in attempts]


def test_two_ranks_sum_exactly(ranks):
    (only,) = ranks()
    assert (only["ending"], only["wrong"], only["words"]) == ("right", 0, "")


WRONG = "true(tensor)\ntensor.view(-1)[-1] += 1"
P2P_IS_BROKEN = "true(tensor)\nif os.environ.get('NCCL_P2P_DISABLE') != '1':\n    tensor.view(-1)[0] += 1"
# Rank 1 alone hangs: the others wait for it in the collective.
HANGS = "if distributed.get_rank() == 1:\n    time.sleep(600)\ntrue(tensor)"
RAISES = "if distributed.get_rank() == 1:\n    raise RuntimeError('NCCL error: unhandled cuda error')\ntrue(tensor)"
SEGFAULT = "if distributed.get_rank() == 1:\n    os.kill(os.getpid(), 11)\ntrue(tensor)"


def test_a_collective_that_sums_wrong_is_tried_without_p2p(ranks):
    attempts = ranks(WRONG)
    assert endings(attempts) == ["wrong", "wrong"]
    assert attempts[0]["wrong"] == 12  # the last element of six sums, on each of two ranks
    assert checks_multi.judge_attempts(attempts, 2, THRESHOLDS)["status"] == "fail"


def test_broken_p2p_is_a_warning(ranks):
    attempts = ranks(P2P_IS_BROKEN)
    assert endings(attempts) == ["wrong", "right"]
    result = checks_multi.judge_attempts(attempts, 2, THRESHOLDS)
    assert (result["status"], result["cause"]) == ("warn", "nccl-p2p-acs")
    assert "P2P is broken" in result["summary"]


def test_a_collective_that_hangs_is_ended(ranks):
    attempts = ranks(HANGS, limit_s=15.0)
    assert endings(attempts) == ["hang", "hang"]
    assert all(15.0 <= each["seconds"] < 25.0 for each in attempts)
    result = checks_multi.judge_attempts(attempts, 2, THRESHOLDS)
    assert (result["status"], result["cause"]) == ("fail", "nccl-timeout")
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [command for command in commands if b"cuda-matrix-ranks-" in command]


def test_a_rank_that_is_done_waits_for_the_others(tmp_path):
    """A rank that leaves breaks the connections of one that is still at its last sum."""
    job = {"folder": str(tmp_path), "rank": 0, "world": 2}
    leaving = Thread(target=launcher._leave_together, args=(job,))
    leaving.start()
    leaving.join(0.3)
    assert leaving.is_alive()
    (tmp_path / "done-1").touch()
    leaving.join(5)
    assert not leaving.is_alive()


@pytest.mark.parametrize(
    ("lines", "words"), [(RAISES, "unhandled cuda error"), (SEGFAULT, "ended by signal 11")], ids=["raises", "segfault"]
)
def test_a_rank_that_dies_is_named(ranks, lines, words):
    attempts = ranks(lines)
    assert endings(attempts) == ["died"]
    first = attempts[0]["words"].splitlines()[0]
    assert first.startswith("rank 1:")
    assert words in first


@pytest.mark.parametrize(
    ("attempts", "status", "cause"),
    [
        (["right"], "pass", None),
        (["wrong", "right"], "warn", "nccl-p2p-acs"),
        (["hang", "right"], "warn", "nccl-p2p-acs"),
        (["wrong", "wrong"], "fail", "numerics-wrong"),
        (["hang", "hang"], "fail", "nccl-timeout"),
        (["hang", "died"], "fail", None),
        (["died"], "fail", None),
        (["wrong"], "fail", "numerics-wrong"),
    ],
)
def test_verdicts_on_attempts(attempts, status, cause):
    result = checks_multi.judge_attempts([ENDED[name] for name in attempts], 2, THRESHOLDS)
    assert (result["status"], result.get("cause")) == (status, cause)
    assert result["numbers"]["world_size"] == 2
    assert bool(result.get("evidence")) is (status != "pass")


ACCESS = {(0, 1): True, (1, 0): True}


@pytest.mark.parametrize(
    ("wrong", "access", "status", "cause"),
    [
        ({(0, 1): 0, (1, 0): 0}, ACCESS, "pass", None),
        ({(0, 1): 0, (1, 0): 3}, ACCESS, "fail", "nccl-p2p-acs"),
        ({(0, 1): 0, (1, 0): 3}, dict.fromkeys(ACCESS, False), "fail", None),
    ],
)
def test_verdicts_on_copies(wrong, access, status, cause):
    result = checks_multi.judge_copies(wrong, access, {"wrong_bytes": 0})
    assert (result["status"], result.get("cause")) == (status, cause)
    assert result["numbers"]["peer_access_pairs"] == sum(access.values())


@pytest.fixture
def cards(deployed, real_torch):
    """A function that runs the check of copies on pretended cards, after some lines have broken torch."""

    def run(gpus, lines="", **settings):
        deployed.use(real_torch)
        deployed.pretend_cuda(gpus=gpus, **settings)
        if lines:
            deployed.mutate("def mutate(torch):\n" + indent(lines.strip() + "\n", "    "))
        return deployed.run(checks=("multi-gpu.p2p",), benchmarks=(), gpu_required=True).end("multi-gpu.p2p")

    return run


def test_copies_between_three_cards(cards):
    end = cards(3, p2p=True)
    assert end["status"] == "pass"
    assert {"cards": 3, "routes": 9, "pairs": 6, "wrong_bytes": 0}.items() <= end["numbers"].items()


COPY_SPOILS = """
true = torch.Tensor.copy_
def copy_(self, source, *rest):
    true(self, source, *rest)
    if self.device.index == 1 and source.device.type == "cuda":
        self[12345] += 1
    return self
torch.Tensor.copy_ = copy_
"""


def test_a_copy_that_spoils_one_byte(cards):
    end = cards(2, COPY_SPOILS, p2p=True)
    assert (end["status"], end["cause"]) == ("fail", "nccl-p2p-acs")
    assert "0 → 1: 1 of 16777219 bytes are wrong" in end["evidence"]


def test_one_card_has_nothing_to_copy_between(cards):
    end = cards(1)
    assert end["status"] == "skip"
    assert "one card" in end["summary"]


def test_without_a_card_both_are_skipped(deployed, real_torch):
    deployed.use(real_torch)
    run = deployed.run(checks=("multi-gpu.*",), benchmarks=())
    assert [run.end(item)["status"] for item in ("multi-gpu.p2p", "multi-gpu.nccl")] == ["skip", "skip"]
