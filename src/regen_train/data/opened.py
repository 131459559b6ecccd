"""The datasets of a run: opened, checked against the config, and divided into training and validation."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regen_train.data.conditioning import Variants
from regen_train.schema import Bucket
from regen_train.shards import CacheSpec, Dataset, IndexRow, ShardReader, load_dataset

_WINDOW_KEY = re.compile(r"([0-9a-f]{24})-[0-9]{4,}")


@dataclass(frozen=True)
class HeldOut:
    """What validation is measured on.

    Clips are held out whole: no window of a clip that gives a held-out sample is trained on.

    Args:
        path: A dataset of its own; null to hold out clips of the training dataset.
        num_samples: How many; all windows of one clip before those of the next, in the order of a hash of the clip, so
            the same for every seed. 0 takes none of the training dataset, or all of ``path``.
    """

    path: str | None = None
    num_samples: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 0:
            raise ValueError(f"validation.num_samples must not be negative, got {self.num_samples}")


@dataclass(frozen=True)
class OpenData:
    """The opened datasets.

    Args:
        reader: Of the training dataset.
        held_out_reader: Of the dataset that validation reads from; the same, unless it has one of its own.
        held_out: Samples of the latter to validate on, in the order of bucket and key.
        taken: Samples of the training dataset that are not trained on: all windows of the held-out clips.
    """

    reader: ShardReader
    held_out_reader: ShardReader
    held_out: tuple[int, ...]
    taken: frozenset[int]

    @property
    def num_taken_from_training(self) -> int:
        """Samples of the training dataset that are not trained on."""
        return len(self.taken)

    def training_samples(self) -> dict[Bucket, list[int]]:
        """Return the samples to train on, by bucket, in the order of their keys.

        Raises:
            ValueError: None is left.
        """
        rows = self.reader.dataset.rows
        if len(self.taken) == len(rows):
            raise ValueError(
                f"holding out {len(self.held_out)} samples leaves none of {self.reader.dataset.storage.path} to train "
                f"on, for clips are held out whole and it has {len({clip_of(row.key) for row in rows})}; prepare more "
                "clips, lower data.validation.num_samples, or name a dataset for validation: data.validation.path"
            )
        return by_bucket(rows, self.taken)

    def held_out_buckets(self) -> list[Bucket]:
        """Return the bucket of each held-out sample."""
        return [self.held_out_reader.dataset.rows[number].bucket for number in self.held_out]

    def close(self) -> None:
        """Let go of the mapped shards."""
        self.reader.close()
        self.held_out_reader.close()


def open_data(
    path: str, validation: HeldOut, *, variants: Variants, expect: Mapping[str, Any], cache: CacheSpec
) -> OpenData:
    """Open the datasets of a run.

    Args:
        path: The training dataset.
        validation: What validation is measured on.
        variants: Conditions that both must have.
        expect: Dotted field of dataset.json to the value it must have.
        cache: Where shards of a remote dataset are kept.

    Raises:
        FileNotFoundError: A dataset is missing.
        ValueError: A dataset is damaged, or not the one the config describes; names every difference.
    """
    training = load_dataset(path)
    faults = expectation_faults(expect, training.content) + variant_faults(training, variants)
    source = load_dataset(validation.path) if validation.path else training
    if source is not training:
        faults += validation_faults(training, source, variants)
    if validation.num_samples > len(source):
        faults.append(
            f"validation.num_samples is {validation.num_samples}, but {source.storage.path} has {len(source)}"
        )
    if faults:
        raise ValueError(f"{path} is not what the config describes:\n  " + "\n  ".join(faults))
    reader = ShardReader(training, cache=cache)
    held_out = choose_held_out(source.rows, validation.num_samples or (len(source) if validation.path else 0))
    if source is training:
        return OpenData(reader, reader, tuple(held_out), whole_clips(training.rows, held_out))
    return OpenData(reader, ShardReader(source, cache=cache), tuple(held_out), frozenset())


def expectation_faults(expect: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """Compare what a config expects of a dataset with its dataset.json.

    Args:
        expect: Dotted field, such as ``settings.fps``, to its value.
        content: dataset.json.

    Returns:
        One line for every field that differs: its name, the dataset's value, the config's value.
    """
    faults = []
    for name, value in expect.items():
        found: Any = content
        for part in name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                fields = ", ".join(sorted(found)) if isinstance(found, Mapping) else "none below it"
                faults.append(f"{name}: the dataset has no such field (at {part!r} it has: {fields})")
                break
            found = found[part]
        else:
            if found != json.loads(json.dumps(value)):
                faults.append(f"{name}: the dataset has {found!r}, the config expects {value!r}")
    return faults


def validation_faults(training: Dataset, validation: Dataset, variants: Variants) -> list[str]:
    """Return why a dataset cannot validate what another one trains."""
    faults = []
    for name in ("encoder", "geometry"):
        ours, theirs = training.content[name], validation.content[name]
        faults += [
            f"{name}.{key}: training has {ours.get(key)!r}, {validation.storage.path} has {theirs.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
    return faults + variant_faults(validation, variants)


def variant_faults(dataset: Dataset, variants: Variants) -> list[str]:
    """Return the conditions that a dataset lacks."""
    has = dataset.info.conditions
    return [
        f"variant {name!r} is not in {dataset.storage.path}, which has {', '.join(has)}"
        for name in variants.shares
        if name not in has
    ]


def clip_of(key: str) -> str:
    """Return what the keys of all windows of a clip share; a key made elsewhere is a clip of its own."""
    window = _WINDOW_KEY.fullmatch(key)
    return window[1] if window else key


def choose_held_out(rows: Sequence[IndexRow], count: int) -> list[int]:
    """Return ``count`` of the rows, clip by clip in the order of a hash of the clip, sorted by bucket and key."""

    def place(number: int) -> tuple[bytes, str]:
        key = rows[number].key
        return hashlib.sha256(f"held out {clip_of(key)}".encode()).digest(), key

    chosen = sorted(range(len(rows)), key=place)[:count]
    return sorted(chosen, key=lambda i: (rows[i].bucket, rows[i].key))


def whole_clips(rows: Sequence[IndexRow], chosen: Iterable[int]) -> frozenset[int]:
    """Return the rows of all clips that the chosen rows are windows of."""
    clips = {clip_of(rows[number].key) for number in chosen}
    return frozenset(number for number, row in enumerate(rows) if clip_of(row.key) in clips)


def by_bucket(rows: Sequence[IndexRow], excluded: Collection[int]) -> dict[Bucket, list[int]]:
    """Return the rows of each bucket, in their order, without the excluded ones."""
    found: dict[Bucket, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if number not in excluded:
            found[row.bucket].append(number)
    return dict(found)
