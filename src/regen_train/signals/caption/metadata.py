"""Captions that came with a dataset, in one table for all clips."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from regen_train.files import file_sha256
from regen_train.guard.detectors import Detector, NameFinder
from regen_train.signals.caption.filter import CaptionFilter, kinds
from regen_train.signals.caption.frames import spread_frames

_VERSION = 1
_NUM_FRAMES = 8
_ENDINGS = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm"})
_MAX_FIELD = 1 << 20
"""Characters of one value; a longer one is a broken quotation mark."""
_LISTED = 5


@dataclass
class MetadataCaptions:
    """Captions of a dataset's own table; the defaults read HOIGen-1M's ``HOIGen_caption_info.csv``.

    HOIGen-1M (Liu et al. 2025, arXiv 2503.23715) has the clip's file name in the column ``path`` and its caption in
    ``text`` (after ReGenHuman's docs/TRAINING.md, which trained on it). For that paper's own tables take ``video_id``
    and ``prompt``. Clips are matched by file name, with or without ending; where several folders have the same name,
    by as much of the path as the table has. The table is held in memory, about its own size.

    A caption passes the filter of `Qwen3VlCaptions`: names and the like are taken out, or it is refused. Its length is
    as it is.

    Args:
        table: A file .csv with a header, .json with a list of objects, or .jsonl with an object a line.
        path_column: Where the clip's file name stands.
        caption_column: Where its caption stands.
        names: Finds names of persons in the captions.
        text: Reads text in the frames, which captions must not repeat.
    """

    table: Path
    path_column: str = "path"
    caption_column: str = "text"
    names: NameFinder | None = None
    text: Detector | None = None
    _captions: dict[str, list[tuple[PurePosixPath, str]]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def setup(self, device: str) -> None:
        """Read the table and load the filter's weights; see `CaptionSource`.

        Raises:
            FileNotFoundError: There is no such table.
            ValueError: It cannot be read, or lacks a column; says where.
        """
        captions: dict[str, list[tuple[PurePosixPath, str]]] = {}
        for path, caption in self._rows():
            place = PurePosixPath(path.replace("\\", "/"))
            captions.setdefault(_stem(place.name), []).append((place, caption))
        self._captions = captions
        self._filter.setup(device)

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `CaptionSource`."""
        return {
            "extractor": type(self).__name__,
            "version": _VERSION,
            "weights": file_sha256(self.table),
            "columns": [self.path_column, self.caption_column],
            **self._filter.identity(),
        }

    def caption(self, clip: Path, *, max_frames: int | None = None) -> str:
        """Look a clip's caption up; see `CaptionSource`.

        Raises:
            FileNotFoundError: There is no such clip, where its text is read.
            ValueError: The table has no caption for it or several, or it tells who somebody is.
        """
        found = self._find(clip)
        frames = [] if self.text is None else spread_frames(clip, _NUM_FRAMES, max_frames=max_frames)
        read = self._filter.read(frames)
        cleaned = self._filter.clean(found, read)
        if cleaned is None:
            raise ValueError(
                f"the caption of {clip.name} in {self.table.name} tells who somebody is "
                f"({kinds(self._filter.faults(found, read)) or 'names'}), and too little is left without that; change "
                "it there, or make one with Qwen3VlCaptions"
            )
        return cleaned

    @property
    def _filter(self) -> CaptionFilter:
        return CaptionFilter(self.names, self.text)

    def _find(self, clip: Path) -> str:
        assert self._captions is not None, "setup comes first"
        entries = self._captions.get(_stem(clip.name), [])
        deepest = max((_agreement(place, clip) for place, _ in entries), default=0)
        captions = {caption for place, caption in entries if _agreement(place, clip) == deepest}
        if not captions:
            raise ValueError(
                f"{self.table.name} has no caption for {clip.name}: no {self.path_column!r} has that file name; add "
                "one, or make one with Qwen3VlCaptions"
            )
        if len(captions) > 1:
            raise ValueError(
                f"{self.table.name} has {len(captions)} different captions for {clip.name}; leave one, or tell them "
                f"apart by folders in {self.path_column!r}"
            )
        return captions.pop()

    def _rows(self) -> Iterator[tuple[str, str]]:
        """Yield path and caption of each row, checked; tell the first few faults at once."""
        if not self.table.is_file():
            raise FileNotFoundError(f"no table of captions at {self.table}")
        faults: list[str] = []
        for place, row in _read(self.table):
            lacking = [name for name in (self.path_column, self.caption_column) if not _is_text(row, name)]
            if lacking:
                faults.append(f"{place} has no text in {' and '.join(map(repr, lacking))}")
            if len(faults) >= _LISTED:
                break
            if not lacking:
                yield row[self.path_column].strip(), row[self.caption_column]
        if faults:
            raise ValueError(
                f"{self.table}: {'; '.join(faults)}. Each row needs a file name and a caption; name other columns with "
                "path_column and caption_column"
            )


def _read(table: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each row stands, and the row."""
    try:
        if table.suffix == ".csv":
            yield from _read_csv(table)
        elif table.suffix == ".jsonl":
            with table.open(encoding="utf-8-sig") as file:
                rows = ((f"line {number}", line) for number, line in enumerate(file, 1) if line.strip())
                yield from ((place, json.loads(line)) for place, line in rows)
        elif table.suffix == ".json":
            content = json.loads(table.read_text(encoding="utf-8-sig"))
            if not isinstance(content, list):
                raise ValueError(f"{table} must hold a list of objects, got {type(content).__name__}")
            yield from ((f"entry {number}", row) for number, row in enumerate(content))
        else:
            raise ValueError(f"{table} must be a .csv, .json or .jsonl file")
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is damaged: {error}") from error


def _read_csv(table: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(_MAX_FIELD)
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            yield f"line {reader.line_num}", row


def _is_text(row: Any, column: str) -> bool:
    value = row.get(column) if isinstance(row, dict) else None
    return isinstance(value, str) and bool(value.strip())


def _stem(name: str) -> str:
    """Return a file name without the ending of a video; ids may hold dots themselves."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.casefold()}" in _ENDINGS else name


def _agreement(place: PurePosixPath, clip: Path) -> int:
    """Count the folders, from the file upwards, in which the table's path and the clip's agree."""
    ours, theirs = clip.absolute().parts[-2::-1], place.parts[-2::-1]
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count
