"""From the work folder to a dataset: tars, index, constants and dataset.json, the same bytes for the same samples."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from regen_train.files import file_sha256, sync, write_atomically
from regen_train.preparation.keys import constants_name
from regen_train.preparation.shard import Shard
from regen_train.preparation.work import WorkFolder, json_bytes, read_json
from regen_train.schema import Bucket, Geometry
from regen_train.shards import DatasetInfo, EncodedSample, ShardWriter, fingerprint_of, load_dataset, write_dataset_info
from regen_train.shards.dataset import CONSTANTS_NAME, INDEX_NAME, INFO_NAME, decode_constants
from regen_train.shards.space import needs_space
from regen_train.shards.tensors import load_tensors

MANIFEST_NAME = "manifest.json"
_PARTS = "manifest-*-of-*.json"
_RECEIPT_NAME = "packed.json"
_BUILD_FOLDER = ".packing"
_SHARDS = "shard-*.tar"
_SHARED = ("encoder", "settings", "geometry", "gate", "salt")
"""What the shards of a job array must agree in."""


@dataclass(frozen=True)
class Manifest:
    """What a dataset consists of: the entries of the work folder that belong to it, and what it states.

    Args:
        samples: Sample key to the fingerprint of its entry.
        constants: Bucket to the fingerprint of the entry of its constants.
        encoder: What encoded the samples.
        settings: How they were prepared.
        geometry: How the encoder folds pixels.
        gate: What judged them, as a hash.
        salt: What their keys were made with, as a hash.
    """

    samples: Mapping[str, str]
    constants: Mapping[str, str]
    encoder: Mapping[str, Any]
    settings: Mapping[str, Any]
    geometry: Geometry
    gate: str = ""
    salt: str = ""


def write_manifest(work: WorkFolder, manifest: Manifest, shard: Shard | None = None) -> None:
    """Write the manifest into the work folder, where `pack_dataset` looks for it; it replaces those of other cuts.

    Args:
        work: The work folder.
        manifest: What the dataset, or the shard's part of it, consists of.
        shard: The part of the clips that this is the manifest of; None for all.
    """
    name = MANIFEST_NAME if shard is None else f"manifest-{shard.index}-of-{shard.count}.json"
    with needs_space(work.path / name):
        write_atomically(work.path / name, json_bytes(asdict(manifest)))
    stale = [work.path / MANIFEST_NAME] if shard is not None else []
    stale += [p for p in work.path.glob(_PARTS) if shard is None or not p.name.endswith(f"-of-{shard.count}.json")]
    for path in stale:
        path.unlink(missing_ok=True)


def read_manifest(work: WorkFolder) -> Manifest:
    """Read what `write_manifest` wrote; the manifests of all shards of a job array make one.

    Raises:
        FileNotFoundError: There is none, one cannot be read, or a shard's is missing.
        ValueError: Shards were prepared with different settings.
    """
    path = work.path / MANIFEST_NAME
    parts = sorted(work.path.glob(_PARTS))
    if not parts:
        return _read_one(path)
    count = int(parts[0].stem.rpartition("-")[2])
    missing = [i for i in range(count) if not (work.path / f"manifest-{i}-of-{count}.json").is_file()]
    if missing:
        raise FileNotFoundError(
            f"{work.path}: of {count} shards, {', '.join(map(str, missing))} {'has' if len(missing) == 1 else 'have'} "
            f"not been prepared; run data_prep.run --shard I/{count} for each"
        )
    return _merge([_read_one(work.path / f"manifest-{i}-of-{count}.json") for i in range(count)])


def _read_one(path: Path) -> Manifest:
    content = read_json(path)
    if content is None:
        raise FileNotFoundError(f"{path} is missing or torn; run data_prep.encode first")
    geometry = content["geometry"] | {"patch_size": tuple(content["geometry"]["patch_size"])}
    return Manifest(**(content | {"geometry": Geometry(**geometry)}))


def _merge(parts: Sequence[Manifest]) -> Manifest:
    first, holders = parts[0], dict[str, int]()
    for number, part in enumerate(parts):
        differing = [name for name in _SHARED if getattr(part, name) != getattr(first, name)]
        if differing:
            raise ValueError(
                f"shard {number} was prepared with another {' and '.join(differing)} than shard 0; prepare it again"
            )
        for key, fingerprint in part.samples.items():
            twin = holders.setdefault(key, number)
            if parts[twin].samples[key] != fingerprint:
                raise ValueError(
                    f"shards {twin} and {number} hold the same clip with different signals; remove one of the files, "
                    f"and prepare both shards again (key {key})"
                )
    samples = {key: value for part in parts for key, value in part.samples.items()}
    constants = {key: value for part in parts for key, value in part.constants.items()}
    return replace(first, samples=samples, constants=constants)


def pack_dataset(work: WorkFolder, output: Path, *, max_shard_bytes: int = 1 << 30) -> DatasetInfo:
    """Pack what the manifest names; entries of other settings or of clips that are gone stay behind.

    The dataset is built aside and then moved into place, dataset.json last, so that a folder with a dataset.json is a
    whole dataset. If nothing has changed, nothing is written.

    Args:
        work: Where the encoded samples lie; the caller holds its lock.
        output: The dataset's folder.
        max_shard_bytes: A shard ends before the sample that would make it larger.

    Raises:
        FileNotFoundError: There is no manifest, or not of every shard.
        FileExistsError: The folder holds tars that no `pack_dataset` wrote.
        ValueError: An entry is missing, torn or outdated, or the samples do not belong together.
    """
    check_output(output)
    manifest = read_manifest(work)
    if not manifest.samples:
        raise FileNotFoundError(f"{work.path} holds no sample that may pass; nothing was packed")
    recipe = fingerprint_of(asdict(manifest) | {"max_shard_bytes": max_shard_bytes})
    if not _is_packed(work, output, recipe):
        build = output / _BUILD_FOLDER
        shutil.rmtree(build, ignore_errors=True)
        _build(work, manifest, build, max_shard_bytes)
        _move_into_place(build, output)
        receipt = {"recipe": recipe, "dataset": file_sha256(output / INFO_NAME)}
        with needs_space(work.path / _RECEIPT_NAME):
            write_atomically(work.path / _RECEIPT_NAME, json_bytes(receipt))
    return load_dataset(str(output)).info


def check_output(output: Path) -> None:
    """Raise FileExistsError if the folder holds tars that are not a dataset's shards."""
    foreign = sorted({path.name for path in output.glob("*.tar")} - {path.name for path in output.glob(_SHARDS)})
    if foreign:
        raise FileExistsError(
            f"{output} holds tars that are no shards: {', '.join(foreign[:5])}; name another --output"
        )


