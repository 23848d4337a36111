"""image-schemes.yml against the registries: which forms of tag does no grammar read, which months are missing?"""

from __future__ import annotations

import json
import re
from urllib.parse import urljoin

from facts_report import Outcome
from facts_web import Page, UnreachableError, Web

from cuda_matrix.image_schemes import SchemeTable

# Repositories that can be asked: the registry's address, the repository, the name as users write it.
REPOSITORIES = (
    ("https://registry-1.docker.io", "pytorch/pytorch", "pytorch/pytorch"),
    ("https://registry-1.docker.io", "nvidia/cuda", "nvidia/cuda"),
    ("https://nvcr.io", "nvidia/pytorch", "nvcr.io/nvidia/pytorch"),
)
_PAGES = 60
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def check(web: Web, table: SchemeTable) -> Outcome:
    """Each form of tag (its digits replaced by N) that no grammar reads, and each month of NVIDIA's that has no row."""
    outcome = Outcome("image-schemes")
    for registry, repository, name in REPOSITORIES:
        try:
            tags = _tags(web, registry, repository)
        except UnreachableError as error:
            outcome.unreachable[f"{registry}/v2/{repository}/tags/list"] = str(error)
            continue
        outcome.compared += len(tags)
        forms: dict[str, list[str]] = {}
        for tag in tags:
            reading = table.read(name, tag)
            if reading is None:
                forms.setdefault(re.sub(r"\d+", "N", tag), []).append(tag)
            elif "release" in reading.says and table.ngc_image(reading.says["release"]) is None:
                outcome.differences.append(f"{name}:{tag}: no row of that month")
        for form, unread in sorted(forms.items()):
            outcome.differences.append(f"{name}: no grammar reads {form} ({len(unread)} tags, such as {unread[-1]})")
    return outcome


def _tags(web: Web, registry: str, repository: str) -> list[str]:
    """Every tag, page by page (https://github.com/opencontainers/distribution-spec, "Listing Tags")."""
    url = f"{registry}/v2/{repository}/tags/list?n=1000"
    headers: dict[str, str] = {}
    tags: list[str] = []
    for _ in range(_PAGES):
        page = web.get(url, headers, accept=(401,))
        if page and page.status == 401 and not headers:
            headers = {"Authorization": f"Bearer {_token(web, page)}"}
            page = web.get(url, headers)
        if page is None or page.status == 401:
            msg = "the registry does not list its tags"
            raise UnreachableError(msg)
        listed = _json(page).get("tags")
        tags += [tag for tag in listed if isinstance(tag, str)] if isinstance(listed, list) else []
        more = re.search(r'<([^>]+)>;\s*rel="?next', page.headers.get("Link", ""))
        if not more:
            return tags
        url = urljoin(url, more[1])
    return tags


def _token(web: Web, page: Page) -> str:
    """Nobody's token (https://distribution.github.io/distribution/spec/auth/token/)."""
    asked = dict(_CHALLENGE.findall(page.headers.get("WWW-Authenticate", "")))
    query = "&".join(f"{key}={asked[key]}" for key in ("service", "scope") if key in asked)
    answer = web.get(f"{asked.get('realm', '')}?{query}")
    found = _json(answer) if answer else {}
    token = found.get("token") or found.get("access_token")
    if not isinstance(token, str):
        msg = "the registry gives no token to nobody"
        raise UnreachableError(msg)
    return token


def _json(page: Page) -> dict[str, object]:
    try:
        found = json.loads(page.text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        msg = "the answer is no JSON object"
        raise UnreachableError(msg)
    return found
