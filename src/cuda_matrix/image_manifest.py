"""Owns what a registry's documents look like: index, manifest, image configuration.

Must not know how they are fetched (adapters/registry_client) or what follows from them (image_config).
Formats: https://github.com/opencontainers/image-spec (image-index.md, manifest.md, config.md), Docker's v2 schema 2.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from cuda_matrix.model import Sha256

_CONFIGURATIONS = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
_Document = TypeVar("_Document", bound=BaseModel)
_DATE = TypeAdapter(datetime)
_PLATFORMS = 32  # of one image that are kept
_LONGEST = 100  # characters of a foreign word in one of our sentences


class NotAnImage(ValueError):
    """The document is broken, or is of something else; the text says what."""


def _empty_list(value: Any) -> Any:
    return [] if value is None else value


def _empty_dict(value: Any) -> Any:
    return {} if value is None else value


def _text(value: Any) -> Any:
    return "" if value is None else value


def _date(value: Any) -> datetime | None:
    """A date that cannot be read is not known; it makes no image unusable."""
    try:
        date = _DATE.validate_python(value)
    except ValidationError:
        return None
    return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date


# Docker writes `null` where OCI leaves a key out.
_Text = Annotated[str, BeforeValidator(_text)]
_Word = Annotated[str, BeforeValidator(_text), Field(max_length=40)]
_Strings = Annotated[tuple[str, ...], BeforeValidator(_empty_list)]


class _Foreign(BaseModel):
    """What others wrote: keys that are not known here are none of our business."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Platform(_Foreign):
    """Of one entry of an index."""

    os: _Word = ""
    architecture: _Word = ""
    variant: _Word = ""

    @property
    def name(self) -> str:
        """os/architecture[/variant], as in `docker pull --platform`; arm64's only variant is left out."""
        variant = "" if self.architecture == "arm64" and self.variant == "v8" else self.variant
        return "/".join(filter(None, (self.os, self.architecture, variant)))


class Descriptor(_Foreign):
    """One blob or manifest that another document names."""

    digest: Sha256
    size: int = Field(ge=0, le=1 << 50, description="Bytes.")
    media_type: str = Field(default="", alias="mediaType")
    platform: Platform | None = None
    urls: _Strings = Field(default=(), description="Where a layer lies that no registry may hold.")


class Manifest(_Foreign):
    """One image for one platform."""

    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], BeforeValidator(_empty_list)] = ()


class Index(_Foreign):
    """One name for several platforms."""

    manifests: Annotated[tuple[Descriptor, ...], BeforeValidator(_empty_list)] = ()

    @property
    def images(self) -> tuple[Descriptor, ...]:
        """Without what is attached to images: signatures and build records have the platform unknown/unknown."""
        return tuple(row for row in self.manifests if row.platform is None or row.platform.os not in {"", "unknown"})

    @property
    def platforms(self) -> tuple[str, ...]:
        """Each once, in the index's order."""
        return tuple(dict.fromkeys(row.platform.name for row in self.images if row.platform))[:_PLATFORMS]

    def chosen(self, platform: str) -> Descriptor:
        """The entry for `platform`, for example linux/amd64; where there is none, the first.

        Raises:
            NotAnImage: the index names no image at all.
        """
        fits = [row for row in self.images if row.platform and row.platform.name == platform]
        found = next(iter(fits or self.images), None)
        if found is None:
            msg = "the index names no image"
            raise NotAnImage(msg)
        return found


class Settings(_Foreign):
    """How a container of the image starts."""

    env: _Strings = Field(default=(), alias="Env")
    labels: Annotated[dict[str, str], BeforeValidator(_empty_dict)] = Field(default={}, alias="Labels")
    entrypoint: _Strings = Field(default=(), alias="Entrypoint")
    user: _Text = Field(default="", alias="User")

    @property
    def variables(self) -> dict[str, str]:
        """Name → value; the last wins, as in a process."""
        return {name: value for name, _, value in (row.partition("=") for row in self.env)}


class Step(_Foreign):
    """One line of the build."""

    created_by: _Text = ""


class Configuration(_Foreign):
    """The image's configuration."""

    os: _Word = ""
    architecture: _Word = ""
    variant: _Word = ""
    created: Annotated[datetime | None, BeforeValidator(_date)] = None
    config: Annotated[Settings, BeforeValidator(_empty_dict)] = Settings()
    history: Annotated[tuple[Step, ...], BeforeValidator(_empty_list)] = ()

    @property
    def platform(self) -> str:
        """As an index would name it."""
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant).name


def read_manifest(body: bytes) -> Manifest | Index:
    """What a tag or digest names.

    Raises:
        NotAnImage: broken, too old, or no container image.
    """
    document = _json(body, "manifest")
    if "fsLayers" in document or document.get("schemaVersion") == 1:
        msg = "the manifest has Docker's schema 1, which registries and engines have given up"
        raise NotAnImage(msg)
    if "manifests" in document and ("layers" in document or "config" in document):
        # https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh
        msg = "the manifest is an index and an image at once"
        raise NotAnImage(msg)
    if "manifests" in document:
        return _checked(Index, document, "index")
    manifest = _checked(Manifest, document, "manifest")
    if manifest.config.media_type not in _CONFIGURATIONS:
        msg = f"not a container image: its configuration is {manifest.config.media_type[:_LONGEST]!r}"
        raise NotAnImage(msg)
    return manifest


def named_by(body: bytes) -> tuple[tuple[Descriptor, ...], tuple[Descriptor, ...]]:
    """(manifests, blobs) that a manifest or index names, whatever they are: without one of them it is incomplete.

    Raises:
        NotAnImage: broken.
    """
    document = _json(body, "manifest")
    if "manifests" in document:
        return _checked(Index, document, "index").manifests, ()
    manifest = _checked(Manifest, document, "manifest")
    return (), (manifest.config, *(layer for layer in manifest.layers if not layer.urls))


def read_configuration(body: bytes) -> Configuration:
    """The configuration that a manifest names.

    Raises:
        NotAnImage: broken.
    """
    return _checked(Configuration, _json(body, "configuration"), "configuration")


def _json(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = _without_surrogates(json.loads(body), body)
    except (ValueError, RecursionError) as error:
        msg = f"the {what} is no JSON ({len(body)} bytes): {str(error)[:_LONGEST]}"
        raise NotAnImage(msg) from error
    if not isinstance(document, dict):
        msg = f"the {what} is no JSON object"
        raise NotAnImage(msg)
    return document


def _without_surrogates(document: Any, body: bytes) -> Any:
    r"""JSON may escape half a character (`\ud800`), which no terminal, file or model takes: it becomes a `?`."""
    if b"\\ud" not in body.lower():
        return document
    return json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))


def _checked(form: type[_Document], document: dict[str, Any], what: str) -> _Document:
    try:
        return form.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        msg = f"the {what} is malformed: {place[:_LONGEST]}: {first['msg'][:_LONGEST]}"
        raise NotAnImage(msg) from error
