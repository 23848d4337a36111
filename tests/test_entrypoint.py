"""The entrypoint of `init --entrypoint`: what it says of a machine, and that it keeps out of the command's way.

A machine is a folder here: the script's absolute paths are put below it. tests/docker/test_self_check.py runs the
script as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cuda_matrix.errors import ConfigurationError
from cuda_matrix.reference import load_reference
from cuda_matrix.starter import entrypoint_script, write_entrypoint

DRIVERS = load_reference().drivers
SHELLS = {
    name: command
    for name, command in {
        "dash": ["dash"],
        "bash": ["bash", "--posix"],
        "busybox": ["busybox", "ash"],
        "strict": ["sh", "-euC"],
    }.items()
    if shutil.which(command[0])
}
# What the script looks at. /dev/null and the shells stay this machine's.
PATHS = re.compile(r"""(?<![\w.*}"/])/(?=proc/driver|dev/(?:nvidia\[|dxg|nvmap)|opt/|usr\b|lib)""")
TORCH = """__version__ = '{torch}'
debug = False
cuda: Optional[str] = {cuda!r}
git_version = 'abc'
hip: Optional[str] = None
"""
KERNEL_MODULE = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  gcc 12\n"
)
OPEN_KERNEL_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs-builder@U22)\n"
STARTS = 25
LIMIT_MS = 50


