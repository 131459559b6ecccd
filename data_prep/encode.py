"""Stage 1: clips and their signals to encoded samples, in a work folder.

    python -m data_prep.encode --clips DIR --output DATASET --pretrained MODEL

Every clip is used or refused with its reason; one bad clip stops no other. Running it again encodes only what is
missing or was made with other settings.
"""

import sys
from collections.abc import Sequence

from regen_train.preparation.command import EncodeOptions, encode_with, parse_options, told_in_words, work_folder
from regen_train.preparation.settings import DatasetSettings

PROG = "python -m data_prep.encode"


def main(args: Sequence[str] | None = None) -> int:
    """Run the stage; return 0, or 1 if no clip gave a sample."""
    options, settings = parse_options(PROG, __doc__, [EncodeOptions, DatasetSettings], args)
    with told_in_words(PROG), work_folder(options).lock():
        report = encode_with(options, settings)
    return 0 if report.num_samples else 1


if __name__ == "__main__":
    sys.exit(main())
