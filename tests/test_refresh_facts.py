"""tools/refresh_facts.py against a server on this machine that serves pages of the true shape (tests/data/facts)."""

from __future__ import annotations

import contextlib
import difflib
import http.server
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from cuda_matrix.releases import ReleaseTable

ROOT = Path(__file__).parent.parent
PAGES = Path(__file__).parent / "data/facts"
HOSTS = [
    "https://pypi.org",
    "https://files.pythonhosted.org",
    "https://docs.nvidia.com",
    "https://developer.nvidia.com",
    "https://registry-1.docker.io",
    "https://auth.docker.io",
    "https://nvcr.io",
    "https://github.com",
]
RELEASE_NOTES = "docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html"
MINOR_VERSION = "docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
CARDS = "developer.nvidia.com/cuda-gpus"
OLD_CARDS = "developer.nvidia.com/cuda/gpus/legacy"


@dataclass
class Internet:
    """What the server answers: host and path → status, body, headers. Whatever else is asked for is 404."""

    port: int
    pages: dict[str, tuple[int, str, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def page(self, address: str, body: str = "here", status: int = 200, **headers: str) -> None:
        self.pages[address] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def refresh(self, *arguments: str, code: int) -> str:
        """The tool's report, with every host of the world replaced by this server."""
        mirrors = [f"--mirror={host}=http://127.0.0.1:{self.port}/{host[8:]}" for host in HOSTS]
        return refresh(*arguments, *mirrors, code=code)


def refresh(*arguments: str, code: int) -> str:
    """What the tool prints; in this process, since a start costs a second."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        tool = importlib.import_module("refresh_facts")
    finally:
        sys.path.remove(str(ROOT / "tools"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert tool.main(list(arguments)) == code, said.getvalue()
    return said.getvalue()


@pytest.fixture
def internet() -> Iterator[Internet]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/")
            world.asked.append(path)
            status, body, headers = world.pages.get(path, (404, "", {}))
            if headers.get("needs") and self.headers.get("Authorization") != headers["needs"]:
                status, body, headers = 401, "", {"WWW-Authenticate": headers["challenge"]}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world = Internet(server.server_port)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield world
    server.shutdown()
    server.server_close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of tables: the packaged ones, and a short torch-releases.yml."""
    folder = tmp_path / "data"
    shutil.copytree(ROOT / "src/cuda_matrix/data", folder)
    shutil.copy(PAGES / "torch-releases.yml", folder)
    return folder


def serve_pypi(internet: Internet, *, without: str = "no such version") -> None:
    for project in ("torch", "torchvision"):
        index = (PAGES / f"{project}-index.html").read_text()
        lines = [line for line in index.splitlines() if f"{project}-{without}" not in line]
        internet.page(f"pypi.org/simple/{project}/", "\n".join(lines))
        for url, version in re.findall(rf'href="https://([^"#]+/{project}-([\d.]+)-[^"#]+)', index):
            metadata = PAGES / f"{project}-{version}.metadata"
            if metadata.exists():
                internet.page(f"{url}.metadata", metadata.read_text())


def serve_nvidia(internet: Internet) -> None:
    internet.page(RELEASE_NOTES, (PAGES / "release-notes.html").read_text())
    internet.page(MINOR_VERSION, (PAGES / "minor-version.html").read_text())
    internet.page(CARDS, (PAGES / "cuda-gpus.html").read_text())
    internet.page(OLD_CARDS, "<table><tr><td>3.5</td><td>Tesla K40</td></tr></table>")


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def test_a_table_that_says_what_pypi_says(internet: Internet, data: Path) -> None:
    serve_pypi(internet, without="2.11")
    said = internet.refresh("torch-releases", "--check", "--no-links", f"--data={data}", code=0)
    assert said == "torch-releases: 2 compared, 0 differ\n"


@pytest.mark.parametrize(
    ("ours", "wrong", "words"),
    [
        ('patch_releases: ["2.5.1"]', 'patch_releases: ["2.5.0"]', "torch 2.5: patch_releases 2.5.0; PyPI says 2.5.1"),
        ('python_min: "3.8"', 'python_min: "3.9"', "torch 2.5: python_min 3.9; PyPI says 3.8"),
        ('python_max: "3.13"', 'python_max: "3.12"', "torch 2.5: python_max 3.12; PyPI says 3.13"),
        ("pypi_default: cu124", "pypi_default: cu118", "torch 2.5: pypi_default cu118; PyPI says cu124"),
        ('cudnn: "9.1.0"', 'cudnn: "9.2.0"', "torch 2.5: cudnn 9.2.0; PyPI says 9.1.0.70"),
        ('nccl: "2.27.5"', 'nccl: "2.27.3"', "torch 2.9: nccl 2.27.3; PyPI says 2.27.5"),
        ('torch: "2.9"', 'torch: "2.10"', "torch 2.10: not on PyPI"),
    ],
)
def test_each_field_that_differs_is_named(internet: Internet, data: Path, ours: str, wrong: str, words: str) -> None:
    serve_pypi(internet, without="2.11")
    path = data / "torch-releases.yml"
    assert ours in path.read_text()
    path.write_text(path.read_text().replace(ours, wrong))
    before = path.read_text()
    assert words in internet.refresh("torch-releases", "--check", "--write", "--no-links", f"--data={data}", code=1)
    text = path.read_text()
    assert before.splitlines()[5] in text
    assert wrong in text, "a row that was there is never changed"
    assert words in internet.refresh("torch-releases", "--no-links", f"--data={data}", code=0)


def test_a_new_release_is_reported_and_written_on_demand(internet: Internet, data: Path) -> None:
    serve_pypi(internet)
    path = data / "torch-releases.yml"
    before = path.read_text()
    said = internet.refresh("torch-releases", "--check", "--no-links", f"--data={data}", code=1)
    assert "new: torch 2.11 (13.0)" in said
    assert path.read_text() == before
    internet.refresh("torch-releases", "--write", "--no-links", f"--data={data}", code=0)
    after = path.read_text()
    changes = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] != " "]
    assert {line[0] for line in changes} == {"+"}
    release = ReleaseTable.model_validate(yaml.safe_load(after)).release("2.11.0")
    assert release is not None
    assert release.model_dump(exclude_defaults=True) == {
        "torch": "2.11",
        "patch_releases": ("2.11.0",),
        "python_min": "3.10",
        "python_max": "3.14",
        "pypi_default": "cu130",
        "torchvision": "0.26",
        "certainty": "uncertain",
        "sources": ("pypi-2.11",),
        "variants": (
            {
                "variant": "cu130",
                "cuda": "13.0",
                "cudnn": "9.19.0.56",
                "nccl": "2.28.9",
                "certainty": "verified",
                "sources": ("pypi-2.11",),
            },
        ),
    }
    assert '+   pypi-2.11: "https://pypi.org/project/torch/2.11.0/ (metadata of the wheel)"' in changes
    internet.refresh("torch-releases", "--check", "--write", "--no-links", f"--data={data}", code=0)
    assert path.read_text() == after, "a second time there is nothing to add"


