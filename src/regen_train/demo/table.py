"""The tables that the demo prints at its end."""

from collections.abc import Sequence

from regen_train.demo.journal import Journal
from regen_train.demo.measure import Measurement
from regen_train.demo.methods import METHODS
from regen_train.demo.report import Report
from regen_train.demo.words import number, with_spread

GIGABYTE = 1e9


def figures_table(found: Measurement) -> str:
    """Return the main figures, a line a method."""
    n = found.methods[0].clean.n
    rows = [("", "mask IoU", "PCK", "background dB", "old colours r", "rank-1 clean", "rank-1 adaptive")]
    for figures in found.methods:
        old = figures.old_colours["all"]
        rows.append((
            METHODS[figures.method].label,
            with_spread(figures.mask_iou.value, figures.mask_iou),
            with_spread(figures.pck.value, figures.pck),
            with_spread(figures.background_psnr.value, figures.background_psnr, 1),
            with_spread(old.value, old),
            with_spread(figures.clean.rate, figures.clean),
            with_spread(figures.adaptive.rate, figures.adaptive),
        ))  # fmt: skip
    chance = number(found.methods[0].clean.chance, 3)
    note = (
        f"n = {n} held-out clips and people; chance of rank-1 is {chance}; in brackets: 95 % intervals.\n"
        "Who paints nobody is at chance, too, as blackout is: read rank-1 beside mask IoU and the caption's colours."
    )
    return "\n".join([_aligned(rows), note])


def answers(report: Report) -> str:
    """Return what else was measured: what the LoRA adds, whether captions are followed, whether two are kept apart."""
    lines, found, control = [], report.measurement, report.control
    for gain in found.gains:
        label, figures = METHODS[gain.variant].label, found.of(gain.variant)
        new = figures.new_colours["all"]
        apart = found.apart[gain.variant]
        lines += [
            f"{label}: LoRA against base, mask IoU {with_spread(gain.mask_iou.value, gain.mask_iou, 3)}, "
            f"PCK {with_spread(gain.pck.value, gain.pck, 3)} (paired, n = {gain.pck.n})",
            f"{label}: colours follow the new caption with r {with_spread(new.value, new)} (n = {new.n}); "
            f"two people who cross keep their own in {with_spread(apart.value, apart)} of clips (n = {apart.n})",
        ]
    shirt, moved, others, vae = (
        control.shirt, control.shirt_change, control.other_change, found.reconstruction_psnr,
    )  # fmt: skip
    return "\n".join([
        *lines,
        f"one colour word changed: the shirt follows with r {with_spread(shirt.value, shirt)} and changes by "
        f"{with_spread(moved.value, moved, 0)} of 255, the rest of the person by "
        f"{with_spread(others.value, others, 0)} (n = {shirt.n})",
        f"VAE alone: {with_spread(vae.value, vae, 1)} dB (n = {vae.n})",
    ])  # fmt: skip


def steps_table(journal: Journal) -> str:
    """Return what was done, how long it took and how much memory."""
    rows = [("step", "seconds", "memory", "result")]
    rows += [
        (entry.step, number(entry.seconds, 1), f"{entry.peak_bytes / GIGABYTE:.1f} GB", entry.result)
        for entry in journal.entries
    ]
    rows.append(("together", number(journal.seconds, 1), f"{journal.peak_bytes / GIGABYTE:.1f} GB", ""))
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
