"""Owns the matrix: configuration → images × runners, which of these cells run, and why the others do not.

Pure. Must not know files, Docker, results or lanes (lanes).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

from cuda_matrix.config import Config, Exclude, Include
from cuda_matrix.doubts import NO_DOUBTS, Doubts, Unseen
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.explain import ValuePath, listed, nearest
from cuda_matrix.globs import matches
from cuda_matrix.image_axes import Finding, expand_image, id_glob
from cuda_matrix.lanes import pack
from cuda_matrix.model import cell_id, image_key
from cuda_matrix.plan import Plan, PlannedCell, PlannedImage, PlannedRunner, SkippedCell
from cuda_matrix.release_tags import release_findings

CELL_LIMIT = 100_000
CELL_ID_LIMIT = 200  # characters: results are files named after their cell, and file systems stop at 255 bytes
MAX_JOBS = 256  # jobs of one matrix; https://docs.github.com/en/actions/reference/limits

_DOCKER_HOSTS = ("ssh://", "tcp://", "unix://")


class Cell(NamedTuple):
    """One cell that may run. `image` is a key of `Expansion.images`, `runner` of `Expansion.runners`."""

    id: str
    image: str
    runner: str


@dataclass(frozen=True)
class Expansion:
    """A configuration, multiplied out. Orders are those of the configuration, image by image.

    `entries` says of which entry of `images:` each image is.
    """

    images: Mapping[str, PlannedImage]
    runners: Mapping[str, PlannedRunner]
    cells: tuple[Cell, ...]
    skipped: tuple[SkippedCell, ...]
    problems: tuple[Finding, ...]
    entries: Mapping[str, int] = field(default_factory=dict)


class _Notes(NamedTuple):
    """What a check of names must know, and where it writes what it finds."""

    unseen: Unseen
    doubts: Doubts
    problems: list[Finding]


def expand(config: Config, doubts: Doubts = NO_DOUBTS) -> Expansion:
    """Multiply out. `problems` holds everything that the types cannot see; cells are complete only without any.

    `doubts` says what of the configuration was mended: nothing that may follow from that alone is a problem.
    """
    images, entries, unexpanded, problems = _images(config, doubts)
    runners = {
        name: PlannedRunner(
            id=name, labels=runner.labels, gpu=runner.gpu, driver=runner.driver, docker_host=runner.docker_host
        )
        for name, runner in config.runners.items()
    }
    problems += _runner_findings(config)
    if len(images) * len(runners) > CELL_LIMIT:
        text = f"{len(images):,} images × {len(runners):,} runners: at most {CELL_LIMIT:,} cells are planned"
        return Expansion(images, runners, (), (), (*problems, Finding((), text)))
    unseen = Unseen(  # what names one of these is not wrong itself
        images=("*",) if "images" in doubts.sections else tuple(unexpanded),
        runners=("*",) if "runners" in doubts.sections else doubts.runners,
        known_images=images,
        known_runners=runners,
    )
    notes = _Notes(unseen, doubts, problems)
    reasons = _excluded(config, images, notes)
    _include(config, images, reasons, notes)
    cells, skipped = [], []
    for key, row in images.items():
        for runner in runners:
            name = cell_id(row.id, row.variant, runner)
            reason = reasons.get((key, runner))
            if reason is None:
                cells.append(Cell(name, key, runner))
            else:
                skipped.append(SkippedCell(id=name, image=key, runner=runner, kind="excluded", reason=reason))
    expansion = Expansion(images, runners, tuple(cells), tuple(skipped), ())
    problems += _whole_findings(config, expansion, unseen, doubts)
    shown = tuple(problem for problem in problems if not doubts.hides(problem.path))
    return Expansion(images, runners, expansion.cells, expansion.skipped, shown, entries)


def select(cells: Sequence[Cell], globs: Collection[str], skipped: Sequence[SkippedCell] = ()) -> tuple[Cell, ...]:
    """The cells that at least one glob names, in their order; without globs, all.

    A glob names cell ids; the bare name of an image, of an image with its variant, or of a runner names all its cells.

    Raises:
        ConfigurationError: a glob names no cell.
    """
    if not globs:
        return tuple(cells)
    chosen: set[str] = set()
    for glob in globs:
        found = {cell.id for cell in cells if _names(glob, cell)}
        if not found:
            raise _nothing_selected(glob, cells, skipped)
        chosen |= found
    return tuple(cell for cell in cells if cell.id in chosen)


def tier_globs(config: Config, tier: str) -> tuple[str, ...]:
    """The cell globs of one tier.

    Raises:
        ConfigurationError: there is no such tier.
    """
    tiers = config.policy.tiers
    if tier not in tiers:
        known = f"known: {', '.join(tiers)}" if tiers else "the configuration has no policy.tiers"
        msg = f"there is no tier {tier!r}{nearest(tier, tiers)}"
        raise ConfigurationError(msg, hint=known)
    return tiers[tier]


def make_plan(
    expansion: Expansion,
    config: Config,
    *,
    select: Collection[str] = (),  # the option's name; the function is `_chosen`'s
    tier: str | None = None,
    max_jobs: int = MAX_JOBS,
) -> Plan:
    """Choose cells and pack them into lanes: at most `max_jobs` (1 to 256), each on one runner.

    Raises:
        ConfigurationError: a glob or tier names nothing, nothing is left, or there are more runners than jobs.
    """
    cells, skipped = _chosen(expansion, config, select, tier)
    jobs = {name: runner.jobs for name, runner in config.runners.items()}
    families = {key: row.id for key, row in expansion.images.items()}
    lanes = pack([(cell.id, families[cell.image], cell.runner) for cell in cells], jobs, max_jobs)
    lane_of = {name: lane.index for lane in lanes for name in lane.cells}
    used_images = {cell.image for cell in cells} | {cell.image for cell in skipped}
    used_runners = {cell.runner for cell in cells} | {cell.runner for cell in skipped}
    images = {key: row for key, row in expansion.images.items() if key in used_images}
    return Plan(
        images=images,
        runners={key: runner for key, runner in expansion.runners.items() if key in used_runners},
        cells=tuple(
            PlannedCell(id=cell.id, image=cell.image, runner=cell.runner, lane=lane_of[cell.id]) for cell in cells
        ),
        skipped=skipped,
        lanes=lanes,
        payload=config.payload,
        container=config.container,
        policy=config.policy,
        report=config.report,
        matrix_cells=len(expansion.cells),
        digests="resolved" if all(row.digest for row in images.values()) else "offline",
    )


def with_digests(plan: Plan, resolved: Mapping[str, str]) -> Plan:
    """The plan with what the registries said: reference → digest, or the reason (any other text) why it is unknown."""
    images = {}
    for key, row in plan.images.items():
        answer = resolved.get(row.ref, "the registry was not asked")
        if row.digest:
            images[key] = row
        elif answer.startswith("sha256:"):
            images[key] = PlannedImage.model_validate({**row.model_dump(), "digest": answer, "unresolved": ""})
        else:
            images[key] = row.model_copy(update={"unresolved": answer})
    state: Literal["resolved", "partly"] = "resolved" if all(row.digest for row in images.values()) else "partly"
    return plan.model_copy(update={"images": images, "digests": state})


def _chosen(
    expansion: Expansion, config: Config, globs: Collection[str], tier: str | None
) -> tuple[tuple[Cell, ...], tuple[SkippedCell, ...]]:
    cells, skipped = expansion.cells, expansion.skipped
    filters: list[Collection[str]] = [tier_globs(config, tier) if tier is not None else (), globs]
    for chosen in filters:
        if chosen:
            cells = select(cells, chosen, skipped)
            skipped = tuple(cell for cell in skipped if any(_names(glob, cell) for glob in chosen))
    if not cells:
        msg = "no cell is left to run"
        raise ConfigurationError(msg, hint="`cuda-matrix plan` shows what is excluded and why")
    return cells, skipped


def _names(glob: str, cell: Cell | SkippedCell) -> bool:
    return glob in {cell.image, cell.image.partition("+")[0], cell.runner} or matches(cell.id, glob)


def _nothing_selected(glob: str, cells: Sequence[Cell], skipped: Sequence[SkippedCell]) -> ConfigurationError:
    out = next((cell for cell in skipped if _names(glob, cell)), None)
    if out is not None:
        return ConfigurationError(f"{glob!r} names only excluded cells: {out.id} ({out.reason})")
    images = dict.fromkeys(cell.image for cell in cells)
    runners = dict.fromkeys(cell.runner for cell in cells)
    hint = f"images: {listed(images)}; runners: {listed(runners)}; a cell is image[+variant]@runner"
    return ConfigurationError(f"{glob!r} names no cell{_near_cell(glob, images, runners)}", hint=hint)


def _near_cell(glob: str, images: Iterable[str], runners: Iterable[str]) -> str:
    """A suggestion for a glob that matches no cell. Each half is compared by itself: 10,000 whole ids would be slow."""
    left, at, right = glob.rpartition("@")
    if not at:
        return nearest(glob, [*images, *runners, *(key.partition("+")[0] for key in images)])
    halves = []
    for half, known, what in ((left, list(images), "image"), (right, list(runners), "runner")):
        if not any(matches(name, half) for name in known):
            halves.append(f"; no {what} matches {half!r}{nearest(half, known)}")
    return "".join(halves)


def _images(config: Config, doubts: Doubts) -> tuple[dict[str, PlannedImage], dict[str, int], list[str], list[Finding]]:
    """Key → image, in order; key → entry; globs for the ids of entries that could not be expanded; what is wrong."""
    images: dict[str, PlannedImage] = {}
    entries: dict[str, int] = {}
    homes: dict[str, tuple[str, int]] = {}  # id in lower case → as written, entry
    unexpanded: list[str] = []
    problems: list[Finding] = []
    rows: list[tuple[int, PlannedImage]] = []
    for index, image in enumerate(config.images):
        path = ("images", index)
        planned: list[PlannedImage] = []
        if index not in doubts.images:
            planned, wrong = expand_image(image, path)
            problems += [*wrong, *_same_but_for_case(image.variants, (*path, "variants"), "variants")]
        ids = [row.id for row in planned]
        if not planned:
            unexpanded.append(id_glob(image))
            ids = [] if "*" in unexpanded[-1] else [image.id]
        problems += islice(_double_ids(ids, index, homes), 1)
        for row in planned:
            images.setdefault(image_key(row.id, row.variant), row)
            entries.setdefault(image_key(row.id, row.variant), index)
        if ("images", index, "ref") not in doubts.flawed:
            rows += [(index, row) for row in planned]
    return images, entries, unexpanded, [*problems, *release_findings(rows)]


def _double_ids(ids: Iterable[str], index: int, homes: dict[str, tuple[str, int]]) -> Iterator[Finding]:
    """Ids of entry `index` that are another's already. `homes` (lower case → as written, entry) learns the others."""
    for each in ids:
        name, home = homes.setdefault(each.lower(), (each, index))
        if home != index or name != each:
            text = f"the image id {each!r} is there already"
            if name != each:
                text = f"the image ids {each!r} and {name!r} differ only in case: they would share a file"
            yield Finding(("images", index, "id"), text, other=("images", home, "id"))


