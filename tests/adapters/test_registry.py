"""The registry adapter against a real HTTP server that is faulty in the ways that registries are (registry_double)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cuda_matrix.adapters.registry import Registry
from cuda_matrix.adapters.registry_client import MANIFEST_LIMIT
from cuda_matrix.diagnose import Evidence, Fragment, diagnose
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.reference import load_reference
from registry_double import OCI_MANIFEST, Answer, RegistryDouble, basic, digest_of, errors, running

USER, PASSWORD = "cell", "s3cret"


@pytest.fixture
def double() -> Iterator[RegistryDouble]:
    with running() as server:
        yield server


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Nobody's login, and no Docker daemon."""
    return {
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path),
        "DOCKER_HOST": f"unix://{tmp_path}/none.sock",
        "PATH": os.environ["PATH"],
    }


def login(environ: dict[str, str], content: dict[str, Any]) -> None:
    Path(environ["DOCKER_CONFIG"], "config.json").write_text(json.dumps(content))


def with_password(environ: dict[str, str], address: str, password: str = PASSWORD) -> None:
    token = basic(USER, password).removeprefix("Basic ")
    login(environ, {"auths": {address: {"auth": token}}})


def config(cuda: str = "12.4.1", **settings: Any) -> dict[str, Any]:
    return {
        "os": "linux",
        "architecture": "amd64",
        "created": "2024-10-29T17:30:29.123456789Z",
        "config": {"Env": [f"CUDA_VERSION={cuda}", "PYTORCH_VERSION=2.5.1"], **settings},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }


def only(answers: dict[str, ImageFacts | str]) -> ImageFacts:
    (answer,) = answers.values()
    assert isinstance(answer, ImageFacts), answer
    return answer


def reason(answers: dict[str, ImageFacts | str]) -> str:
    (answer,) = answers.values()
    assert isinstance(answer, str), answer
    return answer


def cause(text: str) -> str:
    reference = load_reference()
    evidence = Evidence(stage="pull", fragments=(Fragment(where="registry", text=text),))
    return diagnose(evidence, reference.catalogue, reference.drivers).cause


def test_fifty_images_of_a_faulty_registry(double: RegistryDouble, environ: dict[str, str]) -> None:
    """Bar 3 of the issue: every kind of layer, index, login and fault; no layer is fetched; under 5 s in all."""
    host = double.address
    expected: dict[str, str] = {}
    for number in range(20):
        name = f"{host}/single/{'zstd' if number % 2 else 'gzip'}{number}:1"
        repository, _, tag = name.removeprefix(f"{host}/").partition(":")
        expected[name] = double.put_image(repository, tag, config(), layers=3, zstd=number % 2 == 1)
    for number in range(10):
        configs = {"linux/arm64": {**config(), "architecture": "arm64"}, "linux/amd64": config("12.1.0")}
        expected[f"{host}/multi/n{number}:v"] = double.put_index(
            f"multi/n{number}", "v", configs, docker=number % 2 == 0
        )
    for number in range(8):
        expected[f"{host}/private/n{number}:v"] = double.put_image(f"private/n{number}", "v", config(), docker=True)
        double.private[f"private/n{number}"] = (USER, PASSWORD)
    with_password(environ, host)
    once = {
        "bad-gateway": Answer(502),
        "internal-error": Answer(500),
        "unavailable": Answer(503, {"Retry-After": "1"}),
        "too-many": Answer(429, {"Retry-After": "1"}, errors("TOOMANYREQUESTS", "slow down")),
        "cut": Answer(cut=True),
    }
    for name, fault in once.items():
        expected[f"{host}/faulty/{name}:1"] = double.put_image(f"faulty/{name}", "1", config())
        double.faults[f"/v2/faulty/{name}/manifests/1"] = [fault]
    lies = {"header": "0" * 64, "manifest": "1" * 64, "child": "", "configuration": ""}
    refused = _lying(double, lies)
    cut = {
        f"{host}/broken/cut:1": Answer(cut=True),
        f"{host}/broken/short:1": Answer(body=b'{"schemaVersion": 2, "mani'),
    }
    for ref, fault in cut.items():
        double.always[f"/v2/{ref.removeprefix(host + '/').replace(':', '/manifests/')}"] = fault
    double.put_image("here", "1", config())
    refs = [*expected, *refused, *cut, f"{host}/here:gone"]
    assert len(refs) == 50

    begin = time.monotonic()
    answers = Registry(environ).facts(refs)
    took_s = time.monotonic() - begin

    assert {ref: getattr(answers[ref], "digest", answers[ref]) for ref in expected} == expected
    for ref in refused:
        assert "digest mismatch" in str(answers[ref])
    assert "truncated" in str(answers[f"{host}/broken/cut:1"])
    assert "no JSON" in str(answers[f"{host}/broken/short:1"])
    assert cause(str(answers[f"{host}/here:gone"])) == "image-not-found"
    single, multi = answers[f"{host}/single/gzip0:1"], answers[f"{host}/multi/n1:v"]
    assert isinstance(single, ImageFacts)
    assert isinstance(multi, ImageFacts)
    sizes = [len(double.blobs[digest]) for digest in _layers(double, "single/gzip0", "1")]
    assert (single.size_bytes, single.torch, single.cuda, single.platforms) == (
        sum(sizes),
        "2.5.1",
        "12.4.1",
        ("linux/amd64",),
    )
    assert (multi.cuda, multi.platforms) == ("12.1.0", ("linux/arm64", "linux/amd64"))
    assert double.layers_fetched() == 0
    assert double.asked["/token"] <= 8
    assert took_s < 5


