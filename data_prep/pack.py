"""Stage 3: encoded samples to a dataset: tars, index.parquet, constants.safetensors, dataset.json.

    python -m data_prep.pack --output DATASET

Packs what the last run of data_prep.encode accepted, or all shards of a job array, and nothing else. The same samples
give the same bytes.
"""

import sys
from collections.abc import Sequence

from regen_train.preparation.command import pack_with
from regen_train.preparation.command_line import parse_options, told_in_words
from regen_train.preparation.options import PackOptions

PROG = "python -m data_prep.pack"


def main(args: Sequence[str] | None = None) -> int:
    """Run the stage."""
    options = parse_options(PROG, __doc__, [PackOptions], args)[PackOptions]
    with told_in_words(PROG), options.work_folder.lock():
        pack_with(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
