"""Owns what a user may know beside the text of a log (`diagnose --context FILE.json`) and the shapes it comes in.

A result file of a cell, `docker inspect` of a container, or a plain object of which some keys are known and the others
are kept as words. Must not know which cause follows (diagnose) or where the file lies.
"""

from __future__ import annotations

import codecs
import json
import re
import signal as signals
from difflib import SequenceMatcher
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from cuda_matrix.diagnose import Evidence, Fragment, Stage
from cuda_matrix.documents import FILE_LIMIT, Locate, Model, Place, check, parse, problem_at, read_json, wrong
from cuda_matrix.errors import ConfigurationError, Problem
from cuda_matrix.explain import ValuePath, near
from cuda_matrix.model import CheckStatus, Frozen
from cuda_matrix.result import RESULT_VERSION, CellResult, Exit, Facts, Whole

CONTEXT_LIMIT = 2 * FILE_LIMIT  # bytes: `docker inspect` and a result are far smaller

_WORD_LIMIT = 2_000  # characters of one value that is kept as words
_WORDS_LIMIT = 64
_STEERING = ("CUDA_", "NVIDIA_", "NCCL_")  # variables that a diagnosis looks at; others may hold secrets
_STAGES: tuple[Stage, ...] = ("pull", "create", "start", "run")
_BAD = frozenset({CheckStatus.FAIL, CheckStatus.CRASH, CheckStatus.TIMEOUT})
_READ_WORDS = ("driver", "torch")  # words that figures are read from
_MISSPELT = 0.82  # likeness from which on another key was meant: `timeout` is timed_out, `killed` is none of ours
_HALVES = re.compile("[\ud800-\udfff]")
_SIGNALS = 64  # of Linux
_DRIVER = re.compile(r"(\d{3}\.\d{2,3}(?:\.\d{2})?)(?: \(CUDA [\d.]{3,5}\))?")
_TORCH = re.compile(r"\d\.\d{1,2}\.\d{1,2}\S{0,60}")
_TORCH_CUDA = re.compile(r"\+cu(\d{2})(\d)\b")


def _signal_number(value: Any) -> Any:
    """`SIGKILL` and `kill` are 9."""
    if not isinstance(value, str):
        return value
    name = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
    if name not in signals.Signals.__members__:
        msg = f"{value[:40]!r} is no signal: write its number, or a name such as SIGKILL"
        raise ValueError(msg)
    return int(signals.Signals[name])


def _cards(value: Any) -> Any:
    """Cards by name alone: `["RTX 4090"]`."""
    if not isinstance(value, dict) or not isinstance(value.get("gpus"), tuple):
        return value
    cards = [{"index": i, "name": card} if isinstance(card, str) else card for i, card in enumerate(value["gpus"])]
    return {**value, "gpus": tuple(cards)}


def _joined(value: Any) -> Any:
    """A text of lines is a list of them."""
    return tuple(value.splitlines()) if isinstance(value, str) else value


class _Known(Frozen):
    """The keys of a plain context that have a type. All others are words."""

    model_config = ConfigDict(frozen=True, extra="allow")

    stage: Stage | None = None
    exit_code: Whole | None = None
    signal: Annotated[Whole | None, BeforeValidator(_signal_number)] = None
    oom_killed: bool = False
    timed_out: bool = False
    gpu_requested: bool | None = None
    facts: Annotated[Facts, BeforeValidator(_cards)] = Facts()
    events: Annotated[tuple[str, ...], BeforeValidator(_joined)] = ()
    log: str = ""


class _State(Frozen):
    model_config = ConfigDict(frozen=True, extra="ignore")

    status: str = Field(default="", alias="Status")
    oom_killed: bool = Field(default=False, alias="OOMKilled")
    exit_code: Whole | None = Field(default=None, alias="ExitCode")
    error: str = Field(default="", alias="Error")


class _HostConfig(Frozen):
    model_config = ConfigDict(frozen=True, extra="ignore")

    device_requests: tuple[dict[str, Any], ...] | None = Field(default=None, alias="DeviceRequests")
    runtime: str | None = Field(default=None, alias="Runtime")
    shm_bytes: Whole | None = Field(default=None, alias="ShmSize")


