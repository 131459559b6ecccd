"""What a clip shows, in words that do not identify anybody."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

FILE = "caption.txt"
MAX_BYTES = 64 * 1024


@runtime_checkable
class CaptionSource(Protocol):
    """Describes a clip."""

    def setup(self, device: str) -> None:
        """Load the weights; called once per worker, before the first clip.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:N``.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return, as plain JSON, all that decides the result: extractor, version, weights, settings."""
        ...

    def caption(self, clip: Path, *, max_frames: int | None = None) -> str:
        """Return what the clip shows; 120 to 160 words serve the released weights best.

        Args:
            clip: The video file.
            max_frames: Describe the first so many frames; None takes all.
        """
        ...


@dataclass(frozen=True)
class CaptionFiles:
    """Captions that lie in files, made elsewhere.

    Args:
        root: Holds one folder of signals a clip, named as the clip without its ending.
    """

    root: Path

    def setup(self, device: str) -> None:
        """Do nothing; there are no weights. See `CaptionSource`."""

    def identity(self) -> dict[str, Any]:
        """Say that files were read; see `CaptionSource`."""
        return {"extractor": "files"}

    def caption(self, clip: Path, *, max_frames: int | None = None) -> str:
        """Read ``caption.txt``; see `CaptionSource`."""
        return read_caption(self.root / clip.stem / FILE)


def read_caption(path: Path) -> str:
    """Read a caption, as one line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty, too long, or no UTF-8 text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no caption at {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} must be at most {MAX_BYTES} bytes, got {path.stat().st_size}")
    try:
        text = " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}") from error
    if not text:
        raise ValueError(f"{path} is empty; say in a sentence or more what the clip shows")
    return text


def write_caption(path: Path, caption: str) -> None:
    """Write a caption.

    Raises:
        ValueError: It is empty or too long to be read again.
    """
    text = " ".join(caption.split()) + "\n"
    if text == "\n" or len(text.encode()) > MAX_BYTES:
        raise ValueError(f"a caption must have 1 to {MAX_BYTES} bytes, got {len(text.encode()) - 1}")
    path.write_text(text, encoding="utf-8")
