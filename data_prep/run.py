"""All stages: clips to a dataset that `regen_train fit` reads.

    python -m data_prep.run --clips DIR --output DATASET --pretrained MODEL

Signals come from CLIPS/signals, or from the extractors you name (--masks, --poses, --depth, --captions). Every window
of every clip is used, put aside as doubtful (--review), or refused with its reason; one bad clip stops no other. A
killed run, run again, goes on where it was and gives the same bytes; a changed setting makes again what it changes.
"""

import sys
from collections.abc import Sequence

from regen_train.preparation.command import Preparation, pack_with
from regen_train.preparation.command_line import ENCODING, STAGES, parse_options, told_in_words
from regen_train.preparation.options import EngineOptions, PackOptions, SourceOptions

PROG = "python -m data_prep.run"


def main(args: Sequence[str] | None = None) -> int:
    """Run all stages; return 0, or 1 if no clip gave a sample, and then an older dataset stays as it is."""
    options = parse_options(PROG, __doc__, [*STAGES, PackOptions, *ENCODING], args)
    source: SourceOptions = options[SourceOptions]
    part = options[EngineOptions].part
    with told_in_words(PROG), source.work_folder.lock(None if part is None else str(part)):
        report = Preparation(options).encode()
        if part is not None:
            print(f"shard {part} is done; when all are, run python -m data_prep.pack --output {source.output}")
            return 0
        if not report.num_samples:
            return 1
        pack_with(options[PackOptions])
    return 0


if __name__ == "__main__":
    sys.exit(main())