@dataclass
class Machine:
    """A folder that stands for a container's root."""

    root: Path
    shell: list[str]

    def file(self, path: str, text: str = "", mode: int = 0o644) -> Machine:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return self

    def torch(self, torch: str, cuda: str | None, where: str = "opt/conda/lib/python3.11/site-packages") -> Machine:
        return self.file(f"{where}/torch/version.py", TORCH.format(torch=torch, cuda=cuda))

    def gpu(self, driver: str | None, cards: int = 1, text: str = KERNEL_MODULE) -> Machine:
        """What the NVIDIA Container Toolkit brings into a container."""
        if driver:
            self.file("proc/driver/nvidia/version", text.format(driver))
        for card in range(cards):
            self.file(f"dev/nvidia{card}")
        self.file("dev/nvidiactl").file("dev/nvidia-uvm")
        self.file("usr/lib/x86_64-linux-gnu/libcuda.so.1")
        return self.file("bin/nvidia-smi", "#!/bin/sh\n: >>started-a-program\n", 0o755)

    def start(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the entrypoint, with nothing in the environment but what the test gives."""
        script = PATHS.sub(f"{self.root}/", entrypoint_script(DRIVERS))
        self.file("entrypoint.sh", script, 0o755)
        env = {"PATH": str(self.root / "bin"), "HOME": str(self.root / "home"), **env}
        shell = [shutil.which(self.shell[0]) or "", *self.shell[1:]]
        done = subprocess.run(
            [*shell, str(self.root / "entrypoint.sh"), *command],
            env=env,
            check=False,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert not (self.root / "started-a-program").exists()
        return done

    def says(self, **env: str) -> list[str]:
        """The lines on stderr of a start that went well."""
        done = self.start("/bin/true", **env)
        assert (done.returncode, done.stdout) == (0, "")
        return done.stderr.splitlines()


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, SHELLS[request.param])


def test_every_path_that_it_looks_at_is_below_the_machine() -> None:
    """The rewriting above misses none, else these tests would look at the machine that they run on."""
    code = "\n".join(line for line in entrypoint_script(DRIVERS).splitlines() if not line.lstrip().startswith("#"))
    left = set(re.findall(r"(?<=\s)/[a-z][\w/*.\[\]-]*", PATHS.sub("ROOT/", code)))
    assert left == {"/bin/bash", "/bin/sh", "/dev/nvidia0"}  # shells, and words that are said


def test_one_line_when_nothing_is_in_the_way(machine: Machine) -> None:
    machine.torch("2.4.1+cu121", "12.1").gpu("535.129.03", cards=2)
    assert machine.says() == [
        "gpu-check: torch 2.4.1+cu121, CUDA 12.1; host driver 535.129.03; 2 GPUs: nothing in the way"
    ]


def test_a_driver_that_is_too_old(machine: Machine) -> None:
    machine.torch("2.4.1+cu121", "12.1").gpu("470.129.06")
    assert machine.says() == [
        "gpu-check: torch 2.4.1+cu121, CUDA 12.1; host driver 470.129.06; 1 GPU",
        "gpu-check: the GPU cannot be used: CUDA 12.1 needs driver 525.60.13 or newer, the host has 470.129.06",
        "gpu-check:   tip: update the host's driver, or take an image built for CUDA 11.x",
    ]


# CUDA of the image, driver, whether that driver is new enough.
BOUNDARIES = [
    (f"{floor.cuda_major}.1", driver, good)
    for floor in DRIVERS.floors
    for driver, good in ((floor.driver, True), (f"{floor.driver}.99", True))
] + [
    ("13.0", "580.65.06", True),
    ("13.0", "579.99.99", False),
    ("12.9", "525.60.13", True),
    ("12.9", "525.60.12", False),
    ("12.0", "525.60.09", False),
    ("12.4", "525.125.06", True),
    ("12.4", "1000.1", True),
    ("11.8", "450.80.02", True),
    ("11.8", "450.80.01", False),
    ("11.0", "450.80", False),
    ("10.2", "440.33", True),
    ("10.2", "440.32.01", False),
    ("10.1", "418.39", True),
]


@pytest.mark.parametrize(("cuda", "driver", "good"), BOUNDARIES)
def test_the_floor_of_each_cuda_to_the_patch_level(tmp_path: Path, cuda: str, driver: str, good: bool) -> None:
    said = Machine(tmp_path, ["sh"]).torch("2.0.0", cuda).gpu(driver).says()
    assert (len(said) == 1) == good, said
    assert ("cannot be used" in "".join(said)) != good


def test_a_cuda_that_the_table_does_not_know_is_never_called_too_new(machine: Machine) -> None:
    machine.torch("3.0.0", "99.0").gpu("580.65.06")
    assert machine.says() == ["gpu-check: torch 3.0.0, CUDA 99.0; host driver 580.65.06; 1 GPU: nothing in the way"]


def test_the_open_kernel_module_has_another_sentence(machine: Machine) -> None:
    machine.torch("2.4.1", "12.1").gpu("550.54.14", text=OPEN_KERNEL_MODULE)
    assert "host driver 550.54.14; 1 GPU: nothing" in machine.says()[0]


def test_no_gpu_at_all(machine: Machine) -> None:
    found, problem, tip = machine.torch("2.4.1+cu121", "12.1").says()
    assert found == "gpu-check: torch 2.4.1+cu121, CUDA 12.1; host driver unknown; 0 GPUs"
    assert problem == "gpu-check: no GPU in this container: nvidia-smi and /dev/nvidia0 missing"
    assert "docker run --gpus all" in tip
    assert "NVIDIA Container Toolkit" in tip


def test_a_host_with_a_driver_and_a_container_without_its_gpu(machine: Machine) -> None:
    """/proc/driver/nvidia is the kernel's: every container sees it."""
    machine.torch("2.4.1", "12.1").file("proc/driver/nvidia/version", KERNEL_MODULE.format("535.129.03"))
    found, problem, _ = machine.says()
    assert "host driver 535.129.03; 0 GPUs" in found
    assert "no GPU in this container" in problem


def test_nvidia_smi_alone_is_no_gpu(machine: Machine) -> None:
    machine.torch("2.4.1", "12.1").file("bin/nvidia-smi", "#!/bin/sh\n", 0o755)
    assert machine.says()[1] == "gpu-check: no GPU in this container: /dev/nvidia0 missing"


def test_no_nvidia_smi_beside_a_gpu(machine: Machine) -> None:
    machine.torch("2.4.1", "12.1").gpu("535.129.03")
    (machine.root / "bin/nvidia-smi").unlink()
    _, problem, tip = machine.says()
    assert problem == "gpu-check: nvidia-smi is missing, although there is a GPU"
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in tip


def test_no_libcuda(machine: Machine) -> None:
    machine.torch("2.4.1", "12.1").gpu("535.129.03")
    (machine.root / "usr/lib/x86_64-linux-gnu/libcuda.so.1").unlink()
    _, problem, tip = machine.says()
    assert "libcuda.so.1 is in none of the usual places" in problem
    assert "compute" in tip


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("usr/local/cuda/lib64/stubs", "stub before the driver"),
        ("usr/local/cuda/compat", "forward-compatibility driver"),
    ],
)
def test_ld_library_path_with_another_driver_in_front(machine: Machine, folder: str, words: str) -> None:
    machine.torch("2.4.1", "12.1").gpu("535.129.03").file(f"{folder}/libcuda.so.1")
    system = machine.root / "usr/lib/x86_64-linux-gnu"
    in_front = f"/none:{machine.root}/{folder}:{system}"
    _, problem, tip = machine.says(LD_LIBRARY_PATH=in_front)
    assert words in problem
    assert f"{machine.root}/{folder}/libcuda.so.1" in problem
    assert "LD_LIBRARY_PATH" in tip
    # Behind the driver, or not named at all, the folder does no harm.
    assert len(machine.says(LD_LIBRARY_PATH=f"{system}:{machine.root}/{folder}")) == 1
    assert len(machine.says()) == 1


