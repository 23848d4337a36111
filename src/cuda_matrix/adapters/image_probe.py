"""Owns looking for one image: does the daemon hold it, and what is known of it without a pull.

Must not know what follows from a fact (predict).
"""

from __future__ import annotations

import json
import platform
import re
from typing import TYPE_CHECKING, Any

from cuda_matrix.examination import HeldImage
from cuda_matrix.image_config import facts_of_image
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.image_manifest import Descriptor, Manifest, NotAnImage, read_configuration
from cuda_matrix.image_reference import problem_of
from cuda_matrix.machine_names import platform_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cuda_matrix.adapters.programs import Programs

REGISTRY_BUDGET_S = 8.0
_NO_BLOB = "sha256:" + "0" * 64
OFFLINE = "no registry was asked (--offline)"
_ABSENT = re.compile(r"no such image|image not known", re.IGNORECASE)  # Docker's words, and Podman's


def held(ref: str, programs: Programs) -> HeldImage:
    """What Docker has of the image. That it has none is its own word; whatever else it says is "not seen"."""
    answer = programs.ask("docker", "image", "inspect", "--format", "{{json .}}", "--", ref)
    if not answer.good:
        return HeldImage(why="" if _ABSENT.search(answer.err) else answer.trouble)
    try:
        said = json.loads(answer.out)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return HeldImage(why="`docker image inspect` gives no data")
    size = said.get("Size")
    return HeldImage(
        facts=_facts(ref, said),
        unpacked_bytes=size if isinstance(size, int) else None,
        pinned=_pinned(said.get("RepoDigests")) or ref,
    )


def _pinned(digests: object) -> str | None:
    """The image by a digest that it was pulled with. By its tag, an engine would ask the registry what that is now."""
    names = digests if isinstance(digests, list) else []
    return next((name for name in names if isinstance(name, str) and "@" in name and not problem_of(name)), None)


def asked(ref: str, environ: Mapping[str, str], *, offline: bool) -> dict[str, object]:
    """`registry`: facts, or the reason why there are none."""
    if offline:
        return {"registry": OFFLINE}
    from cuda_matrix.adapters.registry import Registry  # noqa: PLC0415 - heavy, and only for a verb with an image

    here = f"linux/{platform_name(platform.machine())}"  # what `docker pull` would take on this machine
    return {"registry": Registry(environ, here, REGISTRY_BUDGET_S).facts([ref])[ref]}


def _facts(ref: str, said: dict[str, Any]) -> ImageFacts:
    """Docker's own form of a configuration holds the same things under other names."""
    document = {
        "architecture": said.get("Architecture"),
        "os": said.get("Os"),
        "created": said.get("Created"),
        "config": said.get("Config"),
    }
    try:
        configuration = read_configuration(json.dumps(document).encode())
    except NotAnImage:
        return ImageFacts(ref=ref)
    # Docker tells the unpacked size alone; without layers none is known as they are pulled.
    without_layers = Manifest(config=Descriptor(digest=_NO_BLOB, size=0))
    return facts_of_image(without_layers, configuration).model_copy(update={"ref": ref, "size_bytes": None})