def _same_but_for_case(names: Iterable[str], path: ValuePath, what: str) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(name.lower(), name)
        if first != name:
            text = f"the {what} {first!r} and {name!r} differ only in case: they would share a file"
            yield Finding((*path, name), text, key=True, other=(*path, first))


def _runner_findings(config: Config) -> Iterator[Finding]:
    yield from _same_but_for_case(config.runners, ("runners",), "runners")
    for name, runner in config.runners.items():
        if runner.docker_host is not None and not runner.docker_host.startswith(_DOCKER_HOSTS):
            text = f"{runner.docker_host!r} is no Docker host: write ssh://user@host, tcp://host:2376 or unix:///path"
            yield Finding(("runners", name, "docker_host"), text)


def _excluded(config: Config, images: Mapping[str, PlannedImage], notes: _Notes) -> dict[tuple[str, str], str]:
    """(image key, runner) → reason. The first entry that names a cell gives its reason."""
    reasons: dict[tuple[str, str], str] = {}
    for index, rule in enumerate(config.exclude):
        path = ("exclude", index)
        keys = [key for key, row in images.items() if _rule_names(rule, key, row)]
        runners = [name for name in config.runners if matches(name, rule.runner)]
        if not keys and not notes.unseen.image(rule.image):
            text = f"matches no image: {rule.image!r}{f', variant {rule.variant!r}' if rule.variant else ''}"
            notes.problems.append(Finding(path, text + nearest(rule.image, (row.id for row in images.values()))))
        if not runners and not notes.unseen.runner(rule.runner):
            text = f"matches no runner: {rule.runner!r}{nearest(rule.runner, config.runners)}"
            notes.problems.append(Finding((*path, "runner"), text))
        if index in notes.doubts.rules:
            continue
        for key in keys:
            for name in runners:
                reasons.setdefault((key, name), rule.reason)
    return reasons