def test_an_image_with_a_forward_compatibility_package_is_not_condemned(machine: Machine) -> None:
    """The toolkit may have put that driver in place: on a data-centre card it works."""
    machine.torch("2.9.0", "13.0").gpu("535.129.03").file("usr/local/cuda-13.0/compat/libcuda.so.1")
    _, problem, _ = machine.says()
    assert "only data-centre cards can go on" in problem
    assert "cannot be used" not in problem


def test_a_cpu_build_beside_a_gpu(machine: Machine) -> None:
    machine.torch("2.4.1+cpu", None).gpu("535.129.03")
    found, problem, tip = machine.says()
    assert "torch 2.4.1+cpu, no CUDA build;" in found
    assert "torch 2.4.1+cpu is no CUDA build" in problem
    assert "pip install torch" in tip


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_a_variable_that_hides_every_gpu(machine: Machine, value: str) -> None:
    machine.torch("2.4.1", "12.1").gpu("535.129.03")
    assert f'CUDA_VISIBLE_DEVICES="{value}" hides every GPU' in machine.says(CUDA_VISIBLE_DEVICES=value)[1]
    assert len(machine.says(CUDA_VISIBLE_DEVICES="0")) == 1


def test_the_facts_of_the_environment_where_no_torch_is_found(machine: Machine) -> None:
    machine.gpu("470.129.06")
    found, problem, _ = machine.says(PYTORCH_VERSION="2.4.0a0+3bcc3cddb5", CUDA_VERSION="12.4.1")
    assert found.startswith("gpu-check: torch 2.4.0a0+3bcc3cddb5, CUDA 12.4.1;")
    assert "CUDA 12.4.1 needs driver 525.60.13" in problem
    assert machine.says() == [
        "gpu-check: torch not found, CUDA unknown; host driver 470.129.06; 1 GPU: nothing in the way"
    ]


@pytest.mark.parametrize(
    "where",
    [
        "usr/local/lib/python3.12/site-packages",
        "usr/local/lib/python3.12/dist-packages",
        "usr/local/lib64/python3.9/site-packages",
        "usr/lib/python3/dist-packages",
        "opt/venv/lib/python3.10/site-packages",
        "opt/conda/envs/train/lib/python3.10/site-packages",
        "home/.local/lib/python3.10/site-packages",
    ],
)
def test_the_usual_places_of_torch(tmp_path: Path, where: str) -> None:
    machine = Machine(tmp_path, ["sh"]).gpu("535.129.03").torch("2.4.1+cu121", "12.1", where)
    assert machine.says()[0].startswith("gpu-check: torch 2.4.1+cu121, CUDA 12.1;")


