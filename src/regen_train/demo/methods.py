"""Every way to make people unknown that the demo compares, and the videos that come of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from regen_train.anonymize import Painter, Painting, load_painter
from regen_train.demo.settings import TOY_SAMPLING, VARIANTS, DemoSettings
from regen_train.demo.subjects import Subject, Subjects
from regen_train.evaluation import blackout_people, blur_people, pixelate_people

BLUR_SIGMA, PIXEL_CELL = 4, 8
"""Pixels: a twentieth and a tenth of the toy's frame."""


@dataclass(frozen=True)
class Method:
    """A way to treat a clip.

    Args:
        name: Its key.
        label: What people read.
        what: What it does, in a few words.
        paints: The condition that it paints new people from; None where it does not.
        trained: Whether a LoRA is on the model.
    """

    name: str
    label: str
    what: str
    paints: str | None = None
    trained: bool = False


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("original", "Original", "untouched"),
        Method("blur", "Blur", f"Gaussian, sigma {BLUR_SIGMA} px, under the mask"),
        Method("pixelate", "Pixelate", f"cells of {PIXEL_CELL} px, under the mask"),
        Method("blackout", "Blackout", "black under the mask"),
        Method("reconstruction", "VAE alone", "original through the VAE: the sharpest that the model can paint"),
        Method("base-structhuman", "StructHuman, no LoRA", "the base model on this condition", "structhuman"),
        Method("base-structall", "StructAll, no LoRA", "the base model on this condition", "structall"),
        Method("structhuman", "StructHuman", "real room, gray people, skeleton", "structhuman", trained=True),
        Method("structall", "StructAll", "depth of the room, gray people, skeleton", "structall", trained=True),
    )
}

Treated = Mapping[str, Sequence[UInt8[Tensor, "t h w 3"]]]
"""Method to its video of each clip."""


@dataclass(frozen=True)
class Painters:
    """The model, before and after training.

    Args:
        base: Without LoRA.
        trained: Variant to the model with its LoRA.
    """

    base: Painter
    trained: Mapping[str, Painter]


def load_painters(loras: Mapping[str, Path], settings: DemoSettings) -> Painters:
    """Load the model without and with the LoRA of each variant.

    Args:
        loras: Variant to the folder that an export wrote.
        settings: The model.
    """
    trained: dict[str, Painter] = {
        variant: load_painter(settings.pretrained, str(loras[variant]), dtype="fp32") for variant in VARIANTS
    }
    # Told apart by the LoRA alone: the base is given the reference image, or none, as the LoRA was.
    base = load_painter(settings.pretrained, None, dtype="fp32", reference=trained[VARIANTS[0]].reference)
    return Painters(base, trained)


def treat(subjects: Subjects, painters: Painters, settings: DemoSettings) -> dict[str, list[UInt8[Tensor, "t h w 3"]]]:
    """Treat clips by every method.

    Args:
        subjects: The clips.
        painters: The model.
        settings: The seed and the size of batches.

    Returns:
        Method to its videos, in the order of ``subjects.all``; of the model without LoRA those of one person alone.
    """
    treated: dict[str, list[Tensor]] = {}
    for method in METHODS.values():
        if method.paints is None:
            treatment = _baseline(method.name, painters.base)
            treated[method.name] = [treatment(subject) for subject in subjects.all]
        elif method.trained:
            painter = painters.trained[method.paints]
            treated[method.name] = paint(subjects.all, painter, method.paints, settings, label=method.label)
        else:
            treated[method.name] = paint(subjects.alone, painters.base, method.paints, settings, label=method.label)
    return treated


def paint(
    subjects: Sequence[Subject], painter: Painter, variant: str, settings: DemoSettings, *, label: str
) -> list[UInt8[Tensor, "t h w 3"]]:
    """Paint the people whom each clip's new caption describes, from one of its conditions.

    Args:
        subjects: The clips.
        painter: The model.
        variant: The condition.
        settings: The seed, and the size of batches.
        label: Shown beside the progress.
    """
    wanted = [
        Painting(subject.composed.conditions[variant], subject.held_out.described.caption, seed=settings.seed + number)
        for number, subject in enumerate(subjects)
    ]
    with tqdm(total=100, desc=label, unit="%", disable=None, bar_format="{desc:<22} {percentage:3.0f}% |{bar}|") as bar:

        def show(done: int, of: int) -> None:
            bar.update(100 * done // of - bar.n)

        return painter.paint(wanted, settings=TOY_SAMPLING, batch_size=settings.batch_size, progress=show)


def _baseline(name: str, painter: Painter) -> Callable[[Subject], UInt8[Tensor, "t h w 3"]]:
    if name == "reconstruction":
        return lambda subject: _reconstruct(painter, subject.composed.frames)
    if name == "blur":
        return lambda subject: blur_people(subject.composed.frames, subject.composed.mask, sigma=BLUR_SIGMA)
    if name == "pixelate":
        return lambda subject: pixelate_people(subject.composed.frames, subject.composed.mask, cell=PIXEL_CELL)
    if name == "blackout":
        return lambda subject: blackout_people(subject.composed.frames, subject.composed.mask)
    assert name == "original", name
    return lambda subject: subject.composed.frames


@torch.no_grad()
def _reconstruct(painter: Painter, frames: UInt8[Tensor, "t h w 3"]) -> UInt8[Tensor, "t h w 3"]:
    return painter.encoders.decode_video(painter.encoders.encode_video(frames))
