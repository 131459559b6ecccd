"""Does a caption tell who somebody is? Names, contacts, plates, numbers, and what can be read in the picture.

The patterns are made to find too much rather than too little: what they find wrongly costs a sentence, what they miss
is learned by a model.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

Kind = Literal["name", "handle", "email", "url", "phone", "plate", "number", "readable"]

_MIN_NUMBER = 5
"""Digits in a row: years and frame sizes have four, zip codes and race numbers five."""
_MIN_PHONE = 7
"""Digits of a phone number with its area or its country; only some islands' local numbers have fewer."""
_MIN_WORD = 4
"""Letters of a word that is not told apart by chance; three if it is written large."""
_MAX_RUN = 4
"""Words that OCR may have read as one, or one word as so many."""

_TOP_LEVEL = "com|org|net|edu|gov|info|biz|io|co|uk|de|fr|es|nl|ru|cn|jp|br|au|ca|eu|ch|pl|se|tv|app|dev|ai|shop|xyz"
# Each pattern starts where a word starts and has one way to match, so that its time grows with the text and no faster.
_ADDRESS = r"(?<![\w.+-])[\w.+-]+"
_HOST = r"(?<![\w@.-])[\w-]+"
_PATH = r"[^\s\")]*[^\s\").,;:!?']"
_DIGITS = r"\(?\d+\)?"
_BETWEEN_DIGITS = r"(?: ?[-/] ?|[ .]|(?<=\))|(?<=\d)(?=\())"
_PLATE_GROUP = r"(?:[A-Z]{1,3}(?![A-Z])|\d{1,4}(?!\d))"
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("email", re.compile(rf"{_ADDRESS}@[\w-]+(?:\.[\w-]+)+")),
    ("email", re.compile(rf"{_ADDRESS} (?:at|\(at\)|\[at\]) [\w-]+ (?:dot|\(dot\)|\[dot\]) \w+", re.IGNORECASE)),
    ("url", re.compile(rf"\b(?:https?://|www\.){_PATH}", re.IGNORECASE)),
    ("url", re.compile(rf"{_HOST}(?:\.[\w-]+)*\.(?:{_TOP_LEVEL})\b(?:/(?:{_PATH})?)?", re.IGNORECASE)),
    ("url", re.compile(rf"{_HOST} dot (?:com|org|net)\b", re.IGNORECASE)),
    ("handle", re.compile(r"(?<!\w)@(?=[\d.]*[^\W\d])\w(?:[\w.]*\w)?")),
    ("handle", re.compile(r"(?<!\w)#(?=\d*[^\W\d]{2})\w+")),
    ("phone", re.compile(rf"(?<![\w.,+])(?:\+ ?)?{_DIGITS}(?:{_BETWEEN_DIGITS}{_DIGITS})*(?!\w)")),
    ("number", re.compile(rf"(?<![\w.,])\d{{{_MIN_NUMBER},}}(?!\w)")),
    # two to four groups of capitals and digits, as on plates from ABC-1234 to KA 01 AB 1234
    ("plate", re.compile(rf"(?<![\w.-]){_PLATE_GROUP}(?:[ ·-]?{_PLATE_GROUP}){{1,3}}(?![\w-])")),
)
_PLAIN = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2018\u2019\u201c\u201d", "-----''\"\"")
_YEARS = re.compile(r"(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d")
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_JOINTS = frozenset(" -'&·")
"""What may stand between words of one run; any other mark ends it."""

