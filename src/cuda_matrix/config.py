"""Owns the schema of `matrix/*.yml`: what a user may write, as frozen types.

Must not know where the text came from (config_files) or what becomes of it (matrix). The JSON Schema
that editors use is generated from these types: every field's description is documentation.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from cuda_matrix.model import ID_PATTERN, Bytes, Frozen, Profile, Seconds

LEAST_MEMORY = 64 << 20  # bytes

_FOLDER = re.compile(r"[A-Za-z0-9._ -]{1,100}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_DRIVER = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?")


def _version(value: Any) -> str:
    """YAML reads `12.10` as the number 12.1: an unquoted version has already lost digits, so refuse it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        msg = "a version must be a quoted string"
        raise ValueError(msg)
    if not isinstance(value, str):
        text = getattr(value, "text", str(value))
        msg = f'write the version in quotes: "{text}" (without them YAML reads a number, and 12.10 becomes 12.1)'
        raise ValueError(msg)
    return value


def _driver(value: Any) -> str:
    text = _version(value)
    if not _DRIVER.fullmatch(text):
        msg = f'{text!r} is not a driver version: write it as nvidia-smi shows it, for example "550.54.15"'
        raise ValueError(msg)
    return text


def _enough_memory(value: int) -> int:
    if value < LEAST_MEMORY:
        msg = f"is too little: no Python with torch starts in less than {LEAST_MEMORY >> 20}m (Docker's least is 6m)"
        raise ValueError(msg)
    return value


def _identifier(value: str) -> str:
    if not ID_PATTERN.fullmatch(value):
        allowed = "letters, digits, '.', '_' and '-' (at most 100, the first a letter or digit)"
        msg = f"{value!r} cannot be an id: use {allowed}"
        raise ValueError(msg)
    return value


def _iso_date(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError as error:
        msg = f"{value!r} is not a date: write YYYY-MM-DD, for example 2027-01-31"
        raise ValueError(msg) from error
    return value


def _gpus(value: Any) -> Any:
    if isinstance(value, str) and value in {"all", "none", "cdi"}:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        if min(value) < 0 or len(set(value)) != len(value):
            msg = "GPU indices must be different and not negative"
            raise ValueError(msg)
        return tuple(int(v) for v in value)
    msg = "write `all`, `none`, `cdi`, or a list of GPU indices such as [0, 1]"
    raise ValueError(msg)


def _folder(value: str) -> str:
    """A path below the repository's root, in one spelling."""
    parts = [part for part in value.split("/") if part not in {"", "."}]
    is_bad = value.startswith("/") or not parts or any(not _FOLDER.fullmatch(part) or part == ".." for part in parts)
    plain = [part.lower().rstrip(" .") for part in parts]  # as Windows would read them
    if is_bad or plain[0] == ".github" or ".git" in plain:
        msg = f"{value!r} cannot be the report's folder: write a path below the repository's root, such as docs/reports"
        raise ValueError(msg)
    return "/".join(parts)


def _branch(value: str) -> str:
    """What `git check-ref-format --branch` takes, without its rarer characters."""
    if (
        not _BRANCH.fullmatch(value)
        or value.startswith("refs/")
        or re.search(r"\.\.|//|/\.|\./|\.lock(/|$)|[./]$", value)
    ):
        msg = f"{value!r} cannot be a branch: write for example matrix-reports"
        raise ValueError(msg)
    return value


Version = Annotated[str, BeforeValidator(_version), WithJsonSchema({"type": "string"})]
DriverVersion = Annotated[
    str, BeforeValidator(_driver), WithJsonSchema({"type": "string", "pattern": f"^{_DRIVER.pattern}$"})
]
Identifier = Annotated[
    str, AfterValidator(_identifier), WithJsonSchema({"type": "string", "pattern": f"^{ID_PATTERN.pattern}$"})
]
IsoDate = Annotated[str, AfterValidator(_iso_date), WithJsonSchema({"type": "string", "format": "date"})]
Reason = Annotated[str, Field(min_length=3, description="Why, for the reader of the report.")]
NonEmpty = Annotated[str, Field(min_length=1)]
# https://packaging.python.org/en/latest/specifications/name-normalization/
Distribution = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=100)]
GpuRequest = Annotated[
    Literal["all", "none", "cdi"] | tuple[int, ...],
    BeforeValidator(_gpus),
    WithJsonSchema(
        {
            "oneOf": [
                {"enum": ["all", "none", "cdi"]},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            ]
        }
    ),
]


