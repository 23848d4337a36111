"""Owns the result of one cell: a versioned JSON document (`cuda-matrix schema result`).

Must not know who produced it (execute), where it lies (result_files) or how it looks (report).
Every text in it came out of a container or a registry and is hostile until escaped.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cuda_matrix.model import CheckStatus, EngineName, Frozen, Moment, Sha256, Verdict
from cuda_matrix.prediction import Prediction

RESULT_VERSION: Literal[1] = 1

# Bounds on what one container may leave behind, in characters.
TEXT_LIMIT = 2_000
LOG_LIMIT = 16_000
CHECK_LIMIT, BENCHMARK_LIMIT = 512, 128  # of one cell
REMARKS_LIMIT = 32
SURE, LIKELY = 0.8, 0.5  # confidence from which on a diagnosis is called so; below it is a guess

Side = Literal["image", "host", "registry", "configuration", "unknown"]  # who must act on a cause

Text = Annotated[str, Field(max_length=TEXT_LIMIT)]
Log = Annotated[str, Field(max_length=LOG_LIMIT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]  # JSON knows no bound, other readers do
Scalar = bool | Whole | Finite | Text | None
Numbers = Annotated[dict[Annotated[str, Field(max_length=80)], Scalar], Field(max_length=64)]


class Gpu(Frozen):
    """One card as `nvidia-smi` names it. The UUID is hashed: it identifies the machine's owner."""

    index: Whole
    name: Text
    uuid_hash: Text = ""
    memory_mib: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    compute_capability: Text | None = None


class Runtime(Frozen):
    """One CUDA runtime found on disk."""

    path: Text
    version: Text | None = None


class Library(Frozen):
    """One library that the process had mapped after real work (`/proc/self/maps`)."""

    soname: Text
    path: Text


class Facts(Frozen):
    """What the payload saw. None means "not seen", never "absent"; absence is said by a check."""

    driver: Text | None = None
    nvidia_smi: Text | None = Field(default=None, description="ok, missing, or its own words.")
    gpus: Annotated[tuple[Gpu, ...], Field(max_length=64)] = ()
    os: Text | None = None
    kernel: Text | None = None
    machine: Text | None = Field(default=None, description="CPU architecture, for example x86_64.")
    cpu_model: Text | None = None
    cpu_count: Whole | None = None
    memory_gb: Finite | None = Field(default=None, description="Memory of the host or of the cgroup, 1e9 bytes.")
    shm_gb: Finite | None = Field(default=None, description="Size of /dev/shm, 1e9 bytes.")
    glibc: Text | None = None
    user: Text | None = Field(default=None, description="uid:gid that the payload ran as.")
    python: Text | None = None
    python_path: Text | None = None
    torch: Text | None = None
    torch_path: Text | None = None
    torch_cuda: Text | None = Field(default=None, description="torch.version.cuda; `none` for a CPU build.")
    cudnn: Text | None = None
    nccl: Text | None = None
    arch_list: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    cuda_available: bool | None = None
    device_name: Text | None = None
    device_capability: Text | None = None
    cuda_runtimes: Annotated[tuple[Runtime, ...], Field(max_length=64)] = ()
    libraries: Annotated[tuple[Library, ...], Field(max_length=256)] = ()
    environment: Annotated[dict[Text, Text], Field(max_length=64)] = Field(
        default={}, description="The few variables that steer CUDA, never all of them."
    )


class CheckResult(Frozen):
    """One check, with the numbers and thresholds that a reader needs to judge it."""

    id: Text
    status: CheckStatus
    summary: Text = ""
    device: Text | None = Field(
        default=None, description="Where the work ran: cpu, cuda:0; None where none was needed."
    )
    numbers: Numbers = {}
    thresholds: Numbers = {}
    cause: Text | None = Field(default=None, description="Cause code that the check itself can name.")
    evidence: Text = Field(default="", description="The line that proves it, as the software printed it.")
    log: Log = Field(default="", description="Last lines that the check's process printed.")
    seconds: Finite = Field(default=0.0, ge=0)


class Samples(Frozen):
    """Samples, summarised. cv is the coefficient of variation (standard deviation / mean)."""

    n: int = Field(ge=1, le=2**63 - 1)
    median: Finite = Field(gt=0)
    p5: Finite = Field(gt=0)
    p95: Finite = Field(gt=0)
    cv: Finite = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Samples:
        if not self.p5 <= self.median <= self.p95:
            msg = f"p5 {self.p5}, median {self.median} and p95 {self.p95} are not in order"
            raise ValueError(msg)
        return self


class BenchmarkResult(CheckResult):
    """One benchmark: a check with samples."""

    unit: Text = ""
    higher_is_better: bool = True
    samples: Samples | None = None


class Diagnosis(Frozen):
    """Why, and what to do. `cause` is a code of the catalogue (data/causes.yml)."""

    cause: str
    title: str = ""
    side: Side = "unknown"
    confidence: float = Field(ge=0, le=1)
    evidence: Text = ""
    where: Text = Field(default="", description="The check or stage that the evidence comes from.")
    explanation: str = ""
    fix: tuple[str, ...] = ()
    source: str = ""
    alternatives: tuple[str, ...] = ()


class Exit(Frozen):
    """How the container or process ended."""

    code: Whole | None = None
    signal: Whole | None = None
    oom_killed: bool = False
    timed_out: bool = False
    interrupted: bool = False


class Timings(Frozen):
    """Where the time went, in seconds; None where a stage was not reached."""

    pull_s: float | None = None
    start_s: float | None = Field(default=None, description="Create, copy the payload in, start.")
    payload_s: float | None = None
    total_s: float = 0.0


class ImageIdentity(Frozen):
    """Exactly what was run."""

    id: str
    variant: str | None = None
    ref: str
    digest: Sha256 | None = Field(default=None, description="Registry digest; None where no registry holds it.")
    image_id: str | None = Field(default=None, description="The engine's own id of the image.")
    size_bytes: Whole | None = None
    env: dict[str, str] = {}


class CellResult(Frozen):
    """Everything that one attempt at one cell has shown."""

    result_version: Literal[1] = RESULT_VERSION
    cell: str
    runner: str
    gpu: str | None = Field(default=None, description="The card that the configuration says.")
    image: ImageIdentity
    run_id: str
    attempt: int = Field(default=1, ge=1, le=1_000_000)
    tool_version: str
    payload_sha256: str
    demand_sha256: str | None = Field(default=None, description="What was asked of the cell (plan.demand_sha256).")
    profile: str
    engine: EngineName
    started_at: Moment
    timings: Timings
    verdict: Verdict
    reason: Text = Field(default="", description="One line: why this verdict.")
    remarks: Annotated[tuple[Text, ...], Field(max_length=REMARKS_LIMIT)] = ()
    prediction: Prediction | None = Field(default=None, description="What the plan said of the cell.")
    prediction_here: Prediction | None = Field(
        default=None,
        description="What the same rules say of the driver and card that were found; None where the plan meant them.",
    )
    facts: Facts = Facts()
    checks: Annotated[tuple[CheckResult, ...], Field(max_length=CHECK_LIMIT)] = ()
    benchmarks: Annotated[tuple[BenchmarkResult, ...], Field(max_length=BENCHMARK_LIMIT)] = ()
    diagnosis: Diagnosis | None = None
    exit: Exit = Exit()
    log: Log = Field(default="", description="Last lines of the container's output that were not events.")
    repro: str = Field(default="", description="A command that shows the same on the same machine.")

    @property
    def simulated(self) -> bool:
        """True where no figure of this result was measured."""
        return self.engine is EngineName.SIMULATED