class _Config(Frozen):
    model_config = ConfigDict(frozen=True, extra="ignore")

    image: str = Field(default="", alias="Image")
    env: tuple[str, ...] | None = Field(default=None, alias="Env")


class _Container(Frozen):
    """What `docker inspect CONTAINER` prints, as far as it matters (docs.docker.com/reference/api/engine)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: _State = Field(alias="State")
    host: _HostConfig = Field(default=_HostConfig(), alias="HostConfig")
    config: _Config = Field(default=_Config(), alias="Config")


def read_context(data: bytes, file: str) -> Evidence:
    """Read a context.

    Args:
        data: JSON, at most CONTEXT_LIMIT; UTF-8, or UTF-16 as PowerShell's `>` writes it.
        file: its name in problems.

    Raises:
        ConfigurationError: it is no JSON, or a known key has a wrong type; each problem with its line and column.
    """
    if len(data) > CONTEXT_LIMIT:
        raise _refused(file, f"the file is larger than {CONTEXT_LIMIT >> 20} MiB")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    value = _json(data, file)
    if isinstance(value, tuple):
        if len(value) != 1:
            raise _refused(file, f"a list of {len(value)}: give the one object of the container that failed")
        if not (isinstance(value[0], dict) and "State" in value[0]):
            raise _refused(file, "[0] has no State: this is no `docker inspect` of a container")
        return _of_container(_validated(_Container, value[0], data, file, (0,)))
    if not isinstance(value, dict):
        raise _refused(file, "expected an object: {…}")
    if "result_version" in value:
        if value["result_version"] != RESULT_VERSION:
            raise _refused(file, f"a result of version {value['result_version']!r:.20}; known here: {RESULT_VERSION}")
        return _of_result(read_json(CellResult, data, file))
    if isinstance(value.get("State"), dict):
        return _of_container(_validated(_Container, value, data, file))
    known = _validated(_Known, value, data, file)
    _refuse_misspelt(known, data, file)
    return _of_known(known)


def _refuse_misspelt(known: _Known, data: bytes, file: str) -> None:
    """Any key may stand in a context, but one that nearly is a key with a meaning was meant to have it."""
    named = {_plain(name): name for name in (*_Known.model_fields, *_READ_WORDS)}
    meant = {key: near(_plain(key), named) for key in known.model_extra or {} if key not in _READ_WORDS}
    problems = [
        problem_at((key,), f"unknown key {key[:40]!r}; did you mean {named[name]!r}?", _locator(data, file), key=True)
        for key, name in meant.items()
        if name is not None and SequenceMatcher(None, _plain(key), name).ratio() >= _MISSPELT
    ]
    if problems:
        raise wrong(problems)


def _plain(key: str) -> str:
    """`ExitCode` and `exit-code` are `exit_code`, as are other ways to join two words."""
    return re.sub(r"[^a-z0-9]", "", key.lower())


class _RepeatedError(ValueError):
    """A key that stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand once each."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedError(next(key for key in found if keys.count(key) > 1))
    return found


def _json(data: bytes, file: str) -> Any:
    try:
        return _tuples(json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once))
    except UnicodeDecodeError as error:
        raise _refused(file, f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}") from error
    except json.JSONDecodeError as error:
        raise _refused(file, f"no JSON: {error.msg}", error.lineno, error.colno) from error
    except _RepeatedError as error:
        parse(data, file)  # says where
        raise _refused(file, f"the key {str(error)[:40]!r} stands twice") from error
    except (RecursionError, ValueError) as error:  # a number of more than 4,300 digits
        raise _refused(file, f"no JSON that can be read: {error}") from error


def _refused(file: str, text: str, line: int = 0, column: int = 0) -> ConfigurationError:
    hint = 'a result file, `docker inspect CONTAINER`, or an object such as {"exit_code": 137, "driver": "535.129.03"}'
    return ConfigurationError(f"cannot use {file}", problems=(Problem(file, line, column, "", text),), hint=hint)