def test_the_python_that_would_run_decides_which_torch_is_meant(machine: Machine) -> None:
    machine.gpu("535.129.03").torch("1.0.0", "10.0")
    machine.torch("2.0.0", "11.8", "venv/lib/python3.11/site-packages").file("venv/bin/python", "", 0o755)
    machine.torch("3.0.0", "12.8", "site with spaces")
    path = f"{machine.root}/bin:{machine.root}/venv/bin"
    assert "torch 2.0.0, CUDA 11.8" in machine.says(PATH=path)[0]
    assert "torch 3.0.0, CUDA 12.8" in machine.says(PATH=path, PYTHONPATH=f"/none:{machine.root}/site with spaces")[0]
    assert "torch 1.0.0, CUDA 10.0" in machine.says()[0]


def test_old_and_strange_version_files(machine: Machine) -> None:
    machine.gpu("535.129.03")
    path = "opt/conda/lib/python3.8/site-packages/torch/version.py"
    machine.file(path, "__version__ = '1.9.0'\ndebug = False\ncuda = '10.2'\nhip = None")
    assert "torch 1.9.0, CUDA 10.2" in machine.says()[0]
    machine.file(path, "__version__ = '1.9.0\x1b[31m'\ncuda = $(touch started-a-program)\n")
    assert "torch not found, CUDA unknown" in machine.says()[0]
    machine.file(path, "__version__ = '2.0.0'\n")
    assert "torch 2.0.0, its CUDA unknown" in machine.says()[0]


def test_arguments_arrive_exactly(machine: Machine) -> None:
    given = ["", " two  words ", "*", "a\nb", "$HOME `x` \\n", "--flag=1", "é", "-"]
    done = machine.start(sys.executable, "-c", "import sys; print(repr(sys.argv[1:]))", *given)
    assert done.stdout == f"{given!r}\n"


