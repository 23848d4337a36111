"""Messages that real software prints here and now, each pasted into `cuda-matrix diagnose`, and its cause.

Nothing is typed: an engine, a registry, a loader, a kernel, PyTorch say it themselves. Beside the cause, a few of the
software's own words are asserted, so that a case which no longer comes about is seen. What was printed is left in
messages.jsonl of pytest's temporary folder.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from container_bed import Bed
from registry_bed import (
    PASSWORD,
    USER,
    free_port,
    serving_registry,
    tag_as_of_another_architecture,
    tag_index_without_amd64,
)

Seen = Callable[..., dict[str, Any]]
LAB = pytest.mark.skipif(
    "CUDA_MATRIX_TEST_LAB" not in os.environ,
    reason="needs the driver lab's images (5 GB): tests/README.md, then CUDA_MATRIX_TEST_LAB=1",
)


def printed(*command: str | Path, docker_host: str | None = None, **env: str) -> str:
    """What a command that fails prints, both streams as a terminal shows them."""
    environ = {**os.environ, "LC_ALL": "C", **env}
    if docker_host:
        environ["DOCKER_HOST"] = docker_host
    done = subprocess.run(
        [str(part) for part in command],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=240,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "messages.jsonl"


@pytest.fixture
def seen(bed: Bed, artefact: Path, request: pytest.FixtureRequest) -> Seen:
    """`seen(text, cause, words)`: the text holds these words, and the tool names this cause."""

    def diagnosed(text: str, cause: str, words: str, context: str | None = None) -> dict[str, Any]:
        assert words in text, text
        extra: list[str] = []
        if context is not None:
            (bed.work / "context.json").write_text(context)
            extra = ["--context", str(bed.work / "context.json")]
        done = subprocess.run(
            [sys.executable, "-m", "cuda_matrix", "diagnose", "--json", *extra],
            input=text,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        with artefact.open("a", encoding="utf-8") as stream:
            row = {
                "test": request.node.name,
                "cause": answer["cause"],
                "confidence": answer["confidence"],
                "text": text,
            }
            stream.write(json.dumps(row) + "\n")
        assert answer["cause"] == cause, text
        assert answer["fix"]
        assert answer["source"]
        assert answer["confidence"] >= 0.5
        assert context is not None or _unescaped(answer["evidence"]) in _unescaped(text)
        return answer

    return diagnosed


def _unescaped(text: str) -> str:
    return " ".join(text.split())


def run(bed: Bed, *arguments: str) -> str:
    """`docker run`, as a user types it; the container is removed by Docker or by its label."""
    return printed("docker", "run", "--rm", "--label", "cuda-matrix.run=messages", "--network", "none", *arguments)


# ---- the engine ------------------------------------------------------------------------------------------------------


def test_a_program_that_is_not_in_the_image(bed: Bed, seen: Seen) -> None:
    text = run(bed, bed.ref("bare"), "nosuch-program")
    seen(text, "entrypoint-not-found", 'exec: "nosuch-program": executable file not found in $PATH')


def test_an_image_without_a_shell(bed: Bed, seen: Seen) -> None:
    seen(run(bed, bed.ref("scratch"), "/bin/sh", "-c", "true"), "no-shell", 'exec: "/bin/sh"')


def test_no_engine_behind_the_socket(seen: Seen) -> None:
    text = printed("docker", "ps", docker_host="unix:///nonexistent/docker.sock")
    seen(text, "docker-daemon-down", "Cannot connect to the Docker daemon")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_who_may_not_open_the_socket(bed: Bed, seen: Seen, tmp_path_factory: pytest.TempPathFactory) -> None:
    docker = shutil.which("docker")
    assert docker
    Path(bed.docker_host.removeprefix("unix://")).parent.chmod(0o755)
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "HOME=/"]
    text = printed(*as_nobody, docker, "ps", docker_host=bed.docker_host)
    seen(text, "docker-sock-permission", "permission denied while trying to connect to the Docker daemon socket")


def test_what_an_engine_without_nvidias_toolkit_says(bare_engine: Bed, seen: Seen) -> None:
    """One second engine for all three, since its start is slow. Its only image holds nothing."""
    packed = subprocess.run(["tar", "-c", "-T", "/dev/null"], capture_output=True, check=True).stdout
    environ = {**os.environ, "DOCKER_HOST": bare_engine.docker_host}
    subprocess.run(["docker", "import", "-", "empty"], input=packed, env=environ, check=True, capture_output=True)
    docker_run = ["docker", "run", "--rm", "--network", "none"]
    for options, cause, words in (
        (["--gpus", "all"], "toolkit-missing", 'could not select device driver "" with capabilities: [[gpu]]'),
        (["--runtime", "nvidia"], "toolkit-not-registered", "nvidia"),
        (["--device", "nvidia.com/gpu=all"], "cdi-unresolved", 'could not select device driver "cdi"'),
    ):
        seen(printed(*docker_run, *options, "empty", "true", docker_host=bare_engine.docker_host), cause, words)


def test_an_engine_whose_disk_is_full(seen: Seen, bed: Bed, small_engine: Bed) -> None:
    """Its data folder is a file system of 48 MB, and the image's layer is larger."""
    text = printed("docker", "pull", bed.ref("bare"), docker_host=small_engine.docker_host)
    seen(text, "disk-full", "no space left on device")


