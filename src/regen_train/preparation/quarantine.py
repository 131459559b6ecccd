"""Doubtful windows, put aside with pictures and a list in which a person releases them.

The folder shows the people of the source clips: it belongs to the work folder, not to the dataset.
"""

import csv
import io
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from regen_train.files import write_atomically
from regen_train.guard import GuardReport
from regen_train.preparation.compose import ComposedWindow
from regen_train.preparation.jobs import WindowResult

LIST_NAME = "review.csv"
_COLUMNS = ("release", "clip", "first_frame", "last_frame", "reasons", "picture", "key", "fingerprint")
_YES = frozenset({"yes", "y", "true", "1", "x"})
_NO = frozenset({"", "no", "n", "false", "0"})
_TILE_HEIGHT = 180
_COLUMNS_SHOWN = 6
_OUTLINE, _FLAG = (0, 255, 0), (255, 60, 60)


@dataclass(frozen=True)
class QuarantinedWindow:
    """A window that waits for a person.

    Args:
        key: The key its sample would have.
        fingerprint: Of all that was judged and what was found; a release counts for this alone.
        clip: The video file's name.
        first_frame: Number of its first source frame.
        last_frame: Number of its last.
        reasons: Why it waits, in words.
    """

    key: str
    fingerprint: str
    clip: str
    first_frame: int
    last_frame: int
    reasons: str

    @property
    def picture(self) -> str:
        """Name of its picture."""
        return f"{self.key}.png"


class Quarantine:
    """A folder of doubtful windows: a picture and a record each, and ``review.csv``.

    Any number of workers may put windows in; one process writes the list when they are done.

    Args:
        folder: Where; created on first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, waiting: QuarantinedWindow, report: GuardReport, window: ComposedWindow) -> None:
        """Put a window aside, with a picture of its frames and of what was made of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        flagged = {frame for finding in report.findings if finding.severity != "note" for frame in finding.frames}
        ok, png = cv2.imencode(".png", review_picture(window, flagged)[..., ::-1])
        assert ok
        write_atomically(self.folder / waiting.picture, png.tobytes())
        write_atomically(self.folder / f"{waiting.key}.json", json.dumps(asdict(waiting), indent=1).encode())

    def remove(self, key: str) -> None:
        """Forget a window that is not doubtful any more."""
        for name in (f"{key}.png", f"{key}.json"):
            (self.folder / name).unlink(missing_ok=True)

    def holds(self, key: str, fingerprint: str) -> bool:
        """Return whether a window waits, with its picture, as it was judged last."""
        path = self.folder / f"{key}.json"
        if not path.is_file() or not (self.folder / f"{key}.png").is_file():
            return False
        return bool(json.loads(path.read_text())["fingerprint"] == fingerprint)

    def forget_settled(self, windows: Iterable[WindowResult], released: Collection[str]) -> None:
        """Forget windows that were doubtful under other settings only; those released stay in the list."""
        for window in windows:
            if window.status != "review" and window.key not in released:
                self.remove(window.key)

    def released(self) -> dict[str, str]:
        """Return key and fingerprint of each window that a person has released in ``review.csv``.

        Raises:
            ValueError: The list cannot be understood; names every line at fault.
        """
        return {row["key"]: row["fingerprint"] for row in self._rows() if row["release"].strip().lower() in _YES}

    def write_list(self) -> int:
        """Write ``review.csv`` anew, keeping what a person entered; return how many windows are not released."""
        if not self.folder.is_dir():
            return 0
        entered = {(row["key"], row["fingerprint"]): row["release"] for row in self._rows()}
        listed = sorted(self._listed(), key=lambda item: (item.clip, item.first_frame))
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        waiting = 0
        for item in listed:
            release = entered.get((item.key, item.fingerprint), "no")
            waiting += release.strip().lower() not in _YES
            writer.writerow({"release": release, "picture": item.picture, **asdict(item)})
        write_atomically(self.folder / LIST_NAME, text.getvalue().encode())
        return waiting

    def _listed(self) -> list[QuarantinedWindow]:
        return [QuarantinedWindow(**json.loads(path.read_text())) for path in sorted(self.folder.glob("*.json"))]

    def _rows(self) -> list[dict[str, str]]:
        path = self.folder / LIST_NAME
        if not path.is_file():
            return []
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        faults = []
        for line, row in enumerate(rows, start=2):
            if any(row.get(column) is None for column in _COLUMNS):
                faults.append(f"line {line} lacks a column; there are {', '.join(_COLUMNS)}")
            elif row["release"].strip().lower() not in _YES | _NO:
                faults.append(f"line {line}: release must be yes or no, got {row['release']!r}")
        if faults:
            raise ValueError(f"{path}: {'; '.join(faults)}")
        return rows


def review_picture(window: ComposedWindow, flagged: set[int]) -> NDArray[np.uint8]:
    """Return a sheet [h, w, 3]: source frames with the mask's outline, and the conditions made of them below.

    Args:
        window: The window.
        flagged: Source frames to show first and to mark.
    """
    places = _places(window.frames, flagged)
    rows = [[_source_tile(window, place, flagged) for place in places]]
    rows += [[_fit(video[place].numpy()) for place in places] for _, video in sorted(window.clip.conditions.items())]
    width = max(tile.shape[1] for row in rows for tile in row)
    # Columns of one width, so that a frame and what was made of it stand below each other.
    return np.vstack([np.hstack([np.pad(t, ((0, 4), (0, width - t.shape[1]), (0, 0))) for t in row]) for row in rows])


def _places(frames: Sequence[int], flagged: set[int]) -> list[int]:
    """Return places in the window: those nearest to flagged frames, then spread evenly, as many as a sheet shows."""
    near = sorted({min(range(len(frames)), key=lambda i: abs(frames[i] - flag)) for flag in flagged})
    if len(near) > _COLUMNS_SHOWN:
        near = [near[i] for i in np.linspace(0, len(near) - 1, _COLUMNS_SHOWN).round().astype(int)]
    spread = np.linspace(0, len(frames) - 1, min(len(frames), _COLUMNS_SHOWN)).round().astype(int).tolist()
    missing = [place for place in spread if place not in near]
    return sorted([*near, *missing[: _COLUMNS_SHOWN - len(near)]])


def _source_tile(window: ComposedWindow, place: int, flagged: set[int]) -> NDArray[np.uint8]:
    picture = window.pictures[place].numpy().copy()
    mask = (window.signals.mask[place] > 0).numpy().astype(np.uint8)
    mask = cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, _OUTLINE, max(1, min(picture.shape[:2]) // 240))
    tile, number = _fit(picture), window.frames[place]
    here = window.frames[place : place + 2]
    colour = _FLAG if any(here[0] <= flag < (here[-1] if len(here) > 1 else here[0] + 1) for flag in flagged) else None
    cv2.putText(tile, str(number), (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour or (255, 255, 255), 2, cv2.LINE_AA)
    if colour:
        cv2.rectangle(tile, (0, 0), (tile.shape[1] - 1, tile.shape[0] - 1), colour, 2)
    return tile


def _fit(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = round(picture.shape[1] * _TILE_HEIGHT / picture.shape[0])
    return np.asarray(cv2.resize(picture, (width, _TILE_HEIGHT), interpolation=cv2.INTER_AREA))