def _lying(double: RegistryDouble, lies: dict[str, str]) -> list[str]:
    """Images of which one digest is a lie: the header's, the one asked for, an index's entry, the configuration's."""
    for name in lies:
        double.put_image(f"lying/{name}", "1", config(name))
    double.always["/v2/lying/header/manifests/1"] = Answer(
        headers={"Docker-Content-Digest": f"sha256:{lies['header']}"}
    )
    double.always[f"/v2/lying/manifest/manifests/sha256:{lies['manifest']}"] = Answer(
        body=double.manifests["/v2/lying/manifest/manifests/1"][1]
    )
    double.put_index("lying/child", "1", {"linux/amd64": config()})
    child = json.loads(double.manifests["/v2/lying/child/manifests/1"][1])["manifests"][0]["digest"]
    double.always[f"/v2/lying/child/manifests/{child}"] = Answer(
        body=double.manifests["/v2/lying/header/manifests/1"][1]
    )
    configuration = json.loads(double.manifests["/v2/lying/configuration/manifests/1"][1])["config"]["digest"]
    double.always[f"/v2/lying/configuration/blobs/{configuration}"] = Answer(body=json.dumps(config("99.9")).encode())
    tags = {name: f"@sha256:{lie}" if name == "manifest" else ":1" for name, lie in lies.items()}
    return [f"{double.address}/lying/{name}{tag}" for name, tag in tags.items()]


def _layers(double: RegistryDouble, repository: str, tag: str) -> list[str]:
    document = json.loads(double.manifests[f"/v2/{repository}/manifests/{tag}"][1])
    return [layer["digest"] for layer in document["layers"]]


def test_where_each_fact_comes_from(double: RegistryDouble, environ: dict[str, str]) -> None:
    ref = f"{double.address}/a/b:1"
    digest = double.put_image("a/b", "1", config(Entrypoint=["/start"], User="1000"))
    found = only(Registry(environ).facts([ref]))
    assert (found.ref, found.digest, found.entrypoint, found.user) == (ref, digest, ("/start",), "1000")
    assert found.origins["digest"] == "registry"
    assert found.origins["cuda"] == "env CUDA_VERSION"
    assert found.origins["size_bytes"] == "manifest"
    assert only(Registry(environ).facts([f"{double.address}/a/b@{digest}"])).digest == digest


def test_another_platform_of_the_index(double: RegistryDouble, environ: dict[str, str]) -> None:
    double.put_index("m", "1", {"linux/amd64": config("12.4.1"), "linux/arm64": config("12.6.3")})
    ref = f"{double.address}/m:1"
    assert only(Registry(environ, "linux/arm64").facts([ref])).cuda == "12.6.3"
    assert only(Registry(environ, "linux/riscv64").facts([ref])).cuda == "12.4.1"


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_logins(double: RegistryDouble, environ: dict[str, str], scheme: str) -> None:
    double.scheme = scheme
    double.private["p"] = (USER, PASSWORD)
    double.put_image("p", "1", config())
    ref = f"{double.address}/p:1"
    nobody = reason(Registry(environ).facts([ref]))
    with_password(environ, double.address, "wrong")
    wrong = reason(Registry(environ).facts([ref]))
    with_password(environ, double.address)
    assert only(Registry(environ).facts([ref])).torch == "2.5.1"
    assert (cause(nobody), cause(wrong)) == ("registry-auth", "registry-auth")
    assert ("incorrect username or password" if scheme == "bearer" else "authentication required") in wrong
    assert PASSWORD not in wrong