@pytest.fixture
def small_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """A second engine that has hardly any room: bare_engine, its data folder covered by a small tmpfs."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    engine: Bed = request.getfixturevalue("bare_engine")
    state = Path(engine.docker_host.removeprefix("unix://")).parent
    testbed = Path(__file__).with_name("testbed.sh")
    environ = {**os.environ, "CUDA_MATRIX_TESTBED": str(state / "data"), "CUDA_MATRIX_TESTBED_STATE": str(state)}
    subprocess.run([testbed, "down"], env=environ, check=True, timeout=90)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "cm-small", state / "data"], check=True)
    try:
        subprocess.run([testbed, "bare"], env=environ, check=True, timeout=90)
        yield engine
    finally:
        subprocess.run([testbed, "down"], env=environ, check=True, timeout=90)
        if os.path.ismount(state / "data"):  # "down" releases what the engine itself has mounted
            subprocess.run(["umount", "--lazy", state / "data"], check=True)


# ---- another architecture --------------------------------------------------------------------------------------------


def test_an_image_of_another_architecture(bed: Bed, seen: Seen) -> None:
    tag = tag_as_of_another_architecture(bed.registry, "cm/arm64", "test", "arm64")
    ref = f"{bed.registry}/cm/arm64:{tag}"
    bed.docker("pull", "--quiet", ref)
    text = run(bed, ref, "/bin/sh", "-c", "true")
    bed.docker("rmi", ref)
    assert "requested image's platform (linux/arm64) does not match the detected host platform" in text
    seen(text, "platform-mismatch", "exec format error")


def test_a_program_of_another_architecture(bed: Bed, seen: Seen) -> None:
    seen(run(bed, bed.ref("arm64"), "/bin/sh", "-c", "true"), "platform-mismatch", "exec format error")


def test_an_index_that_has_no_image_for_this_machine(bed: Bed, seen: Seen) -> None:
    tag = tag_index_without_amd64(bed.registry, "cm/bare", "test")
    text = printed("docker", "pull", f"{bed.registry}/cm/bare:{tag}")
    seen(text, "platform-mismatch", "no matching manifest for linux/amd64")


# ---- registries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "cause", "words"),
    [
        ("{registry}/cm/bare:none", "image-not-found", "manifest unknown"),
        ("{registry}/cm/no-such-repository:test", "image-not-found", "not found"),
        ("127.0.0.1:9/cm/bare:test", "registry-unreachable", "connection refused"),
        ("registry.invalid/cm/bare:test", "registry-unreachable", "registry.invalid"),
    ],
)
def test_pulls_that_fail(bed: Bed, seen: Seen, ref: str, cause: str, words: str) -> None:
    seen(printed("docker", "pull", ref.format(registry=bed.registry)), cause, words)


def test_a_registry_that_asks_for_a_password(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "login").mkdir()
    with serving_registry(tmp_path / "registry", password=True) as address:
        nobody = printed("docker", "pull", f"{address}/cm/private:test", DOCKER_CONFIG=str(tmp_path / "login"))
        login = ["docker", "login", "--username", USER, "--password", PASSWORD + "?", address]
        wrong = printed(*login, DOCKER_CONFIG=str(tmp_path / "login"))
    seen(nobody, "registry-auth", "no basic auth credentials")
    seen(wrong, "registry-auth", "401 Unauthorized")


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """A server in a registry's place: /v2/ is well, everything else gets this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.path == "/v2/"
            self.send_response(200 if good else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(2 if good else len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"{}" if good else body)

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# The error code of https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
TOO_MANY = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "cause", "words"),
    [
        (429, TOO_MANY, "registry-rate-limit", "toomanyrequests"),
        (429, b"", "registry-rate-limit", "429"),
        (503, b"", "registry-unreachable", "503 Service Unavailable"),
    ],
)
def test_a_registry_that_does_not_want_now(seen: Seen, status: int, body: bytes, cause: str, words: str) -> None:
    with answering(status, body) as address:
        seen(printed("docker", "pull", f"{address}/cm/bare:test"), cause, words)


