"""Do the toy's figures hold for other seeds? The demo over and over, each time another world, LoRA, noise and people.

    python benchmarks/toy_claims.py [--seeds 0 1 2] [--steps 200] [--output toy_claims]

Each seed draws its own training clips, trains its own StructHuman and StructAll LoRA, and anonymizes its own held-out
people. Prints, as markdown, the mean over seeds of every figure with the smallest and the largest, and writes each
seed's report.json. About 5 minutes a seed on 2 CPU cores. The base model is one and the same: the toy that ships.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from regen_train.demo import DemoSettings
from regen_train.demo.follow import load_follower
from regen_train.demo.measure import Gain
from regen_train.demo.methods import METHODS
from regen_train.demo.report import Report
from regen_train.demo.run import claim, go
from regen_train.demo.settings import VARIANTS, DemoFolder
from regen_train.demo.words import number
from regen_train.evaluation import REGIONS

Figure = Callable[[Report], float]


def main() -> None:
    """Run the demo for each seed and print how far the figures spread."""
    arguments = _arguments()
    reports = []
    for seed in arguments.seeds:
        folder = arguments.output / f"seed-{seed}"
        claim(folder)
        settings = DemoSettings(pretrained=arguments.pretrained, steps=arguments.steps, seed=seed)
        reports.append(go(DemoFolder(folder), settings, load_follower()))
    print("\n" + spread_table(reports, arguments.seeds))


def spread_table(reports: Sequence[Report], seeds: Sequence[int]) -> str:
    """Return all figures over all seeds, as markdown."""
    settings = reports[0].settings
    lines = [
        f"Seeds {', '.join(map(str, seeds))}; of each, n = {settings.num_measured} held-out people, "
        f"{settings.num_pairs} pairs, {settings.num_recoloured} changed words; {settings.steps} steps. "
        "Mean (smallest to largest) over seeds.",
        "",
        "| | mask IoU | PCK | background dB | old colours r | rank-1 clean | rank-1 adaptive |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        cells = [_cell(reports, _of(name, figure), digits) for figure, digits in _COLUMNS]
        lines.append(f"| {method.label} | {' | '.join(cells)} |")
    lines += ["", "| | " + " | ".join(VARIANTS) + " |", "|---|" + "---|" * len(VARIANTS)]
    for label, figure in _BY_VARIANT.items():
        cells = [_cell(reports, lambda report, v=variant, f=figure: f(report, v), 2) for variant in VARIANTS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", "| one word changed, and the machine | |", "|---|---|"]
    lines += [f"| {label} | {_cell(reports, figure, digits)} |" for label, (figure, digits) in _OVERALL.items()]
    return "\n".join(lines)


_COLUMNS: tuple[tuple[Callable[..., float], int], ...] = (
    (lambda figures: figures.mask_iou.value, 2),
    (lambda figures: figures.pck.value, 2),
    (lambda figures: figures.background_psnr.value, 1),
    (lambda figures: figures.old_colours["all"].value, 2),
    (lambda figures: figures.clean.rate, 2),
    (lambda figures: figures.adaptive.rate, 2),
)

_BY_VARIANT: dict[str, Callable[[Report, str], float]] = {
    "LoRA against base, mask IoU": lambda report, variant: _gain(report, variant).mask_iou.value,
    "the same, lower end of its interval": lambda report, variant: _gain(report, variant).mask_iou.low,
    "LoRA against base, PCK": lambda report, variant: _gain(report, variant).pck.value,
    "the same, lower end": lambda report, variant: _gain(report, variant).pck.low,
    "mask IoU, share of the VAE's": lambda report, variant: (
        report.measurement.of(variant).mask_iou.value / report.measurement.of("reconstruction").mask_iou.value
    ),
    **{
        f"caption's colour of {region}, r": lambda report, variant, region=region: (
            report.measurement.of(variant).new_colours[region].value
        )
        for region in (*REGIONS, "all")
    },
    "two people who cross keep their own": lambda report, variant: report.measurement.apart[variant].value,
}

_OVERALL: dict[str, tuple[Figure, int]] = {
    "the shirt follows, r": (lambda report: report.control.shirt.value, 2),
    "the shirt changes by, levels of 255": (lambda report: report.control.shirt_change.value, 0),
    "the rest of the person by": (lambda report: report.control.other_change.value, 0),
    "VAE alone, dB": (lambda report: report.measurement.reconstruction_psnr.value, 1),
    "seconds": (lambda report: report.journal.seconds, 0),
    "peak memory, GB": (lambda report: report.journal.peak_bytes / 1e9, 1),
}


def _gain(report: Report, variant: str) -> Gain:
    return next(gain for gain in report.measurement.gains if gain.variant == variant)


def _of(method: str, figure: Callable[..., float]) -> Figure:
    return lambda report: figure(report.measurement.of(method))


def _cell(reports: Sequence[Report], figure: Figure, digits: int) -> str:
    values = [value for value in map(figure, reports) if not math.isnan(value)]
    if not values:
        return number(math.nan, digits)
    mean, low, high = (number(value, digits) for value in (statistics.fmean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=DemoSettings().steps)
    parser.add_argument("--pretrained", default="toy")
    parser.add_argument("--output", type=Path, default=Path("toy_claims"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