_COMMON = frozenset(
    """
    about above across after again against along also another around away back background barely because become been
    before behind being below beside between beyond black blue body both bottom bright brown building camera chair
    city clear clip close closed cloth clothes coat colour color dark dark-haired deep door down dress each either
    enter entrance exit every face feet field floor focus food foot four frame from front full further gray green
    grey ground group hair hall hand hands hard have head heavy held here high hold holding home house indoor inside
    into jacket jeans just large later left leg legs light like line lines long looking lower main male many mark
    medium metal middle more most motion mouth move moves moving much music near neck next none number object objects
    office once only open orange other others outdoor outside over pair pale pants paper park part past people
    person picture piece pink place plain play plus point position pull purple push quick quiet rear right road room
    round scene screen seated second seen several shape shirt shoe shoes shop short shot show shows side sign sits
    skin slow small smooth soft some stand standing stands start steady steps still stone stop street strip style
    surface table take takes tall text than that their them then there these they thin thing this those three
    through time toward towards tree turn turns under until upper used very video view visible walk walking walks
    wall warm water wear wearing wears well what when where which while white wide window with within without
    woman women wood wooden word words work yellow young your
    and are but for has her his him how its man men not now off old one our out red run she sit six the too top two
    use was way who you any arm bag box boy can car cup day dog eye far few get hat leg let low may new put ten tie
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class TextFinding:
    """Something in a caption that may tell who somebody is.

    Args:
        kind: What it looks like; ``readable`` is text that OCR also reads in the picture.
        text: As it stands in the caption.
        start: Its first character's number.
        end: The number of the character after its last.
    """

    kind: Kind
    text: str
    start: int
    end: int


def caption_faults(caption: str, *, names: Sequence[str] = (), ocr: Sequence[str] = ()) -> list[TextFinding]:
    """Find what identifies somebody in a caption.

    Names are found as they are given and by each of their parts that is written large. Text of the picture is compared
    word by word, whatever the case, also where one of the two runs words together; common words and short ones do not
    count.

    Args:
        caption: The text to check, accents composed (Unicode NFC).
        names: Names of persons, as a name finder found them in this caption.
        ocr: What OCR reads in the picture, a line each.

    Returns:
        Findings in order, none overlapping another.
    """
    folded = _fold(caption)
    spans = chain(_patterns(folded), _names(folded, names), _readable(folded, ocr))
    merged: list[tuple[Kind, int, int]] = []
    for kind, start, end in sorted(spans, key=lambda span: (span[1], -span[2])):
        if merged and start < merged[-1][2]:
            first, begin, until = merged[-1]
            merged[-1] = (first, begin, max(until, end))
        else:
            merged.append((kind, start, end))
    return [TextFinding(kind, caption[start:end], start, end) for kind, start, end in merged]


def _fold(text: str) -> str:
    """Make full-width characters, dashes and quotation marks plain, each one character long as before."""
    plain = (unicodedata.normalize("NFKC", character) for character in text)
    folded = "".join(new if len(new) == 1 else old for old, new in zip(text, plain, strict=True))
    return folded.translate(_PLAIN)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _patterns(text: str) -> Iterator[tuple[Kind, int, int]]:
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            if _is_meant(kind, match.group()):
                yield kind, match.start(), match.end()


def _is_meant(kind: Kind, text: str) -> bool:
    digits, capitals = sum(map(str.isdigit, text)), sum(map(str.isupper, text))
    if kind == "phone":
        return digits >= _MIN_PHONE and not _YEARS.fullmatch(text)
    if kind == "plate":
        # COVID-19, WD-40, A4 and 1080 are none; "A 1000" is an article and a number
        return digits >= 2 and capitals >= 2 and 5 <= digits + capitals <= 11
    return True


def _names(text: str, names: Sequence[str]) -> Iterator[tuple[Kind, int, int]]:
    for name in {_fold(_composed(name)).strip() for name in names} - {""}:
        parts = {part for part in _TOKEN.findall(name) if len(part) > 1 and part[0].isupper()}
        for words in {name} | parts:
            for match in re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text):
                yield "name", match.start(), match.end()


def _readable(text: str, ocr: Sequence[str]) -> Iterator[tuple[Kind, int, int]]:
    read = {run for line in ocr for run, _, _, _ in _runs(_fold(_composed(line)))}
    for run, start, end, plain in _runs(text):
        if run in read and not plain:
            yield "readable", start, end


def _runs(text: str) -> Iterator[tuple[str, int, int, bool]]:
    """Yield each one to four neighbouring words as one: casefolded, where they stand, and whether they mean nothing."""
    tokens = [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(text)]
    for first, (_, start, _) in enumerate(tokens):
        for last in range(first, min(first + _MAX_RUN, len(tokens))):
            if last > first and not _JOINTS.issuperset(text[tokens[last - 1][2] : tokens[last][1]]):
                break
            words = [word for word, _, _ in tokens[first : last + 1]]
            run = "".join(words).replace("'", "").casefold()
            yield run, start, tokens[last][2], all(map(_is_common, words)) or (last > first and len(run) <= _MIN_WORD)


def _is_common(word: str) -> bool:
    if any(map(str.isdigit, word)):
        return len(word) < 2
    if word.casefold() in _COMMON:
        return True
    return len(word) < _MIN_WORD - (word != word.lower())
