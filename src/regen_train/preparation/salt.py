"""The secret that keeps a dataset's keys from being matched to files, and the hashes made with it."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

DEFAULT_SALT_FILE = Path("~/.config/regen_train/salt")
_SALT_BYTES = 32


def load_salt(path: Path | None = None, *, dataset: Path | None = None) -> bytes:
    """Read the salt, creating it on first use, readable by its owner only.

    Args:
        path: The salt's file. Default: ``~/.config/regen_train/salt``.
        dataset: The dataset's folder, which must not hold the salt.

    Raises:
        ValueError: The file lies in the dataset, or holds fewer than 32 bytes.
    """
    path = (DEFAULT_SALT_FILE if path is None else path).expanduser().resolve()
    if dataset is not None and path.is_relative_to(dataset.expanduser().resolve()):
        raise ValueError(f"the salt must stay outside the dataset, got {path}; name another --salt_file")
    if not path.exists():
        _create(path)
    salt = path.read_bytes()
    if len(salt) < _SALT_BYTES:
        raise ValueError(
            f"the salt {path} must hold at least {_SALT_BYTES} bytes, got {len(salt)}; restore it, or remove it to get "
            "a new one (every sample then gets a new key and is encoded again)"
        )
    return salt


def salted(salt: bytes, *parts: str) -> str:
    """Return 64 hex digits that name ``parts`` to those who hold the salt, and nothing to others (HMAC-SHA-256)."""
    return hmac.new(salt, "\x00".join(parts).encode(), hashlib.sha256).hexdigest()


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_SALT_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # unlike a rename, never replaces the salt that another process has just created
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
