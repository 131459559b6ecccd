"""``regen_train anonymize``: options, a bar while it samples, and what of the input was covered."""

from dataclasses import asdict
from typing import Any

from regen_train.anonymize import (
    AnonymizeOptions,
    AnonymizeReport,
    PainterOptions,
    VideoOptions,
    WindowOptions,
    anonymize_video,
)
from regen_train.guard import GuardSettings
from regen_train.preparation.command_line import GROUPS, parse_options
from regen_train.preparation.options import SecondOpinions
from regen_train.preparation.probe import ProbeSettings
from regen_train.sampling import FAST, SamplingSettings

_KINDS = (VideoOptions, PainterOptions, WindowOptions, SecondOpinions, GuardSettings, SamplingSettings, ProbeSettings)


def main(arguments: list[str]) -> None:
    """Parse the command line, anonymize, and print what was covered."""
    options = parse_arguments(arguments)
    with _Bar() as bar:
        report = anonymize_video(options, progress=bar.update)
    print(describe(report))


def parse_arguments(arguments: list[str]) -> AnonymizeOptions:
    """Return what a command line asks for; exits on wrong input."""
    parsed = parse_options(
        "regen_train anonymize",
        "Anonymize the first window of a video: other people, doing the same.",
        _KINDS,
        arguments,
        GROUPS | {SamplingSettings: "sampling"},
        {f"sampling.cache.{name}": value for name, value in asdict(FAST.cache).items()},
    )
    return AnonymizeOptions(
        video=parsed[VideoOptions],
        model=parsed[PainterOptions],
        window=parsed[WindowOptions],
        sampling=parsed[SamplingSettings],
        guard=parsed[GuardSettings],
        opinions=parsed[SecondOpinions],
        probe=parsed[ProbeSettings],
    )


def describe(report: AnonymizeReport) -> str:
    """Return what was covered, in words."""
    height, width = report.size
    bucket, border, settings = report.bucket, report.border, report.settings
    left = report.source_frames - report.last_frame - 1 + report.first_frame
    lines = [
        f"{report.output}: {bucket.num_frames} frames of {height}x{width} at {report.fps:g} frames a second, "
        "no sound, no metadata",
        f"covered: frames {report.first_frame} to {report.last_frame} of {report.source_frames} "
        f"({report.start:.2f} to {report.end:.2f} s); {left} frames of the input are left out",
        f"painted at {bucket.height}x{bucket.width}"
        + (
            f"; cut off and filled with the painted edge: {border.top} rows at the top, {border.bottom} at the bottom, "
            f"{border.left} columns at the left, {border.right} at the right"
            if border
            else ""
        ),
        f"composed with {_in_words(settings.sample_dict())}",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _in_words(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value}" for name, value in settings.items() if value is not None and name != "conditions"
    )


class _Bar:
    """A bar of sampling steps; on stderr, and only where somebody looks."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int, steps: int) -> None:
        """Show how far it is."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=steps, desc="sampling", unit="step", disable=None, dynamic_ncols=True)
        self._bar.update(step - self._bar.n)
