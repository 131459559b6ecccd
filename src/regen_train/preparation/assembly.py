"""Brought and extracted signals of a clip, come together in one folder that equals one a user could bring."""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regen_train.files import whole_file, write_atomically
from regen_train.preparation.extract import FILES, ExtractJob, Kind, read_record, record_path, remove_leftovers
from regen_train.signals import meta as metas


@dataclass(frozen=True)
class Brought:
    """What a clip brings.

    Args:
        folder: Where; only read, and may not exist.
        kinds: The signals that nothing else makes and that are there.
        num_frames: Frames of the clip that its signals shall cover: all, or as many as those brought do.
    """

    folder: Path
    kinds: tuple[Kind, ...]
    num_frames: int


def find_brought(folder: Path, extracted: Collection[Kind], *, sha256: str, num_frames: int) -> Brought:
    """Look at what a clip brings of the signals that are not extracted.

    Args:
        folder: Where it would be.
        extracted: Kinds that are made anew, whatever is there.
        sha256: Of the clip.
        num_frames: Of the clip.

    Raises:
        ValueError: It was made from another file, or does not say from which.
    """
    kinds = tuple(kind for kind, name in FILES.items() if kind not in extracted and (folder / name).is_file())
    path = folder / metas.FILE
    if not kinds or (kinds == ("caption",) and not path.is_file()):
        return Brought(folder, kinds, num_frames)
    if not path.is_file():
        names = ", ".join(FILES[kind] for kind in kinds)
        raise ValueError(
            f"{names} in {folder} come without {metas.FILE}, which says what they were made from; bring it"
        )
    meta = metas.read_meta(path)
    if meta["source_sha256"] != sha256:
        raise ValueError(
            f"signals in {folder} were made from another file: its checksum is {meta['source_sha256'][:12]}..., the "
            f"clip's {sha256[:12]}...; make them anew"
        )
    return Brought(folder, kinds, min(int(meta["num_frames"]), num_frames))


def assemble(job: ExtractJob, brought: Brought, extracted: Collection[Kind]) -> None:
    """Bring all signals of a clip together; nothing else stays in the folder, and what is the same is not touched.

    Args:
        job: The clip.
        brought: What comes from elsewhere.
        extracted: The kinds that were made.

    Raises:
        ValueError: A signal that nothing makes is not there, or cannot be read.
        OSError: The folder cannot be written.
    """
    missing = [name for kind, name in FILES.items() if kind not in {*extracted, *brought.kinds, "depth"}]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: not in {brought.folder}, and nothing was named to make it; bring it, or name an "
            "extractor (--masks, --poses, --captions)"
        )
    remove_leftovers(job.folder)
    stated: dict[str, Any] = {"source_sha256": job.sha256, "num_frames": job.max_frames}
    for kind, name in FILES.items():
        if kind in extracted:
            stated[kind] = (read_record(job.folder, kind) or {}).get("identity", {})
        elif kind in brought.kinds:
            _copy_if_changed(brought.folder / name, job, kind)
            stated[kind] = {"extractor": "files"}
        else:  # of an earlier run, with another extractor
            record_path(job.folder, kind).unlink(missing_ok=True)
            (job.folder / name).unlink(missing_ok=True)
    _state(job.folder / metas.FILE, stated)


def _copy_if_changed(source: Path, job: ExtractJob, kind: Kind) -> None:
    """Copy a file with its time of change, by which the next run knows that it is the same."""
    target, record = job.folder / FILES[kind], record_path(job.folder, kind)
    try:
        with source.open("rb") as file:
            stat = os.fstat(file.fileno())
            if target.is_file() and os.path.samestat(target.stat(), stat):
                return
            if not record.exists() and target.is_file() and _looks(target.stat()) == _looks(stat):
                return
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror}") from error
    job.folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)  # first: what is copied is not what was extracted
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)
        os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _looks(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _state(path: Path, stated: Mapping[str, Any]) -> None:
    text = json.dumps(stated, indent=1, sort_keys=True) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text.encode())