def _coverage(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        msg = 'write a number of cells (12) or a share ("80%")'
        raise ValueError(msg)
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,3})\s*%", value)
        if not found or not 0 < int(found[1]) <= 100:
            msg = f'{value!r} is no share: write for example "80%"'
            raise ValueError(msg)
    elif value < 1:
        msg = "must be at least 1"
        raise ValueError(msg)
    return value


Coverage = Annotated[
    int | str,
    BeforeValidator(_coverage),
    WithJsonSchema({"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d{1,3}\s*%$"}]}),
]
Percent = Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*%$", examples=["5%"])]

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Variant(Frozen):
    """One way to start the same image, for example with another CUDA runtime first on its library path."""

    env: dict[str, str] = Field(default={}, description="Environment variables set in the container.")


class Image(Frozen):
    """One image, or a family: `{axis}` in `id`, `ref`, `expect` and `release` is replaced by the axis' values."""

    id: NonEmpty = Field(description="Name in reports and commands; may hold {axis} placeholders.")
    ref: NonEmpty = Field(description="Image reference: name:tag or name@sha256:…; may hold {axis} placeholders.")
    axes: dict[str, Annotated[tuple[Version, ...], Field(min_length=1)]] = Field(
        default={}, description="Axis name → values; the image is multiplied over every combination."
    )
    exclude: tuple[dict[str, Version], ...] = Field(
        default=(), description="Axis combinations that do not exist; `reason` says why."
    )
    expect: dict[Distribution, Version] = Field(
        default={},
        description="Versions that must be found inside: torch, cuda, cudnn, python, or any Python distribution. "
        '`cuda: "none"` declares a CPU image on purpose, `torch: "none"` one without torch.',
    )
    paths: tuple[NonEmpty, ...] = Field(default=(), description="Files that this image is built from (globs).")
    release: tuple[NonEmpty, ...] = Field(
        default=(),
        description="References (name:tag, in the same registry) that `promote` gives to the digest that passed; "
        "may hold {axis} placeholders.",
    )
    variants: dict[Identifier, Variant] = Field(default={}, description="Several ways to start the image.")


class Runner(Frozen):
    """One kind of machine."""

    labels: Annotated[tuple[NonEmpty, ...], Field(min_length=1)] = Field(description="`runs-on` labels of its runners.")
    gpu: NonEmpty | None = Field(default=None, description="Card, for example RTX 3090; left out: a CPU-only runner.")
    driver: DriverVersion | None = Field(
        default=None, description="The driver that it is believed to have; each run looks."
    )
    jobs: int = Field(default=1, ge=1, le=256, description="How many such machines may work at once.")
    docker_host: NonEmpty | None = Field(default=None, description="ssh://… or tcp://…, to run from another machine.")


class Exclude(Frozen):
    """Cells that are not run. Globs; a missing field matches everything."""

    image: NonEmpty = "*"
    variant: NonEmpty | None = None
    runner: NonEmpty = "*"
    reason: Reason


class Include(Frozen):
    """One cell added back after `exclude`."""

    image: NonEmpty
    variant: NonEmpty | None = None
    runner: NonEmpty


class PayloadOptions(Frozen):
    """What runs inside each image."""

    profile: Profile = Field(default="standard", description="What runs, and how long it measures.")
    checks: tuple[NonEmpty, ...] = Field(default=("*",), description="Check ids (globs).")
    benchmarks: tuple[NonEmpty, ...] = Field(default=("*",), description="Benchmark ids (globs); [] runs none.")
    timeout: Seconds = Field(
        default=1200.0,
        le=7 * 86_400,
        description="Limit for one cell, without the pull; at most a week.",
        json_schema_extra={"default": "20m"},
    )


