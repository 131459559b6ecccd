"""The form of the toy: what its model was made for, and with which settings its datasets are prepared."""

import json

from regen_train.preparation.settings import DatasetSettings
from regen_train.toy.world import ClipFormat, WorldOptions

TOY_FORM = ClipFormat(num_frames=9, height=80, width=80, fps=8.0)
"""Length, size and rate of a clip."""

TOY_PEOPLE = WorldOptions(max_people=2, min_size=0.6, max_size=0.95)
"""Large people, so that patterns can be seen at 80 pixels."""

TOY_DILATION = 1
TOY_LINE_WIDTH = 1.5
"""Pixels. What is right for real video, 8 and 4 pixels, would cover half of so small a picture."""

TOY_DATASET = DatasetSettings(
    fps=TOY_FORM.fps,
    num_frames=TOY_FORM.num_frames,
    sizes=((TOY_FORM.height, TOY_FORM.width),),
    conditions=("structhuman", "structall"),
    dilation=TOY_DILATION,
    line_width=TOY_LINE_WIDTH,
)
"""How drawn clips are made into samples; for the base model with other conditions."""

EXACT_SIGNALS = ("--guard.when_absent", "accept", "--guard.repair_frames", "0")
"""What the gate is told of the drawn world: nobody need look again, and nothing of a mask need be mended.

Its signals are the truth. Without the first, a gate that was given no detectors doubts everything; masks joined with
those of neighbouring frames, as is right for extractors, would be half as large again for people who move so fast.
"""


def prepare_arguments(settings: DatasetSettings) -> list[str]:
    """Return what `data_prep.run` is told of the toy's settings, or of others that differ from them in the same fields.

    Args:
        settings: `TOY_DATASET`, or made from it.
    """
    return [
        *("--fps", f"{settings.fps:g}", "--num_frames", str(settings.num_frames)),
        *("--sizes", json.dumps(settings.sizes, separators=(",", ":"))),
        *("--conditions", json.dumps(settings.conditions, separators=(",", ":"))),
        *("--dilation", str(settings.dilation), "--line_width", f"{settings.line_width:.3g}"),
    ]
