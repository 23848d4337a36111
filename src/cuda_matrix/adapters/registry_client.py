"""Owns the conversation with one OCI registry: login, patience, limits, and whether a body is what its digest says.

Must not know what an image is made of (image_manifest) or what follows from it (image_config).

oras-py (https://oras-project.github.io/oras-py/) makes the URLs and speaks the token protocol. It is given a session
whose waiting, limits and plain-http rule are ours; nothing that a registry answers is trusted.
Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import oras.container
import oras.provider
import requests
from oras.auth import TokenAuth
from oras.auth.utils import parse_auth_header
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import DecodeError, InvalidHeader, MaxRetryError, ProtocolError, ReadTimeoutError, ResponseError

from cuda_matrix.adapters.registry_refusal import (
    WORDS_LIMIT,
    OutOfReach,
    Refused,
    innermost,
    network_words,
    refusal,
    too_late,
)

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from cuda_matrix.adapters.registry_login import Login

MANIFEST_LIMIT = 4 << 20  # bytes; what registries themselves accept
CONFIG_LIMIT = 8 << 20  # bytes
RETRY_AFTER_LIMIT_S = 10  # a registry that asks for more patience gets none: its words are the answer
_TIMEOUT_S = (5, 10)  # to connect, and between two packets
_TRIES = 3
_CHUNK = 1 << 16
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


_DOCKER_HUB = {"docker.io": "registry-1.docker.io"}  # the host behind the name


def host_of(registry: str) -> str:
    """The host that speaks for a registry as references name it."""
    return _DOCKER_HUB.get(registry, registry)


class Body(NamedTuple):
    """What was read, with its true digest; `media_type` is what the registry calls it."""

    content: bytes
    digest: str
    media_type: str = ""


class RegistryClient:
    """One repository of one registry. May be used by several threads.

    Args:
        host: With port; `registry-1.docker.io` for docker.io.
        repository: For example `pytorch/pytorch`.
        login: Sent to this registry and to the token server that it names, and nowhere else.
        until: On `time.monotonic`'s scale: nothing is waited for beyond it.
        scopes: What a token is asked for beside what the registry says that it needs.
    """

    def __init__(
        self, host: str, repository: str, login: Login | None, until: float, scopes: tuple[str, ...] = ()
    ) -> None:
        local = is_local(host)
        host = f"{host}:80" if host == "localhost" else host  # oras-py would read a bare word as a folder
        self._place = oras.container.Container(f"{host}/{repository}")
        self._client = oras.provider.Registry(hostname=host, insecure=local)
        self._until = until
        self._base = f"{self._client.prefix}://{host}/v2/"
        session = _Session(self._base, local=local, until=until)
        self._client.session = session
        self._client.auth = _Login(session, login, scopes)

    def close(self) -> None:
        """Hang up."""
        self._client.session.close()

    def manifest(self, tag_or_digest: str) -> Body:
        """Manifest or index, by tag or digest.

        Raises:
            Refused: with the registry's own words, or because the digest does not fit the content.
        """
        response = self._ask("GET", self._place.manifest_url(tag_or_digest))
        told = response.headers.get("Docker-Content-Digest", "")
        # Some proxies drop the header; a tag's digest is then what the content says.
        digest = tag_or_digest if ":" in tag_or_digest else told
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return _verified(response.content, digest, f"manifest {tag_or_digest}")._replace(media_type=kind)

    def blob(self, digest: str, size_bytes: int) -> bytes:
        """A small blob, that is a configuration; never a layer.

        Raises:
            Refused: as above, or because it is larger than a configuration may be.
        """
        if size_bytes > CONFIG_LIMIT:
            msg = f"the configuration is said to have {size_bytes} bytes; at most {CONFIG_LIMIT} are read"
            raise Refused(msg)
        response = self._ask("GET", self._place.get_blob_url(digest))
        return _verified(response.content, digest, "configuration").content

    def _ask(self, method: str, place: str, content: bytes | None = None, kind: str = "") -> requests.Response:
        url = f"{self._client.prefix}://{place}"
        if time.monotonic() > self._until:
            raise OutOfReach(too_late(place.partition("/")[0]))
        headers = {"Content-Type": kind} if kind else {"Accept": _ACCEPT}
        response: requests.Response = self._client.do_request(url, method, data=content, headers=headers)
        if not response.ok:
            raise refusal(response)
        return response


def is_local(host: str) -> bool:
    """Hosts that Docker reaches over plain http without being told: localhost and 127.0.0.0/8, ::1.

    https://docs.docker.com/reference/cli/dockerd/#insecure-registries
    """
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _verified(content: bytes, digest: str, what: str) -> Body:
    true = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest and digest != true:
        msg = f"digest mismatch: the registry says {digest[:80]}, but the {what} it sent is {true}"
        raise Refused(msg)
    return Body(content, true)


class _Session(requests.Session):
    """What oras-py sends its requests through."""

    def __init__(self, base: str, *, local: bool, until: float) -> None:
        super().__init__()
        self._base = base
        self.max_redirects = 5
        # A session with an `auth` of its own does not read ~/.netrc, which would overwrite the bearer token.
        self.auth = _leave_alone
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(local=local, until=until)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """A response that is good, or a 401 or 403 of the registry, which oras-py answers with a login."""
        try:
            response = super().request(method, url, *args, **kwargs)
        except requests.RequestException as error:
            raise OutOfReach(network_words(error)) from error
        except ValueError as error:  # an address that the registry names and that is none
            msg = f"the registry sends us to an address that is none: {str(error)[:WORDS_LIMIT]}"
            raise Refused(msg) from error
        if response.ok or (
            response.status_code in {_UNAUTHORIZED, _FORBIDDEN} and str(response.url).startswith(self._base)
        ):
            return response
        raise refusal(response)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """On a redirect: a login never follows to another host, and none is taken from ~/.netrc."""
        if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):
            prepared_request.headers.pop("Authorization", None)


def _leave_alone(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Adapter(HTTPAdapter):
    """Every hop, redirects and token server included: patience, size, and plain http at home only."""

    def __init__(self, *, local: bool, until: float) -> None:
        self._local, self._until = local, until
        super().__init__(pool_maxsize=8, max_retries=_patience(until))

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ARG002
        """The response with its whole body, which is bounded."""
        parts = urlsplit(str(request.url))
        if parts.scheme != "https" and not (self._local and is_local(parts.netloc.rpartition("@")[2])):
            msg = f"the registry sends us to {parts.scheme}://{parts.netloc}: only https is followed"
            raise Refused(msg)
        given: dict[str, Any] = {name: kwargs.get(name) for name in ("cert", "proxies")}
        given["verify"] = kwargs.get("verify", True)
        for last in (False, True):
            response = super().send(request, stream=True, timeout=_TIMEOUT_S, **given)
            try:
                # requests keeps what was read here; nothing later reads from the socket.
                vars(response).update(_content=self._read(response), _content_consumed=True)
            except ReadTimeoutError as error:
                raise OutOfReach(too_late(parts.netloc)) from error
            except (ProtocolError, DecodeError) as error:
                if last:
                    msg = f"the answer is truncated: {innermost(error)}"
                    raise Refused(msg) from error
            else:
                return response
            finally:
                response.close()
        raise AssertionError  # unreachable

    def _read(self, response: requests.Response) -> bytes:
        limit = CONFIG_LIMIT if "/blobs/" in str(response.request.url) else MANIFEST_LIMIT
        parts: list[bytes] = []
        # What has come, not a full buffer: else a server that drips would never let us look at the clock.
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            parts.append(chunk)
            limit -= len(chunk)
            if limit < 0:
                msg = f"{response.request.url} sends more than a manifest or configuration may have"
                raise Refused(msg)
            if time.monotonic() > self._until:
                raise OutOfReach(too_late(urlsplit(str(response.request.url)).netloc))
        return b"".join(parts)


def _patience(until: float) -> Retry:
    return _Patience(
        until=until,
        total=_TRIES,
        connect=1,
        read=1,
        backoff_factor=0.3,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,  # POST too: a token, or the mount of a blob, may be asked for twice
        raise_on_status=False,  # the last answer's own words are the reason
    )


class _Patience(Retry):
    """urllib3's retries, without a wait that would be too long to be worth it."""

    def __init__(self, *args: Any, until: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._until = until

    def new(self, **kwargs: Any) -> _Patience:
        return super().new(until=self._until, **kwargs)

    def parse_retry_after(self, retry_after: str) -> float:
        """In seconds; a header that is neither a number nor a date asks for nothing."""
        try:
            return super().parse_retry_after(retry_after)
        except InvalidHeader:
            return 0.0

    def increment(  # type: ignore[override] # urllib3's private arguments are only passed on
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        **kwargs: Any,
    ) -> _Patience:
        wait_s = (self.get_retry_after(response) if response is not None else None) or 0
        if wait_s > RETRY_AFTER_LIMIT_S or time.monotonic() + wait_s > self._until:
            raise MaxRetryError(kwargs["_pool"], str(url), error or ResponseError("not worth waiting for"))
        return super().increment(method, url, response, error, **kwargs)


class _Login(TokenAuth):  # type: ignore[misc] # oras-py has no types
    """oras-py's token protocol; and Basic, and identity tokens, which it does not have."""

    prefix = "https"
    token: str | None = None
    _tls_verify = True

    def __init__(self, session: requests.Session, login: Login | None, scopes: tuple[str, ...]) -> None:
        super().__init__()
        self.session = session
        self._login = login
        self._scopes = scopes
        if login is not None and login.username:
            self.set_basic_auth(login.username, login.password)

    def authenticate_request(
        self,
        original: requests.Response,
        headers: dict[str, str],
        refresh: bool = False,
    ) -> tuple[dict[str, str], bool]:
        """Called by oras-py after a 401 or 403: the headers of a second try.

        Raises:
            Refused: with the words of the registry or of its token server.
        """
        sent = original.request.headers.get("Authorization", "")
        challenge = original.headers.get("Www-Authenticate", "")
        bearer = re.search(r"\bbearer\s+(.{1,4000}?)(?=,\s*basic\s|$)", challenge, re.IGNORECASE)
        if bearer and (not sent.startswith("Bearer ") or not refresh):
            self.token = self._token(bearer[1]) if sent else self.token or self._token(bearer[1])
            return {**headers, "Authorization": f"Bearer {self.token}"}, True
        if not bearer and self._login and self._login.username and not sent and "basic" in challenge.lower():
            return {**headers, "Authorization": f"Basic {self._basic_auth}"}, True
        raise refusal(original)

    def _token(self, challenge: str) -> str:
        asked = parse_auth_header(challenge)
        if not asked.realm:
            msg = "unauthorized: the registry names no token server"
            raise Refused(msg)
        # https://distribution.github.io/distribution/spec/auth/token/: one `scope` each, as many as there are.
        asked.scope = list(dict.fromkeys([*(asked.scope or "").split(), *self._scopes]))
        try:
            token = self._exchange(asked) if self._login and self._login.identity_token else self.request_token(asked)
        except (ValueError, AttributeError) as error:
            msg = f"unauthorized: the token server {asked.realm[:200]} does not answer in JSON"
            raise Refused(msg) from error
        if not isinstance(token, str) or not token:
            msg = f"unauthorized: the token server {asked.realm[:200]} gives no token"
            raise Refused(msg)
        return token

    def _exchange(self, asked: Any) -> str | None:
        """https://distribution.github.io/distribution/spec/auth/oauth/: what `az acr login` and others leave."""
        assert self._login is not None
        form = {
            "grant_type": "refresh_token",
            "service": asked.service or "",
            "scope": " ".join(asked.scope),
            "client_id": "cuda-matrix",
            "refresh_token": self._login.identity_token,
        }
        answer = self.session.post(asked.realm, data=form).json()
        token: str | None = answer.get("access_token")
        return token
