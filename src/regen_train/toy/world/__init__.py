"""A drawn world of people in rooms, with the exact truth of every pixel; same seed, same bytes."""

from regen_train.toy.world.caption import VOCABULARY, caption_words
from regen_train.toy.world.files import WorldFiles, write_clip, write_world
from regen_train.toy.world.identity import Garment, Identity, draw_identity
from regen_train.toy.world.motion import Motion
from regen_train.toy.world.palette import Paint
from regen_train.toy.world.render import WorldClip, render
from regen_train.toy.world.scene import Furniture, Scene, draw_scene
from regen_train.toy.world.spec import ClipSpec, Passed, Person
from regen_train.toy.world.story import ClipFormat, WorldOptions, draw_clip

__all__ = [
    "VOCABULARY",
    "ClipFormat",
    "ClipSpec",
    "Furniture",
    "Garment",
    "Identity",
    "Motion",
    "Paint",
    "Passed",
    "Person",
    "Scene",
    "WorldClip",
    "WorldFiles",
    "WorldOptions",
    "caption_words",
    "draw_clip",
    "draw_identity",
    "draw_scene",
    "render",
    "write_clip",
    "write_world",
]
