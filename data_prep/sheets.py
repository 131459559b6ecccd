"""Look into a dataset: some samples as contact sheets, real clip and conditions decoded from their latents.

    python -m data_prep.sheets --dataset DATASET --pretrained MODEL --output SHEETS

The sheets show the people of the source clips: keep them as safe as the clips.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regen_train.draws import permutation
from regen_train.encoders import load_vae
from regen_train.preparation.command_line import parse_options, pick_device, told_in_words
from regen_train.preparation.preview import check_vae, contact_sheet, write_sheet
from regen_train.shards import ShardReader

PROG = "python -m data_prep.sheets"


@dataclass(frozen=True)
class SheetOptions:
    """What to show.

    Args:
        dataset: The dataset's folder or address.
        pretrained: The model it was prepared with.
        output: Folder of the PNG files, one a sample, named by its key.
        num_samples: How many samples, drawn at random.
        seed: Other seeds draw other samples.
        columns: How many frames of each.
        revision: Branch, tag or commit of a hub id.
        device: Where the VAE runs; auto takes a GPU if there is one.
    """

    dataset: str
    pretrained: str
    output: Path
    num_samples: int = 8
    seed: int = 0
    columns: int = 5
    revision: str | None = None
    device: str = "auto"


def main(args: Sequence[str] | None = None) -> int:
    """Write the sheets."""
    (options,) = parse_options(PROG, __doc__, [SheetOptions], args).values()
    with told_in_words(PROG):
        reader = ShardReader(options.dataset)
        vae = load_vae(options.pretrained, device=pick_device(options.device), revision=options.revision)
        check_vae(reader.dataset.info, vae)
        options.output.mkdir(parents=True, exist_ok=True)
        for number in permutation(len(reader), options.seed, 0, "preview")[: options.num_samples].tolist():
            sample = reader.read(number)
            write_sheet(options.output / f"{sample.key}.png", contact_sheet(sample, vae, columns=options.columns))
            print(f"{sample.key}: {sample.bucket}, {', '.join(sorted(sample.conditions))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