def test_a_certificate_that_nobody_signed(bed: Bed, seen: Seen, tmp_path: Path) -> None:
    """On an address that is not loopback: there, Docker would go on without TLS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        host = probe.getsockname()[0]
    with serving_registry(tmp_path / "registry", host=host, certificate=True) as address:
        seen(printed("docker", "pull", f"{address}/cm/bare:test"), "registry-tls", "x509: ")


# ---- the loader and the kernel ---------------------------------------------------------------------------------------

PROGRAM = "extern int answer(void); int main(void) { return answer(); }\n"
LIBRARY = "int answer(void) { return 0; }\n"


def built(folder: Path, soname: str, compiler: str = "gcc") -> Path:
    """A program that needs a library of this name, which is removed."""
    (folder / "program.c").write_text(PROGRAM)
    (folder / "library.c").write_text(LIBRARY)
    library = folder / soname
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", library, folder / "library.c"], check=True
    )
    subprocess.run([compiler, "-o", folder / "program", folder / "program.c", library], check=True)
    library.unlink()
    return folder / "program"


@pytest.mark.parametrize(
    ("compiler", "words"), [("gcc", "cannot open shared object file"), ("musl-gcc", "Error loading shared library")]
)
def test_a_program_without_its_library(seen: Seen, tmp_path: Path, compiler: str, words: str) -> None:
    """What glibc's loader says, and musl's (Alpine)."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    seen(printed(built(tmp_path, "libcudart.so.11.0", compiler)), "cuda-lib-missing", words)


@pytest.mark.parametrize(
    ("soname", "cause"), [("libcudnn.so.8", "cuda-lib-missing"), ("libGL.so.1", "system-lib-missing")]
)
def test_a_python_without_its_library(bed: Bed, seen: Seen, soname: str, cause: str) -> None:
    text = run(bed, bed.ref("python"), "python3", "-c", f"import ctypes; ctypes.CDLL('{soname}')")
    seen(text, cause, f"{soname}: cannot open shared object file")


def test_a_c_library_that_is_too_old(bed: Bed, seen: Seen) -> None:
    """A program of Debian's newest release on one of years ago."""
    container = bed.docker("create", "cm-base:forky")
    packed = subprocess.run(["docker", "cp", f"{container}:/usr/bin/ls", "-"], check=True, capture_output=True).stdout
    bed.docker("rm", container)
    old = bed.docker("create", "--label", "cuda-matrix.run=messages", "--network", "none", bed.ref("bare"), "/opt/ls")
    subprocess.run(["docker", "cp", "-", f"{old}:/opt"], input=packed, check=True)
    text = printed("docker", "start", "--attach", old)
    bed.docker("rm", old)
    seen(text, "glibc-too-old", "version `GLIBC_2")


def test_a_full_disk_inside(bed: Bed, seen: Seen) -> None:
    write = "open('/small/file', 'wb').write(bytes(1 << 22))"
    text = run(bed, "--tmpfs", "/small:size=1m", bed.ref("python"), "python3", "-c", write)
    seen(text, "disk-full", "[Errno 28] No space left on device")


def test_the_memory_limit_s_kill(bed: Bed, seen: Seen) -> None:
    """The program itself says nothing; Docker's state and the kernel's log do."""
    name = bed.docker(
        "create", "--label", "cuda-matrix.run=messages", "--network", "none", "--memory", "64m",
        "--memory-swap", "64m", bed.ref("python"), "python3", "-c", "print(len(b'x' * (1 << 30)))",
    )  # fmt: skip
    text = printed("docker", "start", "--attach", name)
    state = json.loads(bed.docker("inspect", "--format", "{{json .State}}", name))
    assert (state["ExitCode"], state["OOMKilled"], text) == (137, True, "")
    inspected = bed.docker("inspect", name)
    kernel = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout.splitlines()
    bed.docker("rm", name)
    seen(inspected, "host-oom-kill", '"OOMKilled": true')
    seen(text, "host-oom-kill", "", context=inspected)
    ours = next((number for number, line in enumerate(kernel) if "oom-kill:" in line and name in line), None)
    if ours is not None:  # a machine may keep its kernel's log from us
        seen("\n".join(kernel[ours:]), "host-oom-kill", "Memory cgroup out of memory: Killed process")


# ---- NVIDIA's and PyTorch's own words --------------------------------------------------------------------------------

