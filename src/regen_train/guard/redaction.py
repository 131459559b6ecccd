"""Take what identifies somebody out of a caption, and leave sentences that read well."""

import re
from collections.abc import Iterator, Sequence

from regen_train.guard.text import TextFinding, caption_faults

_MIN_KEPT = 0.4
"""Share of the words that must be left: a caption of which less remains describes another clip."""

_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"\u201c])(?:Mr|Mrs|Ms|Dr|Prof|Rev|Sgt|Capt|Lt|Col|Gen|Sen|St|Jr|Sr|No|vs|[A-Z])\.$"
)
_TITLE = re.compile(
    r"\b(?:(?:Mr|Mrs|Ms|Dr|Prof|Rev|Sgt|Capt|Lt|Col|Gen|Sen|St)\.?|Mister|Miss|Doctor|Professor|President|Senator|"
    r"Captain|Coach|Officer|Sir|Lady|King|Queen|Prince|Princess) $"
)
_NAMED = re.compile(r",? (?:(?:who is|is) )?(?:named|called|known as|by the name of) $")
_DETERMINER = re.compile(r"(?:^|[\s(\"\u201c])(?:a|an|the|this|that|his|her|its|their|our|my|another) $", re.IGNORECASE)
# Before "a person" these read well; before anything else, such as an adjective, the sentence goes.
_BEFORE = re.compile(
    r"(?:^|[,;:(\u2014\u2013\"\u201c-] ?|\b(?:and|or|but|while|as|when|where|then|that|than|if|because|with|without|of|"
    r"to|from|for|by|at|on|in|near|beside|behind|before|after|between|beyond|under|over|above|below|around|against|towards?|"
    r"opposite|past|into|onto|like|is|are|was|be|see|show|meet|watch|follow|help|\w{2,}s) )$",
    re.IGNORECASE,
)
_SAYING = re.compile(
    r",? (?:(?:that|which) (?:reads|says|spells)|reading|saying|spelling|labell?ed|marked|inscribed|printed|"
    r"(?:with|bearing|showing|displaying) (?:a|the) (?:words?|text|name|numbers?|letters?|inscription|handle|title|"
    r"(?:(?:number|registration|licen[cs]e) )?plate))"
    r"(?: with)?:? [\"\u201c\u2018']?$"
)
_QUOTED = re.compile(r"[\"\u201c]([^\"\u201c\u201d]*)[\"\u201d]")
_CLOSING = re.compile(r"[\"\u201d\u2019']?(?= |[.,;:!?)]|$)")


def redact(caption: str, findings: Sequence[TextFinding]) -> str | None:
    """Take findings out of a caption.

    A name becomes "a person"; a phrase that only tells what a sign reads goes; else the whole sentence goes.

    Args:
        caption: As it was given to `caption_faults`.
        findings: What that returned.

    Returns:
        A caption without them, or None where too little would be left of it: have it written anew, or set the clip
        aside.
    """
    if not findings:
        return caption
    known: list[str] = []
    kept = [
        text for start, end in _sentences(caption) if (text := _redact_sentence(caption, start, end, findings, known))
    ]
    text = " ".join(kept)
    if len(text.split()) < max(1.0, _MIN_KEPT * len(caption.split())):
        return None
    names = [finding.text for finding in findings if finding.kind == "name"]
    ocr = [finding.text for finding in findings if finding.kind == "readable"]
    return None if caption_faults(text, names=names, ocr=ocr) else text


def _sentences(caption: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in re.finditer(r"[.!?]+[\"\u201d\u2019')]*\s+", caption):
        if not _ABBREVIATION.search(caption[start : match.end()].rstrip()):
            yield start, start + len(caption[start : match.end()].rstrip())
            start = match.end()
    if caption[start:].strip():
        yield start, len(caption.rstrip())


def _redact_sentence(
    caption: str, start: int, end: int, findings: Sequence[TextFinding], known: list[str]
) -> str | None:
    """Return the sentence without its findings, or None if it has to go; add its names to the known ones."""
    text, position = "", start
    for finding, first, last in _widened(caption, start, end, findings):
        if last <= position:
            continue  # in the same quotation as the one before
        if first < position or last > end:
            return None
        text += caption[position:first]
        position = last
        cut = _NAMED.search(text) or (_SAYING.search(text) if finding.kind != "name" else None)
        if cut:
            text = text[: cut.start()]
            position += _closing(caption[position:end])
        elif finding.kind == "name":
            text = _TITLE.sub("", text)
            person = _person(text, finding.text, known)
            if person is None:
                return None
            text += person
        else:
            return None
    return (text + caption[position:end]).strip() or None


def _widened(
    caption: str, start: int, end: int, findings: Sequence[TextFinding]
) -> Iterator[tuple[TextFinding, int, int]]:
    """Yield the findings that touch a sentence and where they stand; all of a quotation of which they are part."""
    quoted = [match.span(1) for match in _QUOTED.finditer(caption, start, end)]
    for finding in findings:
        if finding.start < end and finding.end > start:
            around = (span for span in quoted if span[0] <= finding.start and finding.end <= span[1])
            yield finding, *next(around, (finding.start, finding.end))


def _closing(rest: str) -> int:
    """How far a closing quotation mark reaches into what follows a finding; nothing else may follow it there."""
    match = _CLOSING.match(rest)
    return match.end() if match else 0


def _person(before: str, name: str, known: list[str]) -> str | None:
    """Return what to write for a name after such words, or None where nothing reads well there."""
    mentioned = any(name in other or other in name for other in known)
    first = not known
    if _DETERMINER.search(before):
        person = "person"
    elif _BEFORE.search(before):
        person = "the person" if mentioned else "a person" if first else "another person"
    else:
        return None
    known.append(name)
    return person if before.strip(' "\u201c(') else person.capitalize()
