"""Owns whose name an image is asked for in: what `docker login` left in Docker's own configuration.

Must not know how a registry is asked (registry_client). A login is given out for its own registry only.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from docker import auth
from docker.errors import DockerException

if TYPE_CHECKING:
    from collections.abc import Mapping


class Login(NamedTuple):
    """Either name and password, or an identity token (https://distribution.github.io/distribution/spec/auth/oauth/)."""

    username: str = ""
    password: str = ""
    identity_token: str = ""


class LoginFailed(Exception):
    """Docker's configuration names a login that cannot be read."""


class Logins:
    """The logins of one account, credential helpers included; each helper is asked once per registry."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self._known: dict[str, Login | LoginFailed | None] = {}

    def of(self, registry: str) -> Login | None:
        """The login for `registry` as it stands in references (`docker.io`, `localhost:5000`); None: nobody's.

        Raises:
            LoginFailed: with the words of Docker, for example of a credential helper that is missing.
        """
        with self._lock:
            if registry not in self._known:
                self._known[registry] = self._read(registry)
            found = self._known[registry]
        if isinstance(found, LoginFailed):
            raise LoginFailed(str(found))
        return found

    def _read(self, registry: str) -> Login | LoginFailed | None:
        try:
            path = self._config_file()
            if path is None:
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # docker-py warns of a missing helper, and then says it as an error
                entry = auth.load_config(str(path), credstore_env=dict(self._environ)).resolve_authconfig(registry)
        except (DockerException, OSError, ValueError, TypeError, AttributeError) as error:
            return LoginFailed(f"error getting credentials - {error}")
        return _login(entry) if entry else None

    def _config_file(self) -> Path | None:
        # Not docker-py's own search: it would take the home folder's file where DOCKER_CONFIG has none.
        folder = self._environ.get("DOCKER_CONFIG") or str(Path(self._environ.get("HOME") or "~", ".docker"))
        path = Path(folder).expanduser() / "config.json"
        return path if path.is_file() else None


def _login(entry: dict[str, Any]) -> Login | None:
    """docker-py writes the keys in lower case from the file, and in title case from a credential helper."""
    given = {key.lower(): str(value) for key, value in entry.items() if value}
    login = Login(given.get("username", ""), given.get("password", ""), given.get("identitytoken", ""))
    return login if any(login) else None
