"""From evidence to a cause: real reports, the rules between several signs, and texts that must say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda_matrix.diagnose import Evidence, Fragment, Stage, diagnose
from cuda_matrix.reference import load_reference
from cuda_matrix.result import Diagnosis, Exit, Facts, Gpu

REFERENCE = load_reference()
# Public reports whose text decides, with the cause that was confirmed there (`url`).
REPORTS = [json.loads(line) for line in (Path(__file__).parent / "data" / "failures.jsonl").read_text().splitlines()]


def run(
    text: str = "",
    *,
    stage: Stage | None = None,
    exit_: Exit | None = None,
    facts: Facts | None = None,
    hint: str | None = None,
    gpu_requested: bool | None = None,
) -> Diagnosis:
    evidence = Evidence(
        stage=stage,
        fragments=(Fragment(where="log", text=text),),
        exit=exit_ or Exit(),
        facts=facts or Facts(),
        hint=hint,
        gpu_requested=gpu_requested,
    )
    return diagnose(evidence, REFERENCE.catalogue, REFERENCE.drivers)


def test_real_reports_get_their_confirmed_cause_first() -> None:
    wrong = [(r["source"], r["cause"], found) for r in REPORTS if (found := run(r["log"]).cause) != r["cause"]]
    assert len(REPORTS) >= 50
    assert len({r["cause"] for r in REPORTS}) >= 50
    assert len(wrong) <= 0.05 * len(REPORTS), wrong


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: r["source"])
def test_the_evidence_is_a_line_of_the_report(report: dict[str, str]) -> None:
    assert run(report["log"]).evidence in report["log"]


NEGATIVE = {
    "training": "\n".join(
        f"epoch {e} step {s} loss {2.3 / (e + 1):.3f} lr 0.1 images/s 812" for e in range(3) for s in range(9)
    )
    + "\nTest accuracy 0.91\nsaved to /out/model.pt\nDone.",
    "pip": "Collecting torch==2.2.0\n  Downloading torch-2.2.0-cp310-cp310-manylinux1_x86_64.whl (755.5 MB)\n"
    "Requirement already satisfied: numpy in /opt/conda/lib/python3.10/site-packages (1.26.4)\n"
    "Uninstalling nvidia-nccl-cu12-2.19.3:\n  Successfully uninstalled nvidia-nccl-cu12-2.19.3\n"
    "Successfully installed nvidia-cudnn-cu12-8.9.2.26 nvidia-nccl-cu12-2.19.3 torch-2.2.0 triton-2.2.0\n"
    "WARNING: Running pip as the 'root' user can result in broken permissions",
    "nvidia-smi": "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |\n"
    "|   0  NVIDIA GeForce RTX 4090        Off |   00000000:01:00.0 Off |                  Off |\n"
    "| 30%   45C    P8             22W /  450W |       1MiB /  24564MiB |      0%      Default |",
    "environment": "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True\nNCCL_P2P_DISABLE=1\nNCCL_SOCKET_IFNAME=eth0\n"
    "CUDA_VISIBLE_DEVICES=MIG-feee0c61-26ec-5616-bb59-b6d777cc4f34\nLD_LIBRARY_PATH=/usr/local/nvidia/lib64",
    "pull": "12.1.1-runtime-ubuntu22.04: Pulling from nvidia/cuda\naece8493d397: Pull complete\n"
    "Digest: sha256:4d16c1d1f7a3\nStatus: Downloaded newer image for nvidia/cuda:12.1.1-runtime-ubuntu22.04",
    "nccl": "NCCL INFO Bootstrap : Using eth0:10.0.0.4<0>\nNCCL INFO NET/Plugin: No plugin found (libnccl-net.so)\n"
    "NCCL INFO Channel 00/02 : 0 1\nNCCL INFO comm 0x55d Init COMPLETE",
    "disk": "Filesystem Size Used Avail Use% Mounted on\nshm 8.0G 1.2G 6.8G 15% /dev/shm\noverlay 900G 500G 400G 56% /",
    "warnings": "UserWarning: The parameter 'pretrained' is deprecated since 0.13\n0 errors, 3 warnings\nno failures",
    "empty": "",
}


@pytest.mark.parametrize("name", NEGATIVE)
@pytest.mark.parametrize("stage", [None, "run", "pull"])
def test_an_ordinary_log_names_no_cause(name: str, stage: Stage | None) -> None:
    found = run(NEGATIVE[name], stage=stage, exit_=Exit(code=0))
    assert (found.cause, found.confidence, found.side) == ("unknown", 0.0, "unknown")
    assert found.fix  # what to collect next


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


@pytest.mark.parametrize(
    "facts",
    [
        Facts(),
        Facts(driver="470.129.06"),
        Facts(torch_cuda="12.1"),
        Facts(driver="470.129.06", torch_cuda="none"),
        Facts(driver="440.33", torch_cuda="10.2"),  # no floor before CUDA 11
    ],
)
def test_without_every_figure_the_general_sentence_stands(facts: Facts) -> None:
    assert run(TOO_OLD, facts=facts).explanation == REFERENCE.catalogue.causes["driver-too-old"].explanation


def test_the_builds_architectures_are_named() -> None:
    facts = Facts(arch_list=("sm_50", "sm_90"), device_name="NVIDIA GeForce RTX 5090", device_capability="12.0")
    found = run("RuntimeError: CUDA error: no kernel image is available for execution on the device", facts=facts)
    assert (
        found.explanation == "This build has code for sm_50 sm_90; NVIDIA GeForce RTX 5090 is compute capability 12.0."
    )


INSUFFICIENT = "CUDA driver version is insufficient for CUDA runtime version"
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