def _rule_names(rule: Exclude, key: str, row: PlannedImage) -> bool:
    if not matches(row.id, rule.image) and not matches(key, rule.image):
        return False
    return rule.variant is None or (row.variant is not None and matches(row.variant, rule.variant))


def _include(
    config: Config,
    images: Mapping[str, PlannedImage],
    reasons: dict[tuple[str, str], str],
    notes: _Notes,
) -> None:
    """Take included cells out of the excluded ones."""
    for index, entry in enumerate(config.include):
        wrong = list(_unknown_names(entry, config, images, ("include", index)))
        key = image_key(entry.image, entry.variant)
        is_unseen = {"image": key not in images and notes.unseen.image(entry.image)}
        is_unseen["variant"] = is_unseen["image"]
        is_unseen["runner"] = notes.unseen.runner(entry.runner)
        notes.problems.extend(finding for finding in wrong if not is_unseen.get(str(finding.path[-1])))
        if wrong or any(is_unseen.values()):
            continue
        if reasons.pop((key, entry.runner), None) is None and not notes.doubts.of_exclusion:
            text = "has no effect: this cell is not excluded, or is included twice"
            notes.problems.append(Finding(("include", index), text))


def _unknown_names(
    entry: Include, config: Config, images: Mapping[str, PlannedImage], path: ValuePath
) -> Iterator[Finding]:
    if entry.runner not in config.runners:
        text = f"there is no runner {entry.runner!r}{nearest(entry.runner, config.runners)}"
        yield Finding((*path, "runner"), text)
    variants = [row.variant for row in images.values() if row.id == entry.image]
    names = [name for name in variants if name is not None]
    if not variants:
        ids = dict.fromkeys(row.id for row in images.values())
        yield Finding((*path, "image"), f"there is no image {entry.image!r}{nearest(entry.image, ids)}")
    elif entry.variant is None and names:
        yield Finding(path, f"say which variant of {entry.image!r}: {', '.join(names)}")
    elif entry.variant is not None and entry.variant not in names:
        text = f"{entry.image!r} has no variant {entry.variant!r}{nearest(entry.variant, names)}"
        yield Finding((*path, "variant"), text)


