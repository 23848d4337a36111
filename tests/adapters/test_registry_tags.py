"""Giving tags, against Debian's docker-registry: what a tag names afterwards is read back by the test itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuda_matrix.adapters.registry_tags import Moved, RegistryTags, Source
from cuda_matrix.errors import InfrastructureError
from registry_bed import PASSWORD, USER, serving_registry
from registry_double import basic
from registry_proxy import Proxy, in_front_of
from registry_pushes import INDEX, Pusher, digest_of
from registry_tokens import serving_tokens

pytestmark = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="docker-registry is not installed: apt-get install docker-registry"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def proxy(address: str) -> Iterator[Proxy]:
    with in_front_of(address) as proxy:
        yield proxy


@pytest.fixture
def pusher(address: str) -> Pusher:
    return Pusher(address)


@pytest.fixture
def tags(tmp_path: Path) -> RegistryTags:
    """Nobody's login."""
    return RegistryTags({"HOME": str(tmp_path)})


def fit(answer: Source | Moved) -> Source:
    assert isinstance(answer, Source), answer
    return answer


def test_an_index_comes_out_byte_for_byte(proxy: Proxy, pusher: Pusher, tags: RegistryTags) -> None:
    digest = pusher.index("same/index", "rc", {"amd64": "a", "arm64": "b"})
    pusher.image("same/index", "stable", "old")
    ref = f"{proxy.address}/same/index"
    tags.give(fit(tags.tested(f"{ref}:rc", digest)), f"{ref}:stable")
    kind, content = pusher.read("same/index", "stable")
    assert (kind, digest_of(content)) == (INDEX, digest)
    assert content == pusher.read("same/index", "rc")[1]
    assert proxy.writes() == [("PUT", "/v2/same/index/manifests/stable")]
    assert tags.named(f"{ref}:stable") == digest


def test_into_another_repository_by_mounts_alone(proxy: Proxy, pusher: Pusher, tags: RegistryTags) -> None:
    digest = pusher.index("from/candidates", "rc", {"amd64": "c", "arm64": "d"})
    tested = fit(tags.tested(f"{proxy.address}/from/candidates:rc", digest))
    tags.give(tested, f"{proxy.address}/to/released:1.0")
    assert pusher.read("to/released", "1.0") == (INDEX, tested.body.content)
    children = [row["digest"] for row in json.loads(tested.body.content)["manifests"]]
    assert len(children) == 3  # the build record too
    for child in children:
        manifest = json.loads(pusher.read("to/released", child)[1])
        for blob in (manifest["config"], *manifest["layers"]):
            assert pusher.has_blob("to/released", blob["digest"])
    assert proxy.pushes() == []
    assert sum("mount=" in path for _, path in proxy.asked) == 6


def test_a_registry_that_mounts_nothing(proxy: Proxy, pusher: Pusher, tags: RegistryTags) -> None:
    """202: it wants an upload. Said with the way out; where the blobs are there already, nothing is missed."""
    digest = pusher.image("mount/from", "rc", "m")
    tested = fit(tags.tested(f"{proxy.address}/mount/from:rc", digest))
    proxy.fault = lambda method, path: 202 if "mount=" in path else None
    with pytest.raises(InfrastructureError, match=r"mounts nothing of mount/from here .* name a release tag in mount"):
        tags.give(tested, f"{proxy.address}/mount/to:1")
    assert pusher.digest("mount/to", "1") is None
    assert proxy.pushes() == []
    pusher.image("mount/to", "by-hand", "m")
    tags.give(tested, f"{proxy.address}/mount/to:1")
    assert pusher.digest("mount/to", "1") == digest


def test_a_tag_that_moved_is_told_with_both_digests(address: str, pusher: Pusher, tags: RegistryTags) -> None:
    old = pusher.image("moved/a", "rc", "1")
    new = pusher.image("moved/a", "rc", "2")
    ref = f"{address}/moved/a:rc"
    assert tags.tested(ref, old) == Moved(f"{ref} has moved: {old} was tested, {new} is there now")
    gone = f"{address}/moved/a:gone"
    assert tags.tested(gone, old) == Moved(f"{gone} is not in its registry any more; {old} was tested")
    assert fit(tags.tested(f"{address}/moved/a@{old}", old)).body.digest == old


def test_a_tag_that_is_not_there(address: str, tags: RegistryTags) -> None:
    assert tags.named(f"{address}/never/pushed:1") is None


def test_a_registry_that_is_down(tags: RegistryTags) -> None:
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1:9/a:1: dial tcp 127\.0\.0\.1:9: connection refused"):
        tags.named("127.0.0.1:9/a:1")


def test_a_failure_that_passes(proxy: Proxy, pusher: Pusher, tags: RegistryTags) -> None:
    """503 once on the mount (POST) and once on the manifest (PUT): tried again."""
    digest = pusher.image("flaky/from", "rc", "f")
    failed: set[str] = set()

    def once(method: str, path: str) -> int | None:
        kind = f"{method} {'mount' if 'mount=' in path else ''}"
        if method in {"GET", "HEAD"} or kind in failed:
            return None
        failed.add(kind)
        return 503

    tested = fit(tags.tested(f"{proxy.address}/flaky/from:rc", digest))
    proxy.fault = once
    tags.give(tested, f"{proxy.address}/flaky/to:1")
    assert failed == {"POST mount", "PUT "}
    assert pusher.digest("flaky/to", "1") == digest


