"""Stage 2: clips and their signals, judged and encoded, into a work folder.

    python -m data_prep.encode --clips DIR --output DATASET --pretrained MODEL

Every window of every clip is used, put aside as doubtful, or refused with its reason; one bad clip stops no other.
Running it again encodes only what is missing or was made with other settings.
"""

import sys
from collections.abc import Sequence

from regen_train.preparation.command import Preparation
from regen_train.preparation.command_line import ENCODING, STAGES, parse_options, told_in_words
from regen_train.preparation.options import EngineOptions, SourceOptions

PROG = "python -m data_prep.encode"


def main(args: Sequence[str] | None = None) -> int:
    """Run the stage; return 0, or 1 if no clip gave a sample."""
    options = parse_options(PROG, __doc__, [*STAGES, *ENCODING], args)
    source: SourceOptions = options[SourceOptions]
    part = options[EngineOptions].part
    with told_in_words(PROG), source.work_folder.lock(None if part is None else str(part)):
        report = Preparation(options).encode()
    return 0 if report.num_samples or part is not None else 1


if __name__ == "__main__":
    sys.exit(main())