def test_the_environment_arrives_exactly(machine: Machine) -> None:
    names = ("torch", "cuda", "driver", "floors", "line", "path", "IFS", "version", "problems")
    given = dict.fromkeys(names, "mine")
    given |= {"LD_LIBRARY_PATH": "/a:/b", "PYTHONPATH": ""}
    clean = subprocess.run(
        [shutil.which(machine.shell[0]) or "", *machine.shell[1:], "-c", "exec /usr/bin/env"],
        env={"PATH": str(machine.root / "bin"), "HOME": str(machine.root / "home"), **given},
        cwd=machine.root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert sorted(machine.start("/usr/bin/env", **given).stdout.splitlines()) == sorted(clean.splitlines())


def test_exit_codes_pass_through(machine: Machine) -> None:
    assert machine.start("/bin/sh", "-c", "exit 37").returncode == 37
    missing = machine.start("no-such-command")
    assert missing.returncode == 127
    assert "no-such-command" in missing.stderr
    assert machine.start("").returncode == 127
    assert machine.start("-c", "echo no").returncode == 127


def test_no_command_is_a_shell_and_says_so(machine: Machine) -> None:
    done = machine.start()
    assert (done.returncode, done.stdout) == (0, "")  # its input is at its end
    assert "no command given, starting /bin/" in done.stderr


def test_it_can_be_silenced(machine: Machine) -> None:
    done = machine.start("/bin/echo", "hello", CUDA_MATRIX_SELF_CHECK="off")
    assert (done.stdout, done.stderr) == ("hello\n", "")
    assert machine.start(CUDA_MATRIX_SELF_CHECK="off").stderr == ""


def test_the_command_takes_the_place_of_the_shell_and_gets_its_input(machine: Machine) -> None:
    machine.start("/bin/true")
    process = subprocess.Popen(
        [
            *machine.shell,
            str(machine.root / "entrypoint.sh"),
            "/bin/sh",
            "-c",
            'echo $$; read -r x; echo "$x"; exec sleep 60',
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("from outside\n")
    process.stdin.flush()
    assert process.stdout.readline() == f"{process.pid}\n"
    assert process.stdout.readline() == "from outside\n"
    process.terminate()
    assert process.wait(timeout=10) == -signal.SIGTERM
    process.stdin.close()
    process.stdout.close()


def test_a_start_without_stderr_goes_on(machine: Machine) -> None:
    machine.start("/bin/true")
    command = [*machine.shell, str(machine.root / "entrypoint.sh"), "/bin/echo", "hello"]
    closed = subprocess.run(["sh", "-c", '"$@" 2>&-', "-", *command], capture_output=True, text=True, check=False)
    full = subprocess.run(["sh", "-c", '"$@" 2>/dev/full', "-", *command], capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stdout) == (full.returncode, full.stdout) == (0, "hello\n")


@pytest.mark.parametrize("name", SHELLS)
def test_a_start_is_hardly_slower(tmp_path: Path, name: str) -> None:
    machine = Machine(tmp_path, SHELLS[name]).torch("2.4.1", "12.1").gpu("470.129.06")
    for number in range(300):  # a folder of libraries is long
        machine.file(f"usr/lib/x86_64-linux-gnu/lib{number}.so")
    machine.start("/bin/true")
    machine.file("bare.sh", '#!/bin/sh\nexec "$@"\n')
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    took: dict[str, list[float]] = {"bare.sh": [], "entrypoint.sh": []}
    for _ in range(STARTS):
        for script, seconds in took.items():
            begin = time.perf_counter()
            subprocess.run(
                [*machine.shell, str(tmp_path / script), "/bin/true"], env=env, check=True, stderr=subprocess.DEVNULL
            )
            seconds.append(time.perf_counter() - begin)
    bare, ours = (statistics.median(seconds) * 1000 for seconds in took.values())
    print(f"{name}: {ours - bare:.1f} ms more than {bare:.1f} ms (median of {STARTS})")
    assert ours - bare <= LIMIT_MS, f"{name}: {ours:.1f} ms against {bare:.1f} ms bare, median of {STARTS} starts"


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    path = write_entrypoint(tmp_path, DRIVERS)
    done = subprocess.run(["shellcheck", "--shell=sh", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_floors_come_from_the_table() -> None:
    line = re.search(r"floors='(.*)'", entrypoint_script(DRIVERS))
    assert line
    assert line[1].startswith(" ".join(f"{row.cuda_major}={row.driver}" for row in reversed(DRIVERS.floors)))
    assert "@" not in entrypoint_script(DRIVERS).replace('"$@"', "")


def test_it_is_written_executable_and_never_over_another(tmp_path: Path) -> None:
    path = write_entrypoint(tmp_path / "new/folder", DRIVERS)
    assert path.read_text() == entrypoint_script(DRIVERS)
    assert path.stat().st_mode & 0o777 == 0o755
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"entrypoint\.sh") as caught:
        write_entrypoint(tmp_path / "new/folder", DRIVERS)
    assert caught.value.hint
    assert path.read_text() == "mine"
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_entrypoint(path / "below-a-file", DRIVERS)


def test_the_verb_prints_it_or_writes_it(tmp_path: Path) -> None:
    def init(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cuda_matrix", "init", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert init("--entrypoint").stdout == entrypoint_script(DRIVERS)
    assert list(tmp_path.iterdir()) == []
    written = init("--entrypoint", "image")
    assert (written.returncode, written.stdout) == (0, "")
    assert "wrote image/entrypoint.sh" in written.stderr
    again = init("--entrypoint", "image")
    assert again.returncode == 2
    assert "would be overwritten" in again.stderr
