"""From the work folder to a dataset: tars, index, constants and dataset.json, the same bytes for the same samples."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regen_train.files import file_sha256, sync, write_atomically
from regen_train.preparation.work import WorkFolder, json_bytes, read_json
from regen_train.schema import Geometry
from regen_train.shards import DatasetInfo, EncodedSample, ShardWriter, fingerprint_of, load_dataset, write_dataset_info
from regen_train.shards.dataset import CONSTANTS_NAME, INDEX_NAME, INFO_NAME, decode_constants
from regen_train.shards.space import needs_space
from regen_train.shards.tensors import load_tensors

MANIFEST_NAME = "manifest.json"
CONSTANTS_ENTRY = "constants"
_RECEIPT_NAME = "packed.json"
_BUILD_FOLDER = ".packing"
_SHARDS = "shard-*.tar"


@dataclass(frozen=True)
class Manifest:
    """What a dataset consists of: the entries of the work folder that belong to it, and what it states.

    Args:
        samples: Sample key to the fingerprint of its entry.
        constants: Fingerprint of the entry of the constants.
        encoder: What encoded the samples.
        settings: How they were prepared.
        geometry: How the encoder folds pixels.
    """

    samples: Mapping[str, str]
    constants: str
    encoder: Mapping[str, Any]
    settings: Mapping[str, Any]
    geometry: Geometry


def write_manifest(work: WorkFolder, manifest: Manifest) -> None:
    """Write the manifest into the work folder, where `pack_dataset` looks for it."""
    with needs_space(work.path / MANIFEST_NAME):
        write_atomically(work.path / MANIFEST_NAME, json_bytes(asdict(manifest)))


def read_manifest(work: WorkFolder) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        FileNotFoundError: There is none, or it cannot be read.
    """
    content = read_json(work.path / MANIFEST_NAME)
    if content is None:
        raise FileNotFoundError(f"{work.path / MANIFEST_NAME} is missing or torn; run data_prep.encode first")
    geometry = content["geometry"] | {"patch_size": tuple(content["geometry"]["patch_size"])}
    return Manifest(**(content | {"geometry": Geometry(**geometry)}))


def pack_dataset(work: WorkFolder, output: Path, *, max_shard_bytes: int = 1 << 30) -> DatasetInfo:
    """Pack what the manifest names; entries of other settings or of clips that are gone stay behind.

    The dataset is built aside and then moved into place, dataset.json last, so that a folder with a dataset.json is a
    whole dataset. If nothing has changed, nothing is written.

    Args:
        work: Where the encoded samples lie; the caller holds its lock.
        output: The dataset's folder.
        max_shard_bytes: A shard ends before the sample that would make it larger.

    Raises:
        FileNotFoundError: There is no manifest.
        FileExistsError: The folder holds tars that no `pack_dataset` wrote.
        ValueError: An entry is missing, torn or outdated, or the samples do not belong together.
    """
    check_output(output)
    manifest = read_manifest(work)
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
    constants = work.read(CONSTANTS_ENTRY, fingerprint=manifest.constants)
    write_dataset_info(
        build,
        writer.shards,
        encoder=manifest.encoder,
        settings=manifest.settings,
        geometry=manifest.geometry,
        constants=decode_constants(load_tensors(constants.payload, what=CONSTANTS_ENTRY)),
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
