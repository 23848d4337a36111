"""`promote` as a user calls it, against Debian's docker-registry behind a proxy that counts and breaks requests."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from builders import make_image, make_plan, make_result
from cuda_matrix.commands.promote import command
from cuda_matrix.errors import ConfigurationError, InfrastructureError
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.result import ImageIdentity
from cuda_matrix.result_files import write_plan, write_result
from registry_bed import serving_registry
from registry_proxy import Proxy, in_front_of
from registry_pushes import INDEX, Pusher, digest_of

pytestmark = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="docker-registry is not installed: apt-get install docker-registry"
)
NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@dataclass
class Bed:
    """A registry in which two images wait for their release, each in a repository of this test alone."""

    proxy: Proxy
    pusher: Pusher
    folder: Path
    space: str
    digests: dict[str, str]

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def ref(self, name: str) -> str:
        return f"{self.proxy.address}/{self.space}/{name}"

    def write(self, verdicts: dict[str, Verdict] | None = None, **changes: Any) -> None:
        """The results of both images; `changes` are of both."""
        images = tuple(
            make_image(
                name,
                ref=f"{self.ref(name)}:rc",
                digest=digest,
                release=(f"{self.ref(name)}:1.0", f"{self.ref(name)}:stable"),
            )
            for name, digest in self.digests.items()
        )
        write_plan(self.results, make_plan(images=images))
        for name, digest in self.digests.items():
            identity = ImageIdentity(id=name, ref=f"{self.ref(name)}:rc", digest=digest)
            verdict = (verdicts or {}).get(name, Verdict.PASS)
            values = {"image": identity, "started_at": NOW, **changes}
            write_result(self.results, make_result(f"{name}@rtx4090", verdict, **values))

    def tags(self) -> dict[str, str | None]:
        """What the release tags name, asked of the registry itself."""
        names = [(name, tag) for name in self.digests for tag in ("1.0", "stable")]
        return {f"{name}:{tag}": self.pusher.digest(f"{self.space}/{name}", tag) for name, tag in names}

    def promote(self, *options: str) -> Result:
        return CliRunner().invoke(command, [str(self.results), *options])


@pytest.fixture
def bed(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("GITHUB_ACTIONS", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    space = f"test-{secrets.token_hex(4)}"
    pusher = Pusher(registry)
    digests = {
        "one": pusher.image(f"{space}/one", "rc", "one"),
        "two": pusher.index(f"{space}/two", "rc", {"amd64": "two", "arm64": "two on arm"}),
    }
    with in_front_of(registry) as proxy:
        yield Bed(proxy, pusher, tmp_path, space, digests)


def nothing_given(bed: Bed) -> bool:
    return bed.proxy.writes() == [] and set(bed.tags().values()) == {None}


def released(bed: Bed) -> bool:
    return bed.tags() == {f"{name}:{tag}": digest for name, digest in bed.digests.items() for tag in ("1.0", "stable")}


def test_released_tags_name_the_tested_digests(bed: Bed) -> None:
    old = bed.pusher.image(f"{bed.space}/one", "stable", "the last release")
    bed.write()
    result = bed.promote()
    one, two = bed.digests.values()
    assert result.stdout.splitlines() == [
        "release: yes",
        f"  given: {bed.ref('one')}:1.0 → {one} (new)",
        f"  given: {bed.ref('one')}:stable → {one} (was {old})",
        f"  given: {bed.ref('two')}:1.0 → {two} (new)",
        f"  given: {bed.ref('two')}:stable → {two} (new)",
    ]
    assert result.exit_code == 0
    assert released(bed)
    kind, content = bed.pusher.read(f"{bed.space}/two", "stable")
    assert (kind, digest_of(content)) == (INDEX, two)
    assert bed.proxy.pushes() == []


def test_again_writes_nothing(bed: Bed) -> None:
    bed.write()
    assert bed.promote().exit_code == 0
    bed.proxy.asked.clear()
    result = bed.promote()
    assert result.exit_code == 0
    assert result.stdout.count("  already: ") == 4
    assert bed.proxy.writes() == []


def test_a_dry_run_writes_nothing_at_all(bed: Bed) -> None:
    bed.write()
    result = bed.promote("--dry-run", "--attestation", str(bed.folder / "attestation.json"))
    assert result.exit_code == 0
    assert result.stdout.startswith("release: yes (dry run: nothing is written)\n  would give: ")
    assert result.stdout.count("would give") == 4
    assert nothing_given(bed)
    assert not (bed.folder / "attestation.json").exists()


@pytest.mark.parametrize(
    ("verdicts", "changes", "words"),
    [
        ({"two": Verdict.FAIL}, {}, "1 required cell fails: two@rtx4090"),
        ({"two": Verdict.HOST_FAILED}, {}, "1 required cell has no answer (machine failed): two@rtx4090"),
        ({}, {"started_at": NOW - timedelta(days=15)}, "two@rtx4090: its result is 15 days old"),
        ({}, {"started_at": NOW + timedelta(hours=2)}, "its result is from the future"),
        ({}, {"engine": EngineName.SIMULATED}, "its result is of the simulated engine"),
    ],
)
def test_a_no_writes_nothing(bed: Bed, verdicts: dict[str, Verdict], changes: dict[str, Any], words: str) -> None:
    bed.write(verdicts, **changes)
    result = bed.promote("--attestation", str(bed.folder / "attestation.json"))
    assert result.exit_code == 1
    assert result.stdout.startswith("release: no\n")
    assert words in result.stdout
    assert bed.proxy.asked == []  # the registry is not even asked
    assert nothing_given(bed)
    assert not (bed.folder / "attestation.json").exists()


def test_a_cell_without_a_result(bed: Bed) -> None:
    bed.write()
    (bed.results / "two@rtx4090.json").write_text("{")
    result = bed.promote()
    assert result.exit_code == 1
    assert "1 required cell did not run: two@rtx4090" in result.stdout
    assert "note: two@rtx4090.json: is not complete JSON" in result.stdout
    assert nothing_given(bed)


def test_a_tag_that_moved_in_between_holds_everything_back(bed: Bed) -> None:
    bed.write()
    new = bed.pusher.image(f"{bed.space}/two", "rc", "pushed after the test")
    result = bed.promote()
    assert result.exit_code == 1
    moved = f"two: {bed.ref('two')}:rc has moved: {bed.digests['two']} was tested, {new} is there now"
    assert result.stdout.splitlines() == ["release: no", f"  {moved}"]
    assert nothing_given(bed)


def failing(tag: str) -> Callable[[str, str], int | None]:
    return lambda method, path: 403 if method == "PUT" and path.endswith(f"/{tag}") else None


def test_a_failure_half_way_is_told_and_completed_later(bed: Bed) -> None:
    bed.write()
    bed.proxy.fault = failing("one/manifests/stable")
    path = bed.folder / "attestation.json"
    result = bed.promote("--attestation", str(path))
    one, two = bed.digests.values()
    assert result.stdout.splitlines() == [
        "release: incomplete",
        f"  given: {bed.ref('one')}:1.0 → {one} (new)",
        f"  failed: {bed.ref('one')}:stable → {one} (new)",
        f"  not given: {bed.ref('two')}:1.0 → {two} (new)",
        f"  not given: {bed.ref('two')}:stable → {two} (new)",
    ]
    assert isinstance(result.exception, InfrastructureError)
    assert int(result.exception.exit_code) == 3
    assert "1 of 4 tags were given before that" in str(result.exception)
    assert "run promote again" in result.exception.hint
    assert not path.exists()
    bed.proxy.fault = lambda method, path: None
    again = bed.promote("--attestation", str(path))
    assert again.exit_code == 0
    assert (again.stdout.count("already: "), again.stdout.count("given: ")) == (1, 3)
    assert released(bed)
    assert path.exists()


def test_json(bed: Bed) -> None:
    bed.write()
    old = bed.pusher.image(f"{bed.space}/two", "stable", "the last release")
    result = bed.promote("--json")
    document = json.loads(result.stdout)
    assert {name: document[name] for name in ("promote_version", "release", "dry_run", "reasons", "notes")} == {
        "promote_version": 1,
        "release": "yes",
        "dry_run": False,
        "reasons": [],
        "notes": [],
    }
    assert document["tags"][3] == {
        "image": "two",
        "target": f"{bed.ref('two')}:stable",
        "digest": bed.digests["two"],
        "before": old,
        "state": "given",
    }
    bed.proxy.fault = failing("two/manifests/stable")
    bed.pusher.image(f"{bed.space}/two", "stable", "somebody's")
    failed = bed.promote("--json")
    document = json.loads(failed.stdout)
    assert document["release"] == "incomplete"
    assert [tag["state"] for tag in document["tags"]] == ["already", "already", "already", "failed"]


def read_by_in_toto(statement: dict[str, Any]) -> tuple[Statement, Any]:
    """As in-toto's own library reads it; the fields of the predicate that are not in-toto's must be ours alone."""
    proto = ParseDict(statement, statement_pb2.Statement())
    found = Statement.copy_from_pb(proto)
    found.validate()
    predicate = dict(statement["predicate"])
    assert predicate.pop("cudaMatrix")
    return found, ParseDict(predicate, test_result_pb2.TestResult())


def test_the_attestation(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicate and subjects are what actions/attest takes, the statement is what it makes of them."""
    bed.write({"two": Verdict.WARN})
    github = {
        "ACTIONS": "true",
        "SERVER_URL": "https://ghes.example",
        "REPOSITORY": "o/r",
        "RUN_ID": "77",
        "RUN_ATTEMPT": "2",
        "SHA": "c" * 40,
        "EVENT_NAME": "push",
    }
    for name, value in github.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
    path = bed.folder / "attestation.json"
    assert bed.promote("--attestation", str(path)).exit_code == 0
    predicate = json.loads(path.read_text())
    assert (predicate["result"], predicate["url"]) == ("WARNED", "https://ghes.example/o/r/actions/runs/77/attempts/2")
    assert (predicate["passedTests"], predicate["warnedTests"]) == (["one@rtx4090"], ["two@rtx4090"])
    statement = json.loads((bed.folder / "attestation.statement.json").read_text())
    whole, result = read_by_in_toto(statement)
    assert whole.pb.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"
    assert (result.result, list(result.passed_tests), list(result.warned_tests)) == (
        "WARNED",
        ["one@rtx4090"],
        ["two@rtx4090"],
    )
    for row in result.configuration:
        ResourceDescriptor.copy_from_pb(row).validate()
    assert statement["predicate"] == predicate
    lines = (bed.folder / "attestation.subjects.txt").read_text().splitlines()
    named = dict(reversed(line.split("  ")) for line in lines)
    assert named == {bed.ref(name): digest.removeprefix("sha256:") for name, digest in bed.digests.items()}
    assert [[row["name"], row["digest"]["sha256"]] for row in statement["subject"]] == [
        list(row) for row in named.items()
    ]