def test_a_new_release_that_pypi_says_too_little_of_is_not_written(internet: Internet, data: Path) -> None:
    serve_pypi(internet)
    internet.pages.pop("pypi.org/simple/torchvision/")
    before = (data / "torch-releases.yml").read_text()
    said = internet.refresh("torch-releases", "--write", "--no-links", f"--data={data}", code=0)
    assert "torch 2.11: PyPI says too little for a row" in said
    assert (data / "torch-releases.yml").read_text() == before


def test_metadata_that_is_missing_is_no_difference(internet: Internet, data: Path) -> None:
    serve_pypi(internet, without="2.11")
    for address in [address for address in internet.pages if "torch-2.9.1" in address]:
        del internet.pages[address]
    said = internet.refresh("torch-releases", "--check", "--no-links", f"--data={data}", code=3)
    assert "2 compared, 0 differ" in said
    assert "could not be reached: https://files.pythonhosted.org/" in said
    assert "no metadata beside the wheel" in said


# ---- NVIDIA ----------------------------------------------------------------------------------------------------------


def test_the_packaged_drivers_and_cards_agree_with_nvidias_pages(internet: Internet) -> None:
    serve_nvidia(internet)
    said = internet.refresh("drivers", "gpus", "--check", "--no-links", code=0)
    assert "drivers: 10 compared, 0 differ" in said
    assert re.search(r"gpus: [1-9]\d compared, 0 differ", said)
    assert "not in NVIDIA's lists, so not compared: " in said


@pytest.mark.parametrize(
    ("table", "ours", "wrong", "words"),
    [
        ("drivers", "550.54.14", "550.54.13", "new: CUDA 12.4 with driver 550.54.14"),
        ("drivers", "550.54.14", "550.54.13", "CUDA 12.4 with driver 550.54.13 is in the table, not on the page"),
        ("drivers", '"580", cert', '"575.1", cert', "CUDA 13.x runs from driver 580 on; the table says 575.1"),
        ("gpus", 'cc: "8.0"', 'cc: "8.6"', "compute capability 8.6; NVIDIA's list says 8.0 (NVIDIA A100)"),
    ],
)
def test_a_table_that_differs_from_nvidias_page(
    internet: Internet, data: Path, table: str, ours: str, wrong: str, words: str
) -> None:
    serve_nvidia(internet)
    path = data / f"{table}.yml"
    assert ours in path.read_text()
    path.write_text(path.read_text().replace(ours, wrong))
    assert words in internet.refresh(table, "--check", "--no-links", f"--data={data}", code=1)


def test_a_page_without_its_table_is_a_difference(internet: Internet) -> None:
    serve_nvidia(internet)
    internet.page(RELEASE_NOTES, "<h1>We have moved</h1>")
    internet.page(CARDS, "<h1>We have moved</h1>")
    said = internet.refresh("drivers", "gpus", "--check", "--no-links", code=1)
    assert said.count("its table is not found") == 2


