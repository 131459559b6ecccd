"""All stages: clips and their signals to a dataset that `regen_train fit` reads.

    python -m data_prep.run --clips DIR --output DATASET --pretrained MODEL

Every clip is used or refused with its reason; one bad clip stops no other. A killed run, run again, goes on where it
was and gives the same bytes; a changed setting encodes again what it changes.
"""

import sys
from collections.abc import Sequence

from regen_train.preparation.command import (
    EncodeOptions,
    PackOptions,
    encode_with,
    pack_with,
    parse_options,
    told_in_words,
    work_folder,
)
from regen_train.preparation.settings import DatasetSettings

PROG = "python -m data_prep.run"


def main(args: Sequence[str] | None = None) -> int:
    """Run all stages; return 0, or 1 if no clip gave a sample, and then an older dataset stays as it is."""
    options, packing, settings = parse_options(PROG, __doc__, [EncodeOptions, PackOptions, DatasetSettings], args)
    with told_in_words(PROG), work_folder(options).lock():
        if not encode_with(options, settings).num_samples:
            return 1
        pack_with(packing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
