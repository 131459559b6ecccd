"""Stage 1: the signals that clips do not bring: masks, keypoints, depth, captions.

    python -m data_prep.extract --clips DIR --output DATASET --masks Sam3Masks --poses DwPose \
        --depth DepthAnythingV2 --captions Qwen3VlCaptions

What is not named is taken from CLIPS/signals. Each clip's signals come together in DATASET/.work/signals/CLIP, in the
form that anyone could bring. Running it again makes only what is missing or was made in another way.
"""

import sys
from collections.abc import Sequence

from regen_train.preparation.command import Preparation
from regen_train.preparation.command_line import STAGES, parse_options, told_in_words
from regen_train.preparation.options import EngineOptions, SourceOptions

PROG = "python -m data_prep.extract"


def main(args: Sequence[str] | None = None) -> int:
    """Run the stage; return 0, or 1 if a clip could not be used."""
    options = parse_options(PROG, __doc__, STAGES, args)
    part = options[EngineOptions].part
    with told_in_words(PROG), options[SourceOptions].work_folder.lock(None if part is None else str(part)):
        report = Preparation(options).extract()
    return 1 if report.verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