def test_the_tags_of_a_configuration(bed: Bed) -> None:
    bed.write()
    config = bed.folder / "other.yml"
    config.write_text(
        "version: 1\n"
        "images:\n"
        f"  - {{id: one, ref: '{bed.ref('one')}:rc', release: ['{bed.ref('one')}:2.0']}}\n"
        f"  - {{id: two, ref: '{bed.ref('two')}:rc'}}\n"
        "runners: {rtx4090: {labels: [gpu], gpu: RTX 4090}}\n"
    )
    result = bed.promote("--config", str(config))
    assert (result.exit_code, result.stdout.count("given: ")) == (0, 1), result.stdout
    assert bed.pusher.digest(f"{bed.space}/one", "2.0") == bed.digests["one"]
    assert set(bed.tags().values()) == {None}


def test_nothing_to_promote(bed: Bed) -> None:
    write_plan(bed.results, make_plan())
    write_result(bed.results, make_result("good@rtx4090"))
    result = bed.promote()
    assert isinstance(result.exception, Exception)
    assert "no image has a release tag" in str(result.exception)
    assert "`release: [name:tag]`" in getattr(result.exception, "hint", "")


def test_a_registry_that_is_down(bed: Bed) -> None:
    bed.write()
    bed.proxy.fault = lambda method, path: 503
    result = bed.promote()
    assert isinstance(result.exception, InfrastructureError)
    assert result.stdout == ""
    assert "503" in str(result.exception)


