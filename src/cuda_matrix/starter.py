"""Owns what `init` gives a user to begin with: the starter configuration, the self-check entrypoint of an image.

It writes without losing a user's own files.

Must not know the command line.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from cuda_matrix.drivers import DriverTable
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.facts import version_key
from cuda_matrix.schemas import config_schema
from cuda_matrix.version import __version__

# Path in the user's repository → template. (A folder `.github` would be lost by some packagers, hence `workflows`.)
_TEMPLATES = {
    "matrix/images.yml": "matrix/images.yml",
    "matrix/runners.yml": "matrix/runners.yml",
    "matrix/policy.yml": "matrix/policy.yml",
    ".github/workflows/gpu-matrix-nightly.yml": "workflows/gpu-matrix.yml",
}
_SCHEMA = "matrix/schema.json"
_ENTRYPOINT = "entrypoint.sh"


def starter_files() -> dict[str, str]:
    """Path below the repository → text."""
    root = files("cuda_matrix").joinpath("templates").joinpath("starter")
    texts = {}
    for path, name in _TEMPLATES.items():
        folder, _, file = name.partition("/")
        texts[path] = root.joinpath(folder).joinpath(file).read_text(encoding="utf-8")
    return {**texts, _SCHEMA: json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"}


def write_starter(directory: Path) -> list[Path]:
    """Write every starter file, or none. Returns what was written.

    Raises:
        ConfigurationError: a file is there already, another configuration is, or the directory cannot be written.
    """
    texts = starter_files()
    matrix = directory / "matrix"
    there = [path for path in (directory / name for name in (*texts, "cuda-matrix.yml")) if path.exists()]
    there += sorted(path for path in matrix.glob("*.y*ml") if path not in there)
    if there:
        names = ", ".join(path.as_posix() for path in there)
        msg = f"nothing is written, because this would be overwritten or mixed up: {names}"
        raise ConfigurationError(msg, hint="choose an empty directory: cuda-matrix init DIR")
    written = []
    try:
        for name, text in texts.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="") as stream:
                stream.write(text)
            written.append(path)
    except OSError as error:
        msg = f"cannot write below {directory}: {error.strerror} ({error.filename})"
        raise ConfigurationError(msg) from error
    return written


def entrypoint_script(drivers: DriverTable) -> str:
    """The self-check for an image: a POSIX shell script that looks at the GPU, then becomes the command."""
    text = files("cuda_matrix").joinpath("templates").joinpath(_ENTRYPOINT).read_text(encoding="utf-8")
    floors = " ".join(f"{cuda}={driver}" for cuda, driver in _floors(drivers))
    return text.replace("@FLOORS@", floors).replace("@VERSION@", __version__)


def _floors(drivers: DriverTable) -> list[tuple[str, str]]:
    """CUDA major (or version, before minor-version compatibility) and its oldest driver, newest first."""
    floors = {row.cuda_major: row.driver for row in drivers.floors}
    for row in drivers.toolkits:
        if drivers.floor_of(row.cuda) is None:
            floors[row.cuda] = min(floors.get(row.cuda, row.driver), row.driver, key=version_key)
    return sorted(floors.items(), key=lambda pair: version_key(pair[0]), reverse=True)


def write_entrypoint(directory: Path, drivers: DriverTable) -> Path:
    """Write entrypoint.sh, executable, into the directory.

    Raises:
        ConfigurationError: the file is there already, or the directory cannot be written.
    """
    path = directory / _ENTRYPOINT
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="") as stream:
            stream.write(entrypoint_script(drivers))
        path.chmod(0o755)
    except FileExistsError as error:
        msg = f"nothing is written, because this would be overwritten: {error.filename}"
        raise ConfigurationError(msg, hint="without DIR it is printed: cuda-matrix init --entrypoint") from error
    except OSError as error:
        msg = f"cannot write below {directory}: {error.strerror} ({error.filename})"
        raise ConfigurationError(msg) from error
    return path