def test_a_credential_helper_and_an_identity_token(
    double: RegistryDouble, environ: dict[str, str], tmp_path: Path
) -> None:
    double.private["p"] = (USER, PASSWORD)
    double.put_image("p", "1", config())
    helper = tmp_path / "docker-credential-cmtest"
    login(environ, {"credHelpers": {double.address: "cmtest"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        for user, secret in ((USER, PASSWORD), ("<token>", PASSWORD)):
            answer = json.dumps({"ServerURL": double.address, "Username": user, "Secret": secret})
            helper.write_text(f"#!/bin/sh\nread -r server\nprintf '%s' '{answer}'\n")
            helper.chmod(0o755)
            assert only(Registry(environ).facts([f"{double.address}/p:1"])).torch == "2.5.1"


def test_a_helper_that_is_missing(double: RegistryDouble, environ: dict[str, str]) -> None:
    login(environ, {"credsStore": "not-there"})
    assert "error getting credentials" in reason(Registry(environ).facts([f"{double.address}/p:1"]))
    assert not double.asked


def test_a_login_goes_to_its_own_registry_only(double: RegistryDouble, environ: dict[str, str]) -> None:
    """Neither to another registry that asks for it, nor along a redirect."""
    with running() as other:
        double.scheme = other.scheme = "basic"
        for server in (double, other):
            server.private["p"] = (USER, PASSWORD)
            server.put_image("p", "1", config())
        with_password(environ, double.address)
        assert cause(reason(Registry(environ).facts([f"{other.address}/p:1"]))) == "registry-auth"
        away = f"http://{other.address}/v2/free/manifests/1"
        other.put_image("free", "1", config())
        manifest = json.loads(other.manifests["/v2/free/manifests/1"][1])
        double.faults["/v2/p/manifests/1"] = [Answer(401, {"WWW-Authenticate": 'Basic realm="double"'})]
        double.always["/v2/p/manifests/1"] = Answer(307, {"Location": away})
        double.blobs[manifest["config"]["digest"]] = other.blobs[manifest["config"]["digest"]]
        only(Registry(environ).facts([f"{double.address}/p:1"]))
        assert ("/v2/p/manifests/1", basic(USER, PASSWORD)) in double.authorizations
        assert {authorization for _, authorization in other.authorizations} == {""}


def test_netrc_is_not_read(double: RegistryDouble, environ: dict[str, str], tmp_path: Path) -> None:
    double.put_image("a", "1", config())
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", str(tmp_path / "netrc"))
        only(Registry(environ).facts([f"{double.address}/a:1"]))
    assert {authorization for _, authorization in double.authorizations} == {""}


def test_addresses_that_are_none(double: RegistryDouble, environ: dict[str, str]) -> None:
    """A redirect that cannot be parsed is an answer at once: oras-py would try it again for two minutes."""
    for name, place in (("six", "http://[::1/"), ("control", "https://\x01\x02"), ("file", "file:///etc/passwd")):
        double.always[f"/v2/{name}/manifests/1"] = Answer(302, {"Location": place}, b"")
    refs = [f"{double.address}/{name}:1" for name in ("six", "control", "file")]
    started = time.monotonic()
    answers = Registry(environ).facts(refs)
    assert time.monotonic() - started < 5
    assert all(isinstance(answer, str) for answer in answers.values())


def test_a_retry_after_that_is_no_time(double: RegistryDouble, environ: dict[str, str]) -> None:
    double.put_image("busy", "1", config())
    double.faults["/v2/busy/manifests/1"] = [Answer(429, {"Retry-After": "soon"}, b"{}")]
    ref = f"{double.address}/busy:1"
    assert isinstance(Registry(environ).facts([ref])[ref], ImageFacts)


def test_half_a_character_and_half_a_platform(double: RegistryDouble, environ: dict[str, str]) -> None:
    """What JSON can escape and no model, file or terminal takes; and a size that no float holds."""
    labels = {"cuda-matrix.gpu-memory": "9" * 400 + "g"}
    odd = config(Env=["NVIDIA_REQUIRE_CUDA=cuda>=12.4 \ud800", "PYTORCH_VERSION=2.5.1"], User="\udc80", Labels=labels)
    del odd["architecture"]
    double.put_image("odd", "1", odd)
    ref = f"{double.address}/odd:1"
    found = Registry(environ).facts([ref])[ref]
    assert isinstance(found, ImageFacts)
    assert (found.user, found.require["NVIDIA_REQUIRE_CUDA"], found.gpu_memory_bytes) == ("?", "cuda>=12.4 ?", None)
    assert found.platforms == ()
    found.model_dump_json()


def test_plain_http_leads_nowhere_but_home(double: RegistryDouble, environ: dict[str, str]) -> None:
    """A token server or redirect without TLS, on another machine, gets nothing."""
    double.private["p"] = (USER, PASSWORD)
    double.realm = "http://registry.example/token"
    with_password(environ, double.address)
    assert "only https is followed" in reason(Registry(environ).facts([f"{double.address}/p:1"]))
    double.always["/v2/a/manifests/1"] = Answer(307, {"Location": "http://192.0.2.1/"})
    assert "only https is followed" in reason(Registry(environ).facts([f"{double.address}/a:1"]))


def test_faults_that_stay(double: RegistryDouble, environ: dict[str, str]) -> None:
    faults = {
        "limit": Answer(
            429, {"Retry-After": "30"}, errors("TOOMANYREQUESTS", "You have reached your pull rate limit.")
        ),
        "down": Answer(503),
        "error": Answer(500, body=b"<html>oops</html>"),
        "denied": Answer(403, body=errors("DENIED", "requested access to the resource is denied")),
        "teapot": Answer(418),
    }
    for name, fault in faults.items():
        double.always[f"/v2/{name}/manifests/1"] = fault
    begin = time.monotonic()
    answers = Registry(environ).facts([f"{double.address}/{name}:1" for name in faults])
    assert time.monotonic() - begin < 5, "half a minute is not waited for, nor does oras-py try again"
    text = {name: str(answers[f"{double.address}/{name}:1"]) for name in faults}
    assert text["limit"] == "toomanyrequests: You have reached your pull rate limit. (429 Too Many Requests)"
    assert text["teapot"].startswith("received unexpected HTTP status: 418")
    assert [cause(text[name]) for name in ("limit", "down", "error", "denied")] == [
        "registry-rate-limit",
        "registry-unreachable",
        "registry-unreachable",
        "registry-auth",
    ]


def test_documents_that_are_too_large_or_something_else(double: RegistryDouble, environ: dict[str, str]) -> None:
    double.put_image("big", "1", config())
    double.always["/v2/big/manifests/1"] = Answer(body=b" " * (MANIFEST_LIMIT + 1))
    chart = {"mediaType": OCI_MANIFEST, "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}}
    chart["config"] |= {"digest": digest_of(b"{}"), "size": 2}  # type: ignore[operator]
    documents = {
        "chart": chart,
        "old": {"schemaVersion": 1, "fsLayers": []},
        "both": {"manifests": [], "layers": [], "config": {}},
        "empty": {"manifests": []},
        "list": [],
        "huge": {
            **chart,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b"")},
        },
    }
    documents["huge"]["config"]["size"] = 1 << 40  # type: ignore[index, call-overload]
    for name, document in documents.items():
        double._name(name, "1", OCI_MANIFEST, json.dumps(document).encode())
    answers = Registry(environ).facts([f"{double.address}/{name}:1" for name in ("big", *documents)])
    words = {name: str(answers[f"{double.address}/{name}:1"]) for name in ("big", *documents)}
    assert "sends more than" in words["big"]
    assert "not a container image" in words["chart"]
    assert "schema 1" in words["old"]
    assert "at once" in words["both"]
    assert "names no image" in words["empty"]
    assert "no JSON object" in words["list"]
    assert "at most" in words["huge"]


def test_nobody_there(environ: dict[str, str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    refs = [f"127.0.0.1:{port}/a:{number}" for number in range(20)]
    answers = Registry(environ).facts([*refs, "registry.invalid/a:1"])
    assert {cause(str(answer)) for answer in answers.values()} == {"registry-unreachable"}


def test_a_daemon_that_knows_a_way(environ: dict[str, str]) -> None:
    """What cannot be reached from here is asked of the Docker daemon: its digest, no more. A refusal is not."""
    asked: list[str] = []

    class Daemon(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer: dict[str, Any] = {"ApiVersion": "1.45", "Version": "27.0.0"}
            if "/distribution/" in self.path:
                answer = {"Descriptor": {"digest": digest_of(b"mirrored"), "size": 5, "mediaType": OCI_MANIFEST}}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Daemon)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        environ["DOCKER_HOST"] = f"tcp://127.0.0.1:{server.server_address[1]}"
        with running() as double:
            refs = ["registry.invalid/a:1", f"{double.address}/gone:1"]
            answers = Registry(environ).facts(refs)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    found = answers[refs[0]]
    assert isinstance(found, ImageFacts)
    assert (found.digest, found.origins) == (digest_of(b"mirrored"), {"digest": "Docker daemon"})
    assert cause(str(answers[refs[1]])) == "image-not-found"
    assert [path for path in asked if "/distribution/" in path] == ["/v1.45/distribution/registry.invalid/a:1/json"]


def test_the_budget(environ: dict[str, str]) -> None:
    """Nothing is asked when the time is used up."""
    with running() as double:
        double.put_image("slow", "1", config())
        begin = time.monotonic()
        answer = reason(Registry(environ, budget_s=-1).facts([f"{double.address}/slow:1"]))
        assert time.monotonic() - begin < 1
        assert cause(answer) == "registry-unreachable"
        assert not double.asked


def test_a_registry_that_drips(double: RegistryDouble, environ: dict[str, str]) -> None:
    """Every packet comes in time, and the whole never: the budget ends it."""
    double.put_image("slow", "1", config())
    double.always["/v2/slow/manifests/1"] = Answer(drip_s=0.05)
    begin = time.monotonic()
    answer = reason(Registry(environ, budget_s=0.4).facts([f"{double.address}/slow:1"]))
    assert time.monotonic() - begin < 2
    assert cause(answer) == "registry-unreachable"


def test_a_registry_that_never_ends_its_headers(environ: dict[str, str]) -> None:
    """Every byte comes in time for the socket, and the answer never begins: the question is given up."""
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while not stop.wait(0.05):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        begin = time.monotonic()
        registry = Registry(environ, budget_s=0.2)
        ref = f"127.0.0.1:{listener.getsockname()[1]}/slow:1"
        answer = reason(registry.facts([ref]))
        stop.set()
        thread.join()
    assert time.monotonic() - begin < 5
    assert cause(answer) == "registry-unreachable"
    assert registry.out_of_reach == {ref}


def test_references_that_are_none(environ: dict[str, str]) -> None:
    assert "must be in lower case" in reason(Registry(environ).facts(["Torch:1"]))


def test_the_real_registry(environ: dict[str, str], tmp_path: Path) -> None:
    """Debian's docker-registry, with a password."""
    binary = shutil.which("docker-registry")
    if binary is None:
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    hashing = "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))"  # bcrypt, the one hash that registries take
    hashed = subprocess.run(["perl", "-e", hashing, PASSWORD], capture_output=True, text=True, check=True).stdout
    (tmp_path / "htpasswd").write_text(f"{USER}:{hashed}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "storage")}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(settings))
    process = subprocess.Popen([binary, "serve", str(tmp_path / "registry.yml")], stderr=subprocess.DEVNULL)
    try:
        with running() as double:
            single = double.put_image("real/one", "1", config())
            multi = double.put_index("real/many", "1", {"linux/amd64": config(), "linux/arm64": config()}, record=False)
            _push(double, address)
        refs = [f"{address}/real/one:1", f"{address}/real/many:1", f"{address}/real/one:gone"]
        assert cause(reason(Registry(environ).facts(refs[:1]))) == "registry-auth"
        with_password(environ, address)
        answers = Registry(environ).facts(refs)
    finally:
        process.terminate()
        process.wait()
    assert [getattr(answers[ref], "digest", None) for ref in refs] == [single, multi, None]
    assert cause(str(answers[refs[2]])) == "image-not-found"


def _push(double: RegistryDouble, address: str) -> None:
    """What stands in the double, into a real registry."""

    def ask(method: str, url: str, body: bytes = b"", media: str = "application/octet-stream") -> str:
        request = urllib.request.Request(url, data=body, method=method)
        request.add_header("Authorization", basic(USER, PASSWORD))
        request.add_header("Content-Type", media)
        with urllib.request.urlopen(request, timeout=5) as response:
            return str(response.headers.get("Location", ""))

    deadline = time.monotonic() + 20
    while True:
        try:
            ask("GET", f"http://{address}/v2/")
            break
        except OSError:
            assert time.monotonic() < deadline, "docker-registry does not answer"
            time.sleep(0.1)
    # Images before the indexes that name them.
    for path, (media, content) in sorted(double.manifests.items(), key=lambda item: "index" in item[1][0]):
        repository = path.removeprefix("/v2/").rpartition("/manifests/")[0]
        document = json.loads(content)
        for blob in [document["config"], *document["layers"]] if "layers" in document else []:
            place = ask("POST", f"http://{address}/v2/{repository}/blobs/uploads/")
            ask("PUT", f"{place}&digest={blob['digest']}", double.blobs[blob["digest"]])
        ask("PUT", f"http://{address}{path}", content, media)
