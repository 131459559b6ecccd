"""Stage 2: encoded samples to a dataset: tars, index.parquet, constants.safetensors, dataset.json.

    python -m data_prep.pack --output DATASET

Packs what the last run of data_prep.encode accepted and nothing else. The same samples give the same bytes.
"""

import sys
from collections.abc import Sequence

from regen_train.preparation.command import PackOptions, pack_with, parse_options, told_in_words, work_folder

PROG = "python -m data_prep.pack"


def main(args: Sequence[str] | None = None) -> int:
    """Run the stage."""
    (options,) = parse_options(PROG, __doc__, [PackOptions], args)
    with told_in_words(PROG), work_folder(options).lock():
        pack_with(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
