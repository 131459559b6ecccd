"""Where a dataset lies: a folder, or s3, gs, hf, http and the like through fsspec."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

REMOTE_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://")
NEEDED_PACKAGE = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


@dataclass(frozen=True)
class Storage:
    """A dataset's folder, here or elsewhere.

    Args:
        path: A folder, or an address such as ``s3://bucket/dataset``.
    """

    path: str

    @property
    def is_remote(self) -> bool:
        """Whether the files must be brought here before they can be mapped."""
        return bool(REMOTE_PATTERN.match(self.path)) and not self.path.startswith("file://")

    def local_path(self, name: str) -> Path:
        """Return the path of a file of a local dataset."""
        _check_plain(name)
        return Path(self.path.removeprefix("file://")) / name

    def open(self, name: str) -> Any:
        """Open a file of the dataset for reading from its start; what fsspec returns is like a file but is none.

        Raises:
            FileNotFoundError: It is not there.
            ValueError: The package that reads such addresses is not installed.
        """
        if not self.is_remote:
            return self.local_path(name).open("rb")
        _check_plain(name)
        import fsspec

        protocol = self.path.split("://", 1)[0]
        try:
            # A listing may be older than the dataset; without it every open asks anew.
            found = fsspec.core.url_to_fs(self.path, use_listings_cache=False)
            filesystem, root = cast("tuple[Any, str]", found)
        except (ImportError, ValueError) as error:
            package = NEEDED_PACKAGE.get(protocol, "its fsspec package")
            raise ValueError(f"{self.path}: cannot read {protocol}:// ({error}); pip install {package}") from error
        return filesystem.open(f"{root.rstrip('/')}/{name}", "rb", cache_type="none")

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Read a small file of the dataset.

        Raises:
            FileNotFoundError: It is not there.
            ValueError: It is larger than ``max_bytes``.
        """
        with self.open(name) as file:
            data = bytes(file.read(max_bytes + 1))
        if len(data) > max_bytes:
            raise ValueError(f"{self.path}/{name} is larger than the {max_bytes} bytes such a file may have")
        return data


def _check_plain(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*\.[a-z]+", name):
        raise ValueError(f"{name!r} is no plain file name; nothing outside the dataset's folder is read")