def _whole_findings(config: Config, expansion: Expansion, unseen: Unseen, doubts: Doubts) -> Iterator[Finding]:
    """What only the finished matrix shows."""
    if not expansion.cells and not unseen.cell("*"):
        if not doubts.of_inclusion:
            yield Finding(("exclude",), "nothing is left: every cell is excluded")
        return
    longest = max((cell.id for cell in expansion.cells), key=len, default="")
    if len(longest) > CELL_ID_LIMIT:
        yield Finding(
            (), f"the cell id {longest!r} is longer than {CELL_ID_LIMIT} characters: results are files named so"
        )
    images = list(expansion.images)
    for path, glob in _policy_globs(config):
        if unseen.cell(glob) or any(matches(cell.id, glob) for cell in expansion.cells):
            continue
        if any(matches(cell.id, glob) for cell in expansion.skipped):
            if doubts.of_inclusion:
                continue
            yield Finding(path, f"{glob!r} matches only cells that are excluded")
        else:
            yield Finding(path, f"{glob!r} matches no cell{_near_cell(glob, images, config.runners)}")

    counts = Counter(cell.runner for cell in expansion.cells)
    for glob, least in config.policy.coverage.items():
        if unseen.cell(f"*@{glob}"):
            continue
        here = [runner for runner in config.runners if matches(runner, glob)]
        most = min((counts[runner] for runner in here), default=0)
        if not here:
            text = f"{glob!r} matches no runner{nearest(glob, config.runners)}"
            yield Finding(("policy", "coverage", glob), text, key=True)
        elif isinstance(least, int) and least > most:
            yield Finding(("policy", "coverage", glob), f"asks for {least} cells of a runner that has {most}")


def _policy_globs(config: Config) -> Iterator[tuple[tuple[Any, ...], str]]:
    for tier, globs in config.policy.tiers.items():
        for index, glob in enumerate(globs):
            yield ("policy", "tiers", tier, index), glob
    for index, glob in enumerate(config.policy.required):
        yield ("policy", "required", index), glob
    for index, entry in enumerate(config.policy.expect_fail):
        yield ("policy", "expect_fail", index, "cell"), entry.cell