TOUCH = "import torch; torch.zeros(1).cuda()"
# The runtime of the image, asked without torch: number, name, sentence.
ASK_RUNTIME = """
import ctypes, glob, sys
cudart = ctypes.CDLL(glob.glob("/opt/site/nvidia/cuda_runtime/lib/libcudart.so.*")[0])
cudart.cudaGetErrorName.restype = cudart.cudaGetErrorString.restype = ctypes.c_char_p
code = cudart.cudaGetDeviceCount(ctypes.byref(ctypes.c_int()))
sys.exit(f"{cudart.cudaGetErrorName(code).decode()}: {cudart.cudaGetErrorString(code).decode()} ({code})")
"""
A800 = "a800 CM_FAKE_CUDA_VERSION="
# What the host's driver is; the cause; words of PyTorch; words of the runtime.
DRIVERS = {
    "35": (A800 + "11040", "driver-too-old", "found version 11040", "CUDA driver version is insufficient"),
    "100": (
        A800 + "12040 CM_FAKE_CUINIT=100",
        "gpu-not-exposed",
        "No CUDA GPUs are available",
        "no CUDA-capable device",
    ),
    "803": (A800 + "12040 CM_FAKE_CUINIT=803", "compat-lib-mismatch", "Error 803", "unsupported display driver"),
    "804": (A800 + "12040 CM_FAKE_CUINIT=804", "fwd-compat-unsupported", "Error 804", "forward compatibility"),
    "999": (A800 + "12040 CM_FAKE_CUINIT=999", "cuda-unknown-999", "CUDA unknown error", "unknown error"),
}


def on_card(bed: Bed, *arguments: str) -> str:
    """`docker run --gpus all`, in the way of NVIDIA's images, which ask for every card."""
    return run(bed, "--gpus", "all", "--env", "NVIDIA_VISIBLE_DEVICES=all", *arguments)


@LAB
@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("who", ["torch", "runtime"])
def test_what_a_driver_makes_them_say(
    bed: Bed, show_card: Callable[[str], None], seen: Seen, name: str, who: str
) -> None:
    driver, cause, of_torch, of_runtime = DRIVERS[name]
    show_card(driver)
    text = on_card(bed, "cm-lab/torch220:test", "python3", "-c", TOUCH if who == "torch" else ASK_RUNTIME)
    seen(text, cause, of_torch if who == "torch" else of_runtime)


@LAB
def test_no_driver_library_at_all(bed: Bed, show_card: Callable[[str], None], seen: Seen) -> None:
    """The runtime says of a missing driver that it is too old: its words alone must not make us sure."""
    show_card("a800 no-libcuda")
    of_torch = on_card(bed, "cm-lab/torch220:test", "python3", "-c", TOUCH)
    seen(of_torch, "gpu-not-exposed", "Found no NVIDIA driver on your system")
    of_runtime = on_card(bed, "cm-lab/torch220:test", "python3", "-c", ASK_RUNTIME)
    answer = seen(of_runtime, "driver-too-old", "CUDA driver version is insufficient for CUDA runtime version")
    assert answer["confidence"] < 0.8


@LAB
def test_a_library_of_another_version_in_front(bed: Bed, seen: Seen, tmp_path: Path) -> None:
    """libcusparse finds a libnvJitLink that lacks what it needs."""
    (tmp_path / "library.c").write_text("int __nvJitLinkAddData_12_0(void) { return 0; }\n")
    (tmp_path / "versions").write_text("libnvJitLink.so.12 { global: *; };\n")
    build = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libnvJitLink.so.12", f"-Wl,--version-script={tmp_path}/versions"]
    subprocess.run([*build, "-o", tmp_path / "libnvJitLink.so.12", tmp_path / "library.c"], check=True)
    tmp_path.chmod(0o755)
    swapped = ["--volume", f"{tmp_path}:/opt/swapped:ro", "--env", "LD_LIBRARY_PATH=/opt/swapped"]
    text = run(bed, *swapped, "cm-lab/torch220:test", "python3", "-c", "import torch")
    seen(text, "nvlib-version-conflict", "undefined symbol: __nvJitLink")


# The broken image; what a user does with it; the cause; a part of what is printed.
BROKEN = {
    "torch-missing": ("import torch", "torch-missing", "No module named 'torch'"),
    "torchvision-other-abi": (
        "import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)",
        "torch-abi-mismatch",
        "undefined symbol: _ZN3c10",
    ),
    "numpy2": ("import torch; torch.zeros(1).numpy()", "numpy-abi", "Numpy is not available"),
}


@LAB
@pytest.mark.parametrize("name", BROKEN)
def test_what_a_broken_image_says(bed: Bed, seen: Seen, name: str) -> None:
    script, cause, words = BROKEN[name]
    seen(run(bed, f"cm-lab/{name}:test", "python3", "-c", script), cause, words)
