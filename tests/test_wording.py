"""What a line says of itself: a failure, a mention of failures, a good end."""

from __future__ import annotations

import pytest

from cuda_matrix.wording import (
    ends_well,
    is_mention,
    is_quotation,
    kind_of,
    reads_as_text,
    speaks_of_failure,
    was_dealt_with,
)


@pytest.mark.parametrize(
    ("line", "speaks"),
    [
        ("RuntimeError: boom", True),
        ("it hangs", True),
        ("FEHLER: Datei nicht gefunden", True),
        ("ohne Fehler beendet", False),
        ("\u9519\u8bef\uff1a\u627e\u4e0d\u5230\u6587\u4ef6", True),
        ("\u6ca1\u6709\u9519\u8bef", False),
        ("/bin/sh: foo: not found", True),
        ("2 errors, 0 warnings", True),
        ("0 errors, 3 warnings", False),
        ("no failures", False),
        ("mean squared error 0.12", False),
        ("0 tests failed out of 3", False),
        ("test error rate 0.412 | failed batches 0", False),
        ("Uncorrectable Error         : 0", False),
        ("Remapping Failure Occurred  : No", False),
        ('"OOMKilled": false,', False),
        ("Run pytest -q --maxfail=1", False),
        ("NCCL INFO Could not enable P2P between dev 1 and dev 0", False),
        ("-- Looking for pthread_create in pthreads - not found", False),
        ("debconf: unable to initialize frontend: Dialog", False),
        ("Unable to find image 'a/b:1' locally", False),
        ("ERROR: No matching distribution found for torch==9.9", True),
        ("Error: 1 test failed", True),
        ("NCCL WARN Call to connect failed", True),
        ("the batch size was changed", False),  # no "hang" in it
        ("step 3 loss 0.4", False),
        ("", False),
    ],
)
def test_failure(line: str, speaks: bool) -> None:
    assert speaks_of_failure(line) is speaks


@pytest.mark.parametrize(
    ("line", "mention"),
    [
        ("If you see `CUDA out of memory`, use a smaller batch.", True),
        ("- Fixed a crash with `CUDA out of memory`", True),
        ("raise RuntimeError('CUDA out of memory')", True),
        ("Common errors are listed below", True),
        ("+    except torch.cuda.OutOfMemoryError:", True),
        ("| `no kernel image is available` | the build has no code for your card |", True),
        ("| N/A   50C    P0   219W / 250W |", False),
        ("- `libGL.so.1: cannot open shared object file`: install libgl1.", True),
        ("- libGL.so.1: cannot open shared object file", False),
        ("RuntimeError: CUDA out of memory. If reserved memory is >> allocated memory try setting x", False),
        ("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU", False),
        ("assert any(x), msg AssertionError: libcuda.so cannot found!", False),
        ('if "CUDA out of memory" in str(e):', True),
        ('echo "Cannot connect to the Docker daemon" >&2', True),
        ('raise_if("exec format error" => "platform") ', False),
        ('"exec format error": "platform-mismatch",', True),
        ('"message": "no space left on device",', False),
        ('$ dmesg | grep -i "out of memory"', True),
        ("0a9b8c7 Retry pulls on toomanyrequests", True),
        ("# CUDA out of memory", True),
        ("# Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all", False),
        ("  --fail-on-oom   stop when CUDA runs out of memory".strip(), True),
        ("cudaErrorInsufficientDriver = 35,", True),
        ("// returns CUDA_ERROR_NO_DEVICE", True),
        ("When the card is lost, nvidia-smi says GPU is lost.", True),
        ("When I start it, CUDA out of memory.", False),
        ("When another model is deployed, the process before still holds memory.", False),
    ],
)
def test_mention(line: str, mention: bool) -> None:
    assert is_mention(line) is mention


@pytest.mark.parametrize(
    ("line", "quoted"),
    [
        ('oom = "CUDA out of memory now"', True),
        ('Handle "CUDA out of memory now" in the client (#123)', True),
        ("otherwise docker answers `CUDA out of memory now`.", True),
        ('I get "CUDA out of memory now"', False),
        ('level=error msg="CUDA out of memory now"', False),
        ('caused "CUDA out of memory now"', False),
        ('"CUDA out of memory now"', False),
        ("CUDA out of memory now", False),
        ('say "a" CUDA out of memory now "b"', False),
        (r"prestart hook \"CUDA out of memory now\" x", False),
        ("```CUDA out of memory now when calling `torch.mm` ```", False),  # a fence quotes nothing
    ],
)
def test_quotation(line: str, quoted: bool) -> None:
    start = line.index("CUDA")
    assert is_quotation(line, start, start + len("CUDA out of memory now")) is quoted


def test_a_short_name_in_quotes_is_no_quotation() -> None:
    assert not is_quotation("a burst of `Xid 94` was there", 12, 18)


@pytest.mark.parametrize(
    ("lines", "well"),
    [
        (["CUDA out of memory", "step 2", "done"], True),
        (["a", "214 passed, 3 skipped in 12.41s"], True),
        (["a", "Application startup complete."], True),
        (["CUDA out of memory", "thanks, it works again now"], True),
        (["done", "RuntimeError: boom"], False),
        (["all went", "on"], False),
        ([], False),
    ],
)
def test_good_end(lines: list[str], well: bool) -> None:
    assert ends_well(lines) is well


def test_dealt_with() -> None:
    assert was_dealt_with(["out of memory", "retrying"], 0)
    assert was_dealt_with(["out of memory, falling back to the CPU"], 0)
    assert not was_dealt_with(["retrying", "out of memory", "a"], 1)


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["docker pull x", "manifest"], "pull"),
        (["OCI runtime create failed"], "start"),
        (["collect2: error", "ninja: stopped"], "build"),
        (["rank 3 of nccl"], "cards"),
        (["anything"], "run"),
        ([], "run"),
    ],
)
def test_kind(lines: list[str], kind: str) -> None:
    assert kind_of(lines) == kind


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("", True),
        ("Traceback: \u9519\u8bef", True),
        ("a line with one bad byte \ufffd in it", True),
        ("\ufffd\x01\x02", False),
        ("\x7fELF\x02\x01\x01\x03\ufffd", False),
    ],
)
def test_a_text_can_be_read(text: str, readable: bool) -> None:
    assert reads_as_text(text) is readable