class ContainerOptions(Frozen):
    """How the container is started. The defaults are the hardened ones."""

    gpus: GpuRequest = Field(default="all", description="all, none, cdi, or a list of GPU indices.")
    shm_size: Bytes = Field(
        default=8 << 30,
        description="Size of shared memory; Docker's own 64 MB breaks DataLoader and NCCL.",
        json_schema_extra={"default": "8g"},
    )
    memory: Annotated[Bytes, AfterValidator(_enough_memory)] = Field(
        default=64 << 30,
        description="Memory limit, never more than 95 % of the host's; no swap.",
        json_schema_extra={"default": "64g"},
    )
    network: Literal["none", "bridge", "host"] = Field(default="none", description="Network of the container.")
    user: NonEmpty = Field(default="image", description="`image` keeps the image's user; else uid[:gid].")
    entrypoint: Literal["override", "image"] = Field(
        default="override", description="`image` starts through the image's ENTRYPOINT."
    )


class ExpectFail(Frozen):
    """A failure that is known and accepted, until a date."""

    cell: NonEmpty = Field(description="Cell id (glob).")
    cause: NonEmpty | None = Field(default=None, description="Only this cause code is accepted.")
    until: IsoDate = Field(description="Last day on which it is accepted.")
    reason: Reason


class Regression(Frozen):
    """How much worse than the last accepted result is too much."""

    throughput: Percent = "5%"
    memory: Percent = "10%"


class Forks(Frozen):
    """How the code of a fork was approved before it reaches machines of your own: exactly one of the two."""

    environment: NonEmpty | None = Field(
        default=None, description="An environment of the repository with required reviewers; the `run` jobs are in it."
    )
    label: NonEmpty | None = Field(
        default=None, description="A label that a maintainer gives; only the event that gives it counts, once."
    )

    @model_validator(mode="after")
    def _one(self) -> Forks:
        if (self.environment is None) == (self.label is None):
            msg = "write exactly one of `environment` and `label`"
            raise ValueError(msg)
        return self


class Policy(Frozen):
    """What the gate demands."""

    tiers: dict[Identifier, tuple[NonEmpty, ...]] = Field(
        default={}, description="Tier name → cell globs (`plan --tier`)."
    )
    expect_fail: tuple[ExpectFail, ...] = ()
    required: tuple[NonEmpty, ...] = Field(default=("*",), description="Cells that must be good (globs).")
    skip_predicted: bool = Field(
        default=False,
        description="Leave out cells that are predicted to fail, where the facts are sure (confidence 0.9 or more); "
        "plan and report name each with its rule. `plan --no-skip` and `run --no-skip` run them all the same.",
    )
    strict: bool = Field(
        default=False, description="An unexpected pass and an expired `expect_fail` entry also block a release."
    )
    coverage: dict[NonEmpty, Coverage] = Field(
        default={},
        description='Runner (glob) → least number, or share ("80%"), of its cells that must have an answer of a card.',
    )
    forks: Forks | None = Field(
        default=None,
        description="How code of forks was approved; left out: `plan` sends none to self-hosted runners.",
    )
    max_age: Seconds = Field(
        default=14 * 86_400.0,
        le=3_650 * 86_400,
        description="Results older than this are neither promoted nor taken over as unchanged.",
        json_schema_extra={"default": "14d"},
    )
    regression: Regression = Regression()


class ReportOptions(Frozen):
    """Where the report goes."""

    dir: Annotated[NonEmpty, AfterValidator(_folder)] = Field(
        default="reports", description="Folder of the repository that the report is committed to."
    )
    branch: Annotated[NonEmpty, AfterValidator(_branch)] | None = Field(
        default=None,
        description="Branch of its own for the report, made where there is none; left out: the branch that was tested.",
    )
    language: Literal["en"] = "en"
    comment: Literal["always", "on-change", "on-failure", "never"] = Field(
        default="on-change", description="When a pull request gets a comment; one that is there is kept up to date."
    )


class Config(Frozen):
    """A whole configuration: every file of `matrix/` merged, or one `cuda-matrix.yml`."""

    version: Literal[1] = Field(description="Version of this format.")
    images: Annotated[tuple[Image, ...], Field(min_length=1)]
    runners: Annotated[dict[Identifier, Runner], Field(min_length=1)]
    exclude: tuple[Exclude, ...] = ()
    include: tuple[Include, ...] = ()
    payload: PayloadOptions = PayloadOptions()
    container: ContainerOptions = ContainerOptions()
    policy: Policy = Policy()
    report: ReportOptions = ReportOptions()
