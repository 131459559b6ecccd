"""All signals of a clip in one folder: read with every check, written whole or not at all."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from torch import Tensor

from regen_train.files import file_sha256, sync
from regen_train.signals import caption as captions
from regen_train.signals import depth as depths
from regen_train.signals import mask as masks
from regen_train.signals import meta as metas
from regen_train.signals import pose as poses
from regen_train.video import count_frames, decode_gray, pick_frames, probe_video

_NOMINAL_FPS = 25
"""Signals go by frame number; the rate their files carry means nothing."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Signals:
    """What is known of a clip's people, frame by frame in the upright clip.

    Args:
        mask: 0 nobody, 1 to 254 a person by track id, 255 a person of unknown track.
        keypoints: (x, y) in source pixels, COCO-WholeBody order, NaN where absent.
        scores: How sure each point is.
        track: Track of each person of ``keypoints``, -1 unknown; None without tracking.
        depth: Inverse depth, uint16, near = large; None where the clip has none.
        caption: What the clip shows.
        num_frames: Frames of the clip, from its start, that the signals cover.
        source_sha256: Checksum of the clip they were made from.
        meta: The whole of ``signals.json``: extractors, versions, settings.
    """

    mask: UInt8[Tensor, "t h w"]
    keypoints: Float32[Tensor, "t p 133 2"]
    scores: Float32[Tensor, "t p 133"]
    track: Int64[Tensor, "t p"] | None
    depth: Shaped[Tensor, "t h w"] | None
    caption: str
    num_frames: int
    source_sha256: str
    meta: Mapping[str, Any]

    @property
    def people(self) -> Bool[Tensor, "t h w"]:
        """Where anybody is, whoever it be; not dilated."""
        return self.mask > 0