def _is_packed(work: WorkFolder, output: Path, recipe: str) -> bool:
    receipt, info = read_json(work.path / _RECEIPT_NAME), output / INFO_NAME
    if receipt is None or receipt.get("recipe") != recipe or not info.is_file():
        return False
    if file_sha256(info) != receipt.get("dataset"):
        return False
    try:
        stated = load_dataset(str(output)).info
    except (ValueError, OSError):
        return False
    shards = {shard.name: shard.sha256 for shard in stated.shards}
    return shards == {path.name: file_sha256(path) for path in output.glob(_SHARDS)}


def _build(work: WorkFolder, manifest: Manifest, build: Path, max_shard_bytes: int) -> None:
    with ShardWriter(build, max_shard_bytes=max_shard_bytes) as writer:
        for key, fingerprint in sorted(manifest.samples.items()):
            entry = work.read(key, fingerprint=fingerprint)
            writer.write(EncodedSample(key, entry.payload, entry.info.encode()))
    entries = [
        work.read(constants_name(Bucket.parse(bucket)), fingerprint=fingerprint)
        for bucket, fingerprint in sorted(manifest.constants.items())
    ]
    constants = [decode_constants(load_tensors(entry.payload, what="constants")) for entry in entries]
    inactive = {bucket: latents for part in constants for bucket, latents in sorted(part.inactive.items())}
    write_dataset_info(
        build,
        writer.shards,
        encoder=manifest.encoder,
        settings=manifest.settings,
        geometry=manifest.geometry,
        constants=replace(constants[0], inactive=inactive),
    )


def _move_into_place(build: Path, output: Path) -> None:
    # Without dataset.json the folder is no dataset: no reader ever sees old and new shards mixed.
    for path in (output / INFO_NAME, *output.glob(_SHARDS)):
        path.unlink(missing_ok=True)
    sync(output)
    for path in (*sorted(build.glob(_SHARDS)), build / INDEX_NAME, build / CONSTANTS_NAME):
        path.replace(output / path.name)
    sync(output)
    (build / INFO_NAME).replace(output / INFO_NAME)
    sync(output)
    build.rmdir()