# ---- registries ------------------------------------------------------------------------------------------------------


def serve_tags(internet: Internet, hub: list[str], ngc: list[str]) -> None:
    challenge = f'Bearer realm="http://127.0.0.1:{internet.port}/token",service="registry",scope="repository:x:pull"'
    secret = {"needs": "Bearer t0ken", "challenge": challenge}
    internet.page("token?service=registry&scope=repository:x:pull", '{"token": "t0ken"}')
    first, rest = json.dumps({"tags": hub[:2]}), json.dumps({"tags": hub[2:]})
    more = "/v2/pytorch/pytorch/tags/list?n=1000&last=x"
    path = "registry-1.docker.io/v2/{}/tags/list?n=1000"
    internet.page(path.format("pytorch/pytorch"), first, Link=f'<{more}>; rel="next"', **secret)
    internet.page(f"registry-1.docker.io{more}", rest, **secret)
    internet.page(path.format("nvidia/cuda"), '{"tags": ["12.4.1-base-ubuntu22.04"]}')
    internet.page("nvcr.io/v2/nvidia/pytorch/tags/list?n=1000", json.dumps({"tags": ngc}))


def test_tags_that_every_grammar_reads(internet: Internet) -> None:
    serve_tags(internet, ["2.4.1-cuda12.1-cudnn9-runtime", "latest", "2.5.1-cuda12.4-cudnn9-devel"], ["25.10-py3"])
    assert internet.refresh("image-schemes", "--check", "--no-links", code=0) == "image-schemes: 5 compared, 0 differ\n"


def test_tags_that_no_grammar_reads_and_months_without_a_row(internet: Internet) -> None:
    new = ["2.4.1-cuda12.1-cudnn9-runtime", "3.0-rocm7", "3.1-rocm8", "latest"]
    serve_tags(internet, new, ["25.10-py3", "99.12-py3"])
    said = internet.refresh("image-schemes", "--check", "--no-links", code=1)
    assert "pytorch/pytorch: no grammar reads N.N-rocmN (2 tags, such as 3.1-rocm8)" in said
    assert "nvcr.io/nvidia/pytorch:99.12-py3: no row of that month" in said
    assert said.count("differs:") == 2


def test_a_registry_that_refuses_is_not_reached(internet: Internet) -> None:
    serve_tags(internet, ["latest"], [])
    internet.page("token?service=registry&scope=repository:x:pull", "sorry", status=429)
    said = internet.refresh("image-schemes", "--check", "--no-links", code=3)
    assert "could not be reached: https://registry-1.docker.io/v2/pytorch/pytorch/tags/list (HTTP 429)" in said


# ---- sources ---------------------------------------------------------------------------------------------------------

SOURCES = """
- code: one
  fix: ["pip install --index-url https://github.com/not/cited"]
  sources: ["https://github.com/a/b/issues/1#issuecomment-5", "see https://github.com/a/b/issues/2, read there."]
- code: two
  sources: ["https://docs.nvidia.com/x_(y)", "(https://github.com/a/b/issues/3)", a book]
"""


def test_sources_that_are_there_gone_and_out_of_reach(internet: Internet, tmp_path: Path) -> None:
    (tmp_path / "causes.yml").write_text(SOURCES)
    for number in (1, 2, 3):
        internet.page(f"github.com/a/b/issues/{number}")
    internet.page("docs.nvidia.com/x_(y)")
    said = internet.refresh("causes", "--check", f"--data={tmp_path}", code=0)
    assert said == "causes (addresses of its sources): 4 compared, 0 differ\n"
    internet.page("github.com/a/b/issues/2", status=404)
    internet.page("docs.nvidia.com/x_(y)", status=403)
    said = internet.refresh("causes", "--check", f"--data={tmp_path}", code=1)
    assert "differs: gone: https://github.com/a/b/issues/2\n" in said
    assert "could not be reached: https://docs.nvidia.com/x_(y) (HTTP 403)" in said
    internet.page("github.com/a/b/issues/2")
    internet.refresh("causes", "--check", f"--data={tmp_path}", code=3)
    assert not any("cited" in address for address in internet.asked)


def test_without_a_network_everything_is_out_of_reach_and_nothing_differs() -> None:
    nowhere = [f"--mirror={host}=http://127.0.0.1:9/" for host in ("https://", "http://")]
    said = refresh("--check", *nowhere, code=3)
    tables = {path.stem for path in (ROOT / "src/cuda_matrix/data").glob("*.yml") if "demo-" not in path.stem}
    assert {line.partition(" (")[0].partition(":")[0] for line in said.splitlines() if line[0] != " "} == tables
    assert "differs" not in said
    assert "could not be reached: https://github.com/" in said
    assert "refused" in said
    refresh(*nowhere, code=0)


def test_a_table_that_there_is_not() -> None:
    assert "no table driver; there are" in refresh("driver", code=2)


def test_it_starts_as_the_readme_says() -> None:
    command = [sys.executable, str(ROOT / "tools/refresh_facts.py"), "--help"]
    assert "TABLE" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