def load_signals(
    folder: str | Path,
    *,
    clip: str | Path | None = None,
    clip_sha256: str | None = None,
    indices: Sequence[int] | None = None,
    caption: str | None = None,
) -> Signals:
    """Read the signals of a clip and check them against what they say and, if given, against the clip.

    Args:
        folder: Holds ``signals.json``, ``mask.mkv``, ``pose.safetensors``, ``caption.txt`` and maybe ``depth.mkv``.
        clip: The clip they were made from; its checksum, size and length must agree. None skips that.
        clip_sha256: The clip's checksum, where it is known already; None has it computed.
        indices: Keep these frames only, in this order, repeats allowed; bounds the memory of a long clip. All frames
            are counted all the same.
        caption: In place of ``caption.txt``, which then is not read and need not be there.

    Raises:
        FileNotFoundError: There is no such folder or clip.
        ValueError: Anything is missing, damaged, of another length or size, or made from another file; names all
            faults.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder of signals at {folder}; bring it, or name what makes it (data_prep.extract --help)"
        )
    if clip is not None and not Path(clip).is_file():
        raise FileNotFoundError(f"no clip at {clip}")
    meta = _try(lambda: metas.read_meta(folder / metas.FILE))
    length = None if isinstance(meta, Exception) else int(meta["num_frames"])
    mask = _try(lambda: masks.read_masks(folder / masks.FILE, indices=indices, num_frames=length))
    people = _try(lambda: _read_poses(folder / poses.FILE, length, indices))
    depth = _try(lambda: _read_depth(folder / depths.FILE, length, indices))
    words = _try(lambda: captions.read_caption(folder / captions.FILE)) if caption is None else caption
    faults = [str(result) for result in (meta, mask, people, depth, words) if isinstance(result, Exception)]
    faults += _size_faults(mask, depth)
    faults += [] if clip is None or isinstance(meta, Exception) else _clip_faults(Path(clip), meta, mask, clip_sha256)
    if faults:
        raise ValueError(f"signals in {folder} cannot be used: " + "; ".join(faults))
    return _assemble(_whole(meta), _whole(mask), _whole(people), _whole(depth), _whole(words))


def stream_signals(
    folder: str | Path, windows: Sequence[Sequence[int]], *, caption: str | None = None
) -> Iterator[Signals]:
    """Read the signals of a clip window by window; decodes each file once and holds one window.

    Args:
        folder: One that `load_signals` has accepted: its checks of the whole are not made again.
        windows: The frames of each window, ascending through all of them, repeats allowed.
        caption: As for `load_signals`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A file is damaged, or ends before a frame.
    """
    folder = Path(folder)
    meta, people = metas.read_meta(folder / metas.FILE), poses.read_poses(folder / poses.FILE)
    words = captions.read_caption(folder / captions.FILE) if caption is None else caption
    mask_path, depth_path = folder / masks.FILE, folder / depths.FILE
    mask = pick_frames(decode_gray(mask_path), chain(*windows), what=mask_path)
    depth = pick_frames(decode_gray(depth_path), chain(*windows), what=depth_path) if depth_path.exists() else None
    for window in windows:
        size = len(window)
        depth_now = None if depth is None else torch.stack(list(islice(depth, size)))
        yield _assemble(meta, torch.stack(list(islice(mask, size))), people.select(window), depth_now, words)


def write_signals(
    folder: str | Path,
    *,
    mask: UInt8[Tensor, "t h w"],
    people: poses.Poses,
    caption: str,
    source_sha256: str,
    depth: Shaped[Tensor, "t h w"] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write the signals of a clip as a new folder, which appears only when whole.

    Args:
        folder: Must not exist yet.
        mask: As in `Signals`.
        people: Keypoints, scores and tracks of the same frames.
        caption: What the clip shows.
        source_sha256: Checksum of the clip, from `regen_train.video.file_sha256`.
        depth: Inverse depth, uint16, near = large.
        meta: What else ``signals.json`` shall say: extractors, versions, weights revisions, settings.

    Raises:
        FileExistsError: The folder exists.
        ValueError: The signals differ in length or size, or one cannot be stored.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it to write its signals anew")
    _check_agreement(mask, people, depth)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        temporary = Path(name) / folder.name
        temporary.mkdir()
        masks.write_masks(temporary / masks.FILE, mask, _NOMINAL_FPS)
        poses.write_poses(temporary / poses.FILE, people)
        captions.write_caption(temporary / captions.FILE, caption)
        if depth is not None:
            depths.write_depth(temporary / depths.FILE, depth, _NOMINAL_FPS)
        stated = {**(meta or {}), "source_sha256": source_sha256, "num_frames": len(mask)}
        metas.write_meta(temporary / metas.FILE, stated)
        for path in temporary.iterdir():
            sync(path)
        temporary.rename(folder)


def _check_agreement(mask: Tensor, people: poses.Poses, depth: Tensor | None) -> None:
    if len(people) != len(mask) or (depth is not None and depth.shape != mask.shape):
        found = f"mask {list(mask.shape)}, poses of {len(people)} frames"
        found += "" if depth is None else f", depth {list(depth.shape)}"
        raise ValueError(f"signals must agree in length and size, got {found}")


def _assemble(
    meta: Mapping[str, Any], mask: Tensor, people: poses.Poses, depth: Tensor | None, caption: str
) -> Signals:
    return Signals(
        mask=mask,
        keypoints=people.keypoints,
        scores=people.scores,
        track=people.track,
        depth=depth,
        caption=caption,
        num_frames=meta["num_frames"],
        source_sha256=meta["source_sha256"],
        meta=meta,
    )


def _try(read: Callable[[], _T]) -> _T | Exception:
    """Return what ``read`` returns or, so that all faults can be told at once, what it raises about its file."""
    try:
        return read()
    except (ValueError, OSError) as error:
        return error


def _whole(result: _T | Exception) -> _T:
    assert not isinstance(result, Exception)
    return result


def _read_poses(path: Path, num_frames: int | None, indices: Sequence[int] | None) -> poses.Poses:
    people = poses.read_poses(path)
    if num_frames is not None and len(people) != num_frames:
        raise ValueError(f"{path} has {len(people)} frames, it should have {num_frames}")
    if indices is not None and not all(0 <= index < len(people) for index in indices):
        raise ValueError(f"{path} has {len(people)} frames; asked for numbers {list(indices)[:5]} ...")
    return people if indices is None else people.select(indices)


def _read_depth(path: Path, num_frames: int | None, indices: Sequence[int] | None) -> Tensor | None:
    return depths.read_depth(path, indices=indices, num_frames=num_frames) if path.exists() else None


def _size_faults(mask: Tensor | Exception, depth: Tensor | Exception | None) -> list[str]:
    if isinstance(mask, Exception) or depth is None or isinstance(depth, Exception) or mask.shape == depth.shape:
        return []
    return [f"{depths.FILE} is {_size(depth)} (height x width), {masks.FILE} is {_size(mask)}"]


def _clip_faults(clip: Path, meta: Mapping[str, Any], mask: Tensor | Exception, checksum: str | None) -> list[str]:
    checksum = file_sha256(clip) if checksum is None else checksum
    if checksum != meta["source_sha256"]:
        return [
            f"they were made from another file than {clip}: sha256 {meta['source_sha256']}, the clip's is {checksum}"
        ]
    info, length = _try(lambda: probe_video(clip)), _try(lambda: count_frames(clip, at_most=meta["num_frames"]))
    faults = []
    if isinstance(info, Exception):
        return [str(info)]
    if isinstance(length, Exception):
        faults.append(str(length))
    elif length < meta["num_frames"]:
        faults.append(f"they state {meta['num_frames']} frames, {clip} has {length}")
    if not isinstance(mask, Exception) and tuple(mask.shape[1:]) != (info.height, info.width):
        faults.append(f"{masks.FILE} is {_size(mask)} (height x width), {clip} is {info.height}x{info.width} upright")
    return faults


def _size(video: Tensor) -> str:
    return f"{video.shape[1]}x{video.shape[2]}"
