"""How many known faults of masks does the gate find, and how many good clips does it doubt? Without any detector.

    python benchmarks/gate_faults.py [--clips 24] [--height 240] [--width 416] [--real CLIPS]

Draws toy clips with exact signals, spoils their masks, lets repair mend what it can, composes StructHuman, and asks the
gate, as data preparation does. ``--real`` takes the clips of a folder and of its ``signals`` instead: their masks count
as good, so choose clips whose masks are.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import Tensor

from regen_train.conditions import default_dilation, dilate, struct_human
from regen_train.guard import GuardReport, GuardSettings, inspect_clip, repair_mask
from regen_train.preparation.survey import find_clips
from regen_train.signals import load_signals
from regen_train.skeleton import draw_pose
from regen_train.toy.faults import Fault, exposed_share, mask_faults
from regen_train.toy.world import ClipFormat, WorldOptions, draw_clip, render
from regen_train.video import read_video

SETTINGS = GuardSettings(when_absent="accept")
HARMLESS = 0.002

Clip = tuple[Tensor, Tensor, Tensor, Tensor]


def judge(clip: Clip, spoilt: Tensor) -> tuple[GuardReport, float]:
    """Mend spoilt masks, compose, ask the gate; also return the share of people that stays open."""
    frames, mask, keypoints, scores = clip
    height, width = mask.shape[1:]
    radius = default_dilation(height, width)
    mended, _ = repair_mask(spoilt, frames=SETTINGS.repair_frames, hole_share=SETTINGS.hole_share)
    condition = struct_human(frames, dilate(mended > 0, radius), draw_pose(keypoints, scores, height, width))
    report = inspect_clip(frames, mended, keypoints, scores, condition, given=spoilt, settings=SETTINGS)
    return report, exposed_share(mask, mended, radius)


def toy_clips(count: int, height: int, width: int) -> list[Clip]:
    """Draw clips of two people each."""
    form, options = ClipFormat(num_frames=33, height=height, width=width, fps=15.0), WorldOptions(2, 2)
    drawn = [render(draw_clip(7, number, form, options)) for number in range(count)]
    return [(clip.frames, clip.mask, clip.poses.keypoints, clip.poses.scores) for clip in drawn]


def real_clips(folder: Path) -> list[Clip]:
    """Read clips and their signals."""
    clips = []
    for path in find_clips(folder):
        signals = load_signals(folder / "signals" / path.stem, clip=path)
        frames = read_video(path, max_frames=signals.num_frames).frames
        clips.append((frames, signals.mask, signals.keypoints, signals.scores))
    return clips


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=416)
    parser.add_argument("--real", type=Path)
    options = parser.parse_args()
    clips = (
        toy_clips(options.clips, options.height, options.width) if options.real is None else real_clips(options.real)
    )
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    checks: dict[str, Counter[str]] = defaultdict(Counter)
    for number, clip in enumerate(clips):
        size = clip[1].shape[1:]
        other = next((c[1] for c in clips[number + 1 :] + clips if c is not clip and c[1].shape[1:] == size), clip[1])
        faults = mask_faults(other, pixels=round(20 * min(size) / 480))
        for fault in (Fault("no fault", lambda mask: mask), *faults):
            spoilt = fault.spoil(clip[1])
            if fault.name != "no fault" and torch.equal(spoilt, clip[1]):
                continue
            report, open_share = judge(clip, spoilt)
            harmful = fault.name == "no fault" or open_share > HARMLESS
            name = fault.name.split(" px")[0].rstrip("0123456789").strip() if " px" in fault.name else fault.name
            verdicts[name][report.verdict if harmful else "mended"] += 1
            checks[name].update({f.check for f in report.findings if f.severity != "note"} if harmful else ())
    print("| fault | clips | nobody open after repair | rejected | review | accepted | found by |\n" + "|---" * 7 + "|")
    for name, count in verdicts.items():
        by = ", ".join(f"{check} {n}" for check, n in checks[name].most_common(4))
        row = [name, count.total(), count["mended"], count["reject"], count["review"], count["accept"], by]
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
