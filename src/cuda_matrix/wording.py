"""Owns what a line of text says of itself: that something failed, that it only tells of failures, that all went well.

English as tools and people write it. Must not know any cause (catalogue) or how signs are weighed (diagnose).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Kind = Literal["pull", "start", "build", "cards", "run"]

_ENDING = 2  # how many of the last lines may say how it ended
_AFTER = 3  # how many lines behind a complaint may say that it was dealt with


def _any(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE | re.ASCII)


# Each begins a word or stands in one; the regex decides which, the plain words are looked for first, as that is quick.
_FAILURE_PARTS = (
    *("error", "fail", "exception", "fatal", "denied", "cannot", "could not", "unable", "traceback", "abort", "crash"),
    *("panic", "killed", "not found", "no such", "refused", "timed out", "timeout", "time-out", "stuck", "freez"),
    *("segfault", "core dumped", "invalid", "undefined", "unsupported", "missing", "mismatch", "unauthorized"),
    *("forbidden", "insufficient", "too old", "incompatib", "not available", "sigkill", "sigsegv", "oomkill", "died"),
    *(
        "interrupt",
        "no rule to",
        "unresolved",
        "rejected",
        "reset by peer",
        "unreachable",
        "over its",
        "exceeded",
        "did not find",
    ),
    *("didn't match", "untolerated", "too low", "too small"),
    # The same in other languages, as far as it is one word.
    *("fehler", "fehlgeschlagen", "erreur", "\u9519\u8bef", "\u5931\u8d25", "\u30a8\u30e9\u30fc", "\u5931\u6557"),
    *("\u043e\u0448\u0438\u0431\u043a", "\uc624\ub958"),
)
_FAILURE_WORDS = ("can't", "can\u2019t", "couldn't", "couldn\u2019t", "hang", "hangs", "hung", "lost")
_FAILURE = _any("|".join(_FAILURE_PARTS), rf"\b({'|'.join(_FAILURE_WORDS)})\b")
_NO_FAILURE = _any(
    r"\b(0|no|zero|without(?: any)?) (errors?|failures?|exceptions?|failed|missing)\b",
    r"\b(errors?|failures?|failed|exceptions?|(oom)?killed)\"?( \w{1,12})? {0,40}[:=]? ?(0|none|false|\"\")(\b|$|,)",
    r"\b(errors?|failures?)( \w{1,12})? {0,40}: ?no$",
    r"\b0 \w{1,12} failed\b|--?\w{0,20}fail\w{0,4}=?\d?|gpg-error|error[_-](page|log)|\bNCCL INFO\b.{0,200}",
    r"^-- (performing test|looking for|could not find|checking|detecting)\b.{0,200}|^debconf: .{0,100}",
    r"^unable to find image .{1,300} locally$|: could not collect$",
    r"\b(mean|absolute|squared|relative|test|validation|train|error|word|reconstruction|rms)\W(\w{1,12}\W)?error\b",
    r"\b(ohne|keine) fehler|\b(sans|aucune) erreur|\u6ca1\u6709\u9519\u8bef|\u65e0\u9519\u8bef",
    r"\u30a8\u30e9\u30fc(\u306f)?(\u3042\u308a\u307e\u305b\u3093|\u306a\u3057)",
    r"\u0431\u0435\u0437 \u043e\u0448\u0438\u0431\u043e\u043a",
    r"\berror[ _](rate|handl|correct|metric|bar)|on-?error|fail(over|fast|[-_]fast|-safe)|set -e\b",
)
# Source code that would print, look for, or name an error.
_CODE = (
    r"^(?:[+-] {0,40})?\W{0,2}(f?printf?|warnings\.warn)\(",
    r"^(?:[+-] {0,40})?\W{0,2}(console|log|logger|logging|fmt)\.\w{1,12}\(",
    r"^(?:[+-] {0,40})?(echo |e?println!\(|std::c(err|out) ?<<|throw new |panic[!(]|#define |case \w{1,60}:|default:)",
    r"(\bin str\(\w{1,20}\)|contains\(|includes\(|startswith\(|\|\| ?echo |\|\| ?die\b)",
    r"\b(pattern|regexp?|grep(?: -\w{1,9})*)\b ?[:=]? ?r?[\"'`/]",
    r"^[\"'][^\"']{0,80} [^\"']{0,200}[\"'] ?(:|=>) ",  # a table that is looked up by the message
    r"^``[^`]{1,200}``$|^(cuda|CUDA_ERROR)\w{1,60} = \d{1,4},?$",
    r"^(?:[+-] {0,40})?(//|/\* |#\[|>>> .{0,200}[\"'])|^(#|//|\*)? ?(todo|fixme|xxx)\b",
    r"^\"[\w-]{1,40}\.[\w.-]{1,60}\": ?\"",  # a catalogue of texts, by dotted keys
    r"\"(status|outcome|result)\": ?\"(passed|ok|success|skipped)\"",
    r"^--?[a-z][\w-]{1,40}( [A-Z_]{2,20})? {2,}\S",  # an option in a usage message
    r"^(?:- )?(alert|expr|summary): |^[a-z_]{2,30}: [^#]{1,80} {2,}# [a-z]",  # a rule for alerts; a comment in YAML
)
# Prose that tells of failures: documentation, change logs, names of tests, lines of source code.
_MENTION = _any(
    *_CODE,
    r"^when(ever)? (the|an?|your|/\S{0,60}) .{1,160}(, | you (will )?(get|see) )",
    r"\b(is|are) the most (frequent|common)\b|\bwe (study|propose|present)\b",
    r"^this release (supports?|adds?|requires?|drops?)\b|^(system )?(requirements?|prerequisites?)\b ?:",
    # A commit of a log.
    r"^(?=\d{0,11}[a-f])[0-9a-f]{7,12} (?-i:[A-Z][a-z]{1,12} [a-z])",  # with a letter: a time in seconds is no commit
    r"^[0-9a-f]{7,40} (fix|handle|retry|add|remove|revert|merge|improve|support|update|catch|ignore|detect)\w{0,3} ",
    r"\bif (you|your|this|the|it|that)\b.{0,60}\b(see|sees|get|gets|encounter|receive|run into|hit|appears?|occurs?)\b",
    r"\b(this|these|such an?) (errors?|messages?|failures?) (means?|occurs?|happens?|indicates?|usually|often)\b",
    r"\b(common|typical|possible|known|frequent) (errors?|problems|failures?)\b",
    r"\b(for example|for instance|such as|e\.g\.|see also|read more|troubleshooting|frequently asked|how to fix)\b",
    r"^[-*+] .{0,40}\b(fix|fixed|fixes|add|added|adds|improve[ds]?|handle[ds]?)\b",
    r"^[-*+] .{0,40}\b((avoid|prevent|support|raise|detect|document)s?|retry|better|clearer|no longer)\b",
    r"^[-*+] \[[ x]\] |^nit\b|\blgtm\b|\bin this (post|article|guide|tutorial|section|chapter)\b",
    r"\b(may|might|can|could|would) (stop|fail|end|die|crash|hang|break|abort) with\b",
    r"\bwhen (docker|torch|pytorch|it|the \w{1,20}) (says|prints|reports)\b",
    r"\bsi vous (lisez|voyez|obtenez)\b|\ben cas de\b|\b(falls|wenn) (sie|du|die meldung)\b",
    r"^(#{1,6} (?!error: )|fix(es|ed)?(\(\w{1,30}\))?: |feat(\(\w{1,30}\))?: |docs?: |test(s|ing)?: )",
    r"\b(raises|throws|returns|means|is raised|is thrown|is returned) (a |an |the |when|if|that|`)",
    r"^(?:[+-] {0,40})?(def|class|except|elif|assert|raise|return|import|from|with pytest)\b(?!.{0,300}Error: )",
    r"^\|[^|]{1,300}\|[^|]{1,300}\|$|^\d{1,3} ?\| [^|]{1,120} \| ",  # a row of a table
    r"^[-*+] {1,3}([`\"])[^`\"]{1,300}[`\"] ?(:|-|\u2013|\u2014|=|means\b|is\b)",  # an item of a list of errors
    r"^`[^`]{1,300}` ?\| ",
    r"\b(simulat|mock|fak)(e|es|ed|ing)\b.{0,60}\b(error|fail|fault|oom|out of memory)",
    r"\binjected (error|fault|failure)",
)
# Words beside a quotation that say that the quoted words were really met.
_MET = _any(
    r"error|fail|exception|issue|problem|\b(msg|message|stderr|stdout|output|log|reason|details?|desc|title)\b|warn|fatal",
    r"\b(got|gets?|getting|receiv\w{1,3}|sees?|seen|seeing|shows?|showing|says|said|throws?|gives?|prints?|encounter\w{0,3})\b",
    r"crash|panic|killed|died|caused|:\d{1,5}: |cannot|can.t|unable|denied|stuck|hang|sporadic|intermittent|suddenly",
    r"\b(with|because|due|during|while|after|upon|occasional(ly)?|random(ly)?|still|always|keeps?)\b",
    r"\b(when i|i run|i am|i'm|my|ago)\b|\b(found|detected|observed)[\]:]",
)
_QUOTES = ('"', "`")
_FENCE = re.compile("`{2,}")  # sets off what was printed; it quotes nothing inside a sentence
_UNREADABLE = re.compile("[\x01-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
_UNREADABLE_SHARE = 0.1  # random bytes have a quarter
_SHORT_QUOTE = 12
_GOOD_END = _any(
    r"\b(all done|done[.!]?$|success(ful|fully)?\b|succeeded|completed?( in)?\b|finished\b|all tests? passed)",
    r"\b\d{1,6} passed\b|exit(ed)?( with)?( code| status)?\W{0,2}0\b|\b(saved|wrote|written|exported|uploaded)\b",
    r"\b(ready|healthy|running on|listening on|startup complete|up to date)\b|\b(accuracy|top-?1|bleu|loss)\W{1,3}\d",
    r"^ ?ok\b|\bpassed$|\bno (errors|issues|problems)\b",
    r"\b(works?|working|fine|resolved|solved|fixed) (too |again |fine |great |well )?now\b",
    r"\b(that|this|it) (fixed|solved) (it|the)\b",
)
_DEALT_WITH = _any(
    r"\bretry|retries|trying again|attempt \d|fall(ing|s)? ?back|fallback|recover|resum|continu|skipp|ignor|reduc",
    r"\bhandled\b|\bexpected\b|\bworkaround|\bhalving|smaller batch|batch[ _]size|using .{1,40} instead|switching to",
)
_KINDS: dict[Kind, re.Pattern[str]] = {
    "pull": _any(r"registry|manifest|docker pull|pulling|image pull|/v2/|podman pull"),
    "start": _any(r"\boci runtime|nvidia-container|response from daemon|\brunc\b|containerd|kubelet|podsandbox"),
    "build": _any(r"\b(gcc|g\+\+|nvcc|ninja|cmake|collect2|ld returned|setup\.py|building wheel|make\[\d)"),
    "cards": _any(r"\bnccl\b|\brank ?\d|torchrun|torchelastic|all_?reduce|processgroup"),
}


def reads_as_text(text: str) -> bool:
    """Whether it reads like a text, and not like the bytes of a program or of an archive."""
    return len(_UNREADABLE.findall(text)) <= _UNREADABLE_SHARE * len(text)


def speaks_of_failure(line: str) -> bool:
    """Whether a line says that something went wrong ("0 errors" and "mean squared error" do not)."""
    lower = line.lower()
    if not any(word in lower for word in (*_FAILURE_PARTS, *_FAILURE_WORDS)):
        return False
    return bool(_FAILURE.search(_NO_FAILURE.sub(" ", line)))


def is_mention(line: str) -> bool:
    """Whether a line tells of failures in general and does not report one."""
    return bool(_MENTION.search(line))


def is_quotation(line: str, start: int, end: int) -> bool:
    """Whether `line[start:end]` is only quoted: a text or a program names it, and nobody met it.

    `with "CUDA out of memory" it ends` reports; `oom = "CUDA out of memory"` does not.
    """
    line = _FENCE.sub(lambda fence: " " * len(fence[0]), line)
    for quote in _QUOTES:
        opened = line.rfind(quote, 0, start)
        closed = line.find(quote, end)
        if opened < 0 or closed < 0 or line.count(quote, 0, start) % 2 == 0 or line[max(0, opened - 1)] == "\\":
            continue
        if closed - opened < _SHORT_QUOTE:  # no message, but a name set in code
            continue
        beside = line[:opened] + " " + line[closed + 1 :]
        if any(map(str.isalpha, beside)) and not _MET.search(beside):
            return True
    return False


def ends_well(lines: Sequence[str]) -> bool:
    """Whether the last lines say that the work was done."""
    last = lines[-_ENDING:]
    return any(_GOOD_END.search(line) for line in last) and not any(map(speaks_of_failure, last))


def was_dealt_with(lines: Sequence[str], index: int) -> bool:
    """Whether the complaint in `lines[index]`, or what follows it, says that the program went on without it."""
    return any(_DEALT_WITH.search(line) for line in lines[index : index + 1 + _AFTER])


def kind_of(lines: Sequence[str]) -> Kind:
    """What the text is about, as far as its words tell."""
    counts = {kind: sum(bool(pattern.search(line)) for line in lines) for kind, pattern in _KINDS.items()}
    best = max(counts, key=lambda kind: counts[kind])
    return best if counts[best] else "run"