def _validated(model: type[Model], value: Any, data: bytes, file: str, within: ValuePath = ()) -> Model:
    found, flawed = check(model, value, strict=True)
    if found is None:
        locate = _locator(data, file)
        raise wrong([problem_at((*within, *each.path), each.message, locate, key=each.key) for each in flawed])
    return found


def _tuples(value: Any) -> Any:
    """Lists as tuples, what a strict model asks for, and texts without halves of a character, which JSON can name."""
    if isinstance(value, dict):
        return {_tuples(name): _tuples(each) for name, each in value.items()}
    if isinstance(value, str):
        return value if value.isascii() else _HALVES.sub("\ufffd", value)
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _locator(data: bytes, file: str) -> Locate:
    """Places in the file; JSON that is no YAML (a rare thing) has none."""
    try:
        return parse(data, file).locate
    except ConfigurationError:
        return lambda *_: Place(file)


def _of_result(result: CellResult) -> Evidence:
    """What the run itself knew of the cell."""
    bad = [item for item in (*result.checks, *result.benchmarks) if item.status in _BAD]
    fragments = [Fragment(where=item.id, text=f"{item.evidence}\n{item.log or item.summary}") for item in bad]
    earlier = result.diagnosis
    if earlier is not None and not bad:
        fragments.append(Fragment(where=earlier.where, text=earlier.evidence))
    stage = next((each for each in _STAGES if earlier is not None and earlier.where == each), None)
    return Evidence(
        stage=stage or ("run" if bad else None),
        fragments=(*fragments, Fragment(where="log", text=result.log)),
        exit=result.exit,
        facts=result.facts,
        hint=bad[0].cause if bad else None,
        context=_image(result.image.ref),
    )


def _of_container(container: _Container) -> Evidence:
    state, host = container.state, container.host
    started, ended = state.status != "created", state.status not in {"running", "paused", "restarting"}
    variables = dict(each.partition("=")[::2] for each in container.config.env or ())
    steering = {name: value[:_WORD_LIMIT] for name, value in variables.items() if name.startswith(_STEERING)}
    return Evidence(
        stage=None if started else "start",
        fragments=(Fragment(where="inspect", text=state.error[:_WORD_LIMIT]),) if state.error else (),
        exit=Exit(code=state.exit_code if ended and started else None, oom_killed=state.oom_killed),
        facts=Facts(
            environment=dict(list(steering.items())[:_WORDS_LIMIT]),
            shm_gb=host.shm_bytes / 1e9 if host.shm_bytes else None,
        ),
        gpu_requested=bool(host.device_requests) or host.runtime == "nvidia",
        context=_image(container.config.image),
    )


def _of_known(known: _Known) -> Evidence:
    words = {str(key)[:80]: _worded(value) for key, value in list((known.model_extra or {}).items())[:_WORDS_LIMIT]}
    driver, torch = _DRIVER.fullmatch(words.get("driver", "")), _TORCH.fullmatch(words.get("torch", ""))
    build = _TORCH_CUDA.search(words.get("torch", ""))
    said = {
        "driver": driver and driver[1],
        "torch": torch and torch[0],
        "torch_cuda": build and f"{build[1]}.{build[2]}",
    }
    missing = {name: value for name, value in said.items() if value and getattr(known.facts, name) is None}
    code, signal = known.exit_code, known.signal
    if code is not None and -_SIGNALS <= code < 0:  # Python's subprocess: ended by that signal
        signal = signal or -code
        code = None
    fragments = [Fragment(where="events", text="\n".join(known.events)), Fragment(where="log", text=known.log)]
    return Evidence(
        stage=known.stage,
        fragments=tuple(each for each in fragments if each.text),
        exit=Exit(code=code, signal=signal, oom_killed=known.oom_killed, timed_out=known.timed_out),
        facts=known.facts.model_copy(update=missing),
        gpu_requested=known.gpu_requested,
        context=words,
    )


def _worded(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:_WORD_LIMIT]


def _image(ref: str) -> dict[str, str]:
    return {"docker": ref[:_WORD_LIMIT]} if ref else {}