def test_results_of_a_fork_are_never_promoted(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.write()
    event = bed.folder / "event.json"
    event.write_text(json.dumps({"workflow_run": {"head_repository": {"full_name": "stranger/repo"}}}))
    runner = {"ACTIONS": "true", "REPOSITORY": "o/r", "SHA": "1" * 40, "EVENT_NAME": "workflow_run"}
    for name, value in {**runner, "EVENT_PATH": str(event)}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    result = bed.promote()
    assert isinstance(result.exception, ConfigurationError)
    assert "code of a fork" in str(result.exception)
    assert set(bed.tags().values()) == {None}


def test_an_attestation_that_cannot_be_written_is_known_before_the_first_tag(bed: Bed) -> None:
    bed.write()
    (bed.folder / "file").write_text("")
    result = bed.promote("--attestation", str(bed.folder / "file" / "attestation.json"))
    assert isinstance(result.exception, ConfigurationError)
    assert set(bed.tags().values()) == {None}


def test_a_plan_that_asked_less_than_the_configuration_releases_nothing(bed: Bed) -> None:
    bed.write()
    image = "- {id: %s, ref: '%s:rc', release: ['%s:1.0']}"
    images = "\n  ".join(image % (name, bed.ref(name), bed.ref(name)) for name in bed.digests)
    runners = "runners: {rtx4090: {labels: [gpu], gpu: RTX 4090}}"
    config = bed.folder / "cuda-matrix.yml"
    config.write_text(f"version: 1\nimages:\n  {images}\n{runners}\npayload: {{profile: full}}\n")
    result = bed.promote("--config", str(config))
    assert result.exit_code == 1
    assert "the plan was made with another `payload:`" in result.stdout
    assert set(bed.tags().values()) == {None}
    config.write_text(config.read_text().replace("profile: full", "profile: standard"))
    assert bed.promote("--config", str(config)).exit_code == 0
