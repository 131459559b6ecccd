"""Say in plain words what a clip shows, from a small closed vocabulary."""

import re

from regen_train.toy.world.identity import HAIR_STYLES, LOWER_KINDS, PATTERNS, Garment, Identity
from regen_train.toy.world.palette import CLOTHES, FLOORS, FURNITURE, HAIR, SKIN, WALLS
from regen_train.toy.world.scene import FLOOR_TEXTURES, HANGING, STANDING, WALL_TEXTURES, WORDS, Scene
from regen_train.toy.world.spec import ClipSpec

MAX_WORDS = 80

_LEVELS = 7
"""How much detail there can be; clips of many people get less of each."""

_PLAIN_WORDS = """
A An a an The and in on of with to the has is at from by it . ,
person bald skin hair shirt long short sleeves shoes wall floor word letters room nobody empty
stands still walks left right waves hand squats down raises both arms hands over takes ball box
comes goes out camera does not move stand crate front away looks
"""

VOCABULARY: tuple[str, ...] = tuple(sorted({
    *_PLAIN_WORDS.split(), *CLOTHES, *SKIN, *HAIR, *WALLS, *FLOORS, *FURNITURE, *PATTERNS, *HAIR_STYLES,
    *LOWER_KINDS, *WALL_TEXTURES, *FLOOR_TEXTURES, *STANDING, *HANGING, *WORDS,
}))  # fmt: skip
"""Every word and sign that a caption can hold, as `caption_words` splits it."""


def caption_words(caption: str) -> list[str]:
    """Split a caption into words, full stops and commas."""
    return re.findall(r"\w+|[.,]", caption)


def describe(spec: ClipSpec) -> str:
    """Return what a clip shows: 40 to 80 words for one to three people, with as much detail as fits."""
    captions = [_describe(spec, level) for level in range(_LEVELS, -1, -1)]
    return next((text for text in captions if len(re.findall(r"\w+", text)) <= MAX_WORDS), captions[-1])


def _describe(spec: ClipSpec, level: int) -> str:
    people = [_person(spec, number, level) for number in range(len(spec.people))] or ["Nobody is in the room."]
    return " ".join([*people, *_room(spec.scene, level)]).replace("Nobody is in", "The room is empty , nobody is in")


def _person(spec: ClipSpec, number: int, level: int) -> str:
    who = spec.people[number].identity
    bald = who.hair_style == "bald"
    features = [] if bald else [f"{who.hair_style} {who.hair.name} hair"]
    features += [f"{who.skin.name} skin"] if level >= 1 else []
    named = "A bald person" if bald else "A person"
    named += f" with {' and '.join(features)}" if features else ""
    worn = [f"{_article(_garment(who.shirt))} shirt", f"{_lower(who)}"]
    if level >= 6:
        worn[0] += f" with {'long' if who.long_sleeves else 'short'} sleeves"
    if level >= 3:
        worn.append(f"{who.shoes.name} shoes")
    clothes = " and ".join([", ".join(worn[:-1]), worn[-1]])
    return f"{named} in {clothes} {_action(spec, number)}."


def _garment(garment: Garment) -> str:
    plain = garment.pattern == "plain"
    return garment.paint.name if plain else f"{garment.paint.name} and {garment.second.name} {garment.pattern}"


def _lower(who: Identity) -> str:
    named = f"{_garment(who.lower)} {who.lower_kind}"
    return _article(named) if who.lower_kind == "skirt" else named


def _action(spec: ClipSpec, number: int) -> str:
    motion = spec.people[number].motion
    rightward = motion.end > motion.start
    if motion.enter > 0:
        return f"comes in from the {'left' if rightward else 'right'}"
    if motion.leave is not None:
        return f"goes out to the {'right' if rightward else 'left'}"
    thing = "" if spec.passed is None else f"{spec.passed.paint.name} {spec.passed.kind}"
    return {
        "stand": "stands still",
        "walk": f"walks to the {'right' if rightward else 'left'}",
        "wave": f"waves with the {motion.side} hand",
        "squat": "squats down",
        "raise": "raises both arms",
        "give": f"hands over {_article(thing)}",
        "take": f"takes the {thing}",
    }[motion.action]


def _room(scene: Scene, level: int) -> list[str]:
    wall = f"{scene.wall_texture} {scene.wall.name}" if level >= 2 else scene.wall.name
    room = f"The room has {_article(wall)} wall"
    if level >= 4:
        room += f" with the word {scene.word} in {scene.word_paint.name} letters"
    if level >= 2:
        room += f" and {_article(f'{scene.floor_texture} {scene.floor.name}')} floor"
    sentences = [f"{room}."]
    if level >= 5 and scene.furniture:
        pieces = [_article(f"{piece.paint.name} {piece.kind}") for piece in scene.furniture[:2]]
        verb = "stands" if len(pieces) == 1 else "and"
        text = f"{pieces[0]} stands at the wall." if verb == "stands" else f"{' and '.join(pieces)} stand at the wall."
        sentences.append(text[0].upper() + text[1:])
    return [*sentences, "The camera does not move."] if level >= _LEVELS else sentences


def _article(text: str) -> str:
    return f"{'an' if text.startswith(('a', 'e', 'i', 'o')) else 'a'} {text}"