def test_somebody_else_gives_the_same_tag(proxy: Proxy, pusher: Pusher, tags: RegistryTags) -> None:
    digest = pusher.image("race/a", "rc", "ours")

    def race(method: str, path: str) -> int | None:
        if method == "GET" and path.endswith("/manifests/stable"):
            pusher.image("race/a", "stable", "theirs")
        return None

    tested = fit(tags.tested(f"{proxy.address}/race/a:rc", digest))
    proxy.fault = race
    with pytest.raises(InfrastructureError, match=f"although {digest} was written: somebody else"):
        tags.give(tested, f"{proxy.address}/race/a:stable")


def test_a_manifest_of_an_unknown_kind_is_not_passed_on(
    address: str, pusher: Pusher, proxy: Proxy, tags: RegistryTags
) -> None:
    """The media type is the registry's word, and becomes a header of ours."""
    digest = pusher.image("odd/a", "rc", "odd")
    tested = fit(tags.tested(f"{address}/odd/a:rc", digest))
    odd = tested._replace(body=tested.body._replace(media_type="text/html"))
    with pytest.raises(InfrastructureError, match="'text/html', which is no image"):
        tags.give(odd, f"{proxy.address}/odd/a:stable")
    assert proxy.writes() == []


def write_login(folder: Path, address: str, user: str, password: str) -> RegistryTags:
    folder.mkdir(exist_ok=True)
    entry = {"auth": basic(user, password).removeprefix("Basic ")}
    (folder / "config.json").write_text(json.dumps({"auths": {address: entry}}))
    return RegistryTags({"DOCKER_CONFIG": str(folder)})


def test_tokens_for_both_repositories(tmp_path: Path) -> None:
    """The registry checks the scopes of its tokens: pushing needs `push` here, mounting `pull` there."""
    with (
        serving_tokens(tmp_path / "tokens") as tokens,
        serving_registry(tmp_path / "registry", token=tokens.settings) as address,
    ):
        tokens.accounts = {("releaser", "r1"): {"pull", "push"}, ("reader", "r2"): {"pull"}}
        scopes = [f"repository:{name}:pull,push" for name in ("a/from", "a/to", "a/new")]
        bearer = tokens.token(basic("releaser", "r1"), scopes)
        pusher = Pusher(address, {"Authorization": f"Bearer {bearer}"})
        digest = pusher.index("a/from", "rc", {"amd64": "t"})
        releaser = write_login(tmp_path / "releaser", address, "releaser", "r1")
        tokens.asked.clear()
        tested = fit(releaser.tested(f"{address}/a/from:rc", digest))
        assert tokens.asked == [["repository:a/from:pull"]]  # asking alone asks for no right to write
        releaser.give(tested, f"{address}/a/from:stable")
        releaser.give(tested, f"{address}/a/to:1.0")
        assert (pusher.digest("a/from", "stable"), pusher.digest("a/to", "1.0")) == (digest, digest)
        assert any({"repository:a/to:pull,push", "repository:a/from:pull"} <= set(asked) for asked in tokens.asked)

        with in_front_of(address) as proxy:  # registries that do not say what a write or a mount needs
            proxy.vague = True
            releaser = write_login(tmp_path / "releaser", proxy.address, "releaser", "r1")
            tested = fit(releaser.tested(f"{proxy.address}/a/from:rc", digest))
            releaser.give(tested, f"{proxy.address}/a/from:vague")
            releaser.give(tested, f"{proxy.address}/a/new:vague")
        assert (pusher.digest("a/from", "vague"), pusher.digest("a/new", "vague")) == (digest, digest)

        reader = write_login(tmp_path / "reader", address, "reader", "r2")
        tested = fit(reader.tested(f"{address}/a/from:rc", digest))
        with pytest.raises(InfrastructureError, match="unauthorized: authentication required") as refused:
            reader.give(tested, f"{address}/a/from:mine")
        assert "may push" in refused.value.hint
        assert pusher.digest("a/from", "mine") is None


def test_a_password(tmp_path: Path) -> None:
    with serving_registry(tmp_path / "registry", password=True) as address:
        pusher = Pusher(address, {"Authorization": basic(USER, PASSWORD)})
        digest = pusher.image("p", "rc", "p")
        tags = write_login(tmp_path / "login", address, USER, PASSWORD)
        tags.give(fit(tags.tested(f"{address}/p:rc", digest)), f"{address}/p:stable")
        assert pusher.digest("p", "stable") == digest
        stranger = write_login(tmp_path / "stranger", address, USER, "wrong")
        with pytest.raises(InfrastructureError, match="authentication required") as refused:
            stranger.named(f"{address}/p:stable")
        assert "wrong" not in str(refused.value)
