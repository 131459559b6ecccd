"""Nothing that a video file tells besides its pictures survives in a dataset."""

import base64
import io
import json
import shutil
import socket
import tarfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from moving_people import People, draw_people
from PIL import Image

from data_prep import run
from regen_train.files import file_sha256
from regen_train.shards import load_dataset
from regen_train.signals import write_signals

FPS = 15
GPS = "+48.8584+002.2945/"
TAGS = {
    "title": "Wedding of Jane Quimby-Doe",
    "artist": "Jane Quimby-Doe",
    "author": "Jane Quimby-Doe",
    "comment": "for Ansgar, call 0171 5550199",
    "location": GPS,
    "com.apple.quicktime.location.ISO6709": GPS,
    "com.apple.quicktime.make": "Obscura Cameras",
    "creation_time": "2019-07-14T12:34:56.000000Z",
}
CHAPTER = "Jane blows out the candles"
SOUND_TITLE = "Voice of Ansgar"
PICTURE_TITLE = "Camera of Jane"
EXIF_ARTIST = "Quimby the photographer"
HOST = "workstation-of-ansgar.example"
CAPTION = "Somebody in a mauve cardigan walks along a wall."


def photograph() -> bytes:
    """A JPEG whose EXIF data name its maker and place."""
    exif = Image.Exif()
    exif[0x013B] = EXIF_ARTIST
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 30.24), 3: "E", 4: (2.0, 17.0, 40.2)}
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, format="jpeg", exif=exif)
    return file.getvalue()


def write_told_clip(clip: Path, people: People) -> None:
    """Write a clip with all that cameras and editors put beside the pictures."""
    mov = clip.suffix in (".mp4", ".mov")
    # free tags in mp4 and mov, as telephones write them
    with av.open(str(clip), "w", container_options={"movflags": "use_metadata_tags"} if mov else {}) as container:
        container.metadata.update(TAGS)
        video = container.add_stream("libx264" if mov else "ffv1", rate=FPS)
        video.width, video.height = people.frames.shape[2], people.frames.shape[1]
        video.pix_fmt = "yuv420p" if mov else "bgr0"
        video.metadata.update({"title": PICTURE_TITLE, "handler_name": PICTURE_TITLE})
        sound = container.add_stream("aac", rate=8000)
        sound.metadata.update({"title": SOUND_TITLE, "handler_name": SOUND_TITLE, "language": "deu"})
        if not mov:
            container.add_attachment(f"{EXIF_ARTIST}.jpg", "image/jpeg", photograph())
        span = {"start": 0, "end": len(people.frames) * 1000 // FPS, "time_base": Fraction(1, 1000)}
        container.set_chapters([{"id": 1, **span, "metadata": {"title": CHAPTER}}])
        for frame in people.frames.numpy():
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        noise = np.random.default_rng(0).normal(0, 0.1, (1, 1024)).astype(np.float32)
        for number in range(5):
            samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 8000, number * 1024
            container.mux(sound.encode(samples))
        container.mux(video.encode())
        container.mux(sound.encode())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private-of-quimby-doe")
    for seed, name in enumerate(("IMG_jane-quimby.mp4", "ansgar_in_paris.mov", "quimby-home.mkv")):
        people = draw_people(seed=seed, num_frames=10)
        write_told_clip(folder / name, people)
        write_signals(
            folder / "signals" / Path(name).stem,
            mask=people.mask,
            people=people.poses,
            caption=CAPTION,
            source_sha256=file_sha256(folder / name),
            depth=people.depth,
            meta={"source": name, "made_by": "Jane Quimby-Doe", "host": HOST},
        )
    return folder


@pytest.fixture(scope="module")
def dataset(clips: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("shared") / "dataset"
    options = ["--num_frames", "5", "--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2", "--num_workers", "0"]
    options += ["--guard.when_absent", "accept"]  # people so small move far in a step
    salt = tmp_path_factory.mktemp("secret") / "salt"
    command = [
        "--clips",
        str(clips),
        "--output",
        str(output),
        "--pretrained",
        str(tiny_model),
        "--salt_file",
        str(salt),
    ]
    assert run.main([*command, *options]) == 0
    assert load_dataset(str(output)).info.num_samples == 3
    return output


def secrets(clips: Path) -> dict[str, bytes]:
    """What must not be found, by what it is."""
    found = {f"tag {name}": value.encode() for name, value in TAGS.items()}
    found |= {"coordinates": b"48.8584", "a name": b"Quimby", "a first name": b"Ansgar", "date": b"2019-07-14"}
    found |= {"chapter": CHAPTER.encode(), "sound": SOUND_TITLE.encode(), "picture": PICTURE_TITLE.encode()}
    found |= {"EXIF": EXIF_ARTIST.encode(), "caption": b"mauve cardigan", "folder": clips.name.encode()}
    found |= {"path": str(clips).encode(), "host": HOST.encode()}
    if len(socket.gethostname()) >= 6:  # shorter ones are found by chance in compressed data
        found |= {"this host": socket.gethostname().encode()}
    for clip in sorted(clips.glob("*.m*")):
        digest = file_sha256(clip)
        found |= {f"stem of {clip.name}": clip.stem.encode(), f"sha256 of {clip.name}": digest.encode()}
        found |= {f"raw sha256 of {clip.name}": bytes.fromhex(digest)}
        found |= {f"base64 sha256 of {clip.name}": base64.b64encode(bytes.fromhex(digest)).rstrip(b"=")}
    return found


def shared_contents(dataset: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all that is in a dataset's folder but for the work folder: names, bytes, and tables unpacked."""
    for path in sorted(dataset.rglob("*")):
        place = path.relative_to(dataset)
        if place.parts[0] == ".work":
            continue
        yield f"name {place}", str(place).encode()
        if path.is_file():
            yield str(place), path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield f"rows of {place}", json.dumps([table.to_pylist(), str(table.schema.metadata)], default=str).encode()


def leaks(dataset: Path, clips: Path) -> list[str]:
    """Say what is found where; the case of letters does not matter."""
    hidden = {what: secret.lower() for what, secret in secrets(clips).items()}
    return [
        f"{what} in {place}"
        for place, content in shared_contents(dataset)
        for what, secret in hidden.items()
        if secret in content.lower()
    ]


def test_the_clips_do_tell_all_this(clips: Path) -> None:
    """Else the other tests would prove nothing."""
    for clip in sorted(clips.glob("*.m*")):
        data = clip.read_bytes()
        with av.open(str(clip)) as container:
            assert [stream.type for stream in container.streams][:2] == ["video", "audio"]
            assert [chapter["metadata"]["title"] for chapter in container.chapters()] == [CHAPTER]
            told = {**container.metadata, **container.streams.audio[0].metadata}
        assert GPS in told.values()
        assert all(text.encode() in data for text in (GPS, TAGS["artist"], TAGS["comment"], SOUND_TITLE, PICTURE_TITLE))
        assert (EXIF_ARTIST.encode() in data) == (clip.suffix == ".mkv")
        assert told["creation_time"] == TAGS["creation_time"]


def test_nothing_of_it_is_in_the_dataset(dataset: Path, clips: Path) -> None:
    assert leaks(dataset, clips) == []


def test_no_sound_is_in_the_dataset(dataset: Path) -> None:
    for path in dataset.glob("*.tar"):
        with tarfile.open(path) as tar:
            assert {Path(member.name).suffix for member in tar} == {".safetensors", ".json"}


def test_the_archive_tells_neither_who_nor_when(dataset: Path) -> None:
    for path in dataset.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
                assert not member.pax_headers


def plant_in_table(path: Path, secret: str) -> None:
    """Put it where it is dictionary-coded and compressed, not to be seen in the file's bytes."""
    table = pq.read_table(path)
    keys = [secret, *table.column("key").to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("key"), "key", [keys]), path, compression="zstd")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("shard-000000.tar", "tag location"),
        ("shard-000000.tar", "raw sha256 of quimby-home.mkv"),
        ("dataset.json", "sha256 of quimby-home.mkv"),
        ("dataset.json", "host"),
        ("index.parquet", "a name"),
        ("index.parquet", "base64 sha256 of quimby-home.mkv"),
        ("name", "stem of quimby-home.mkv"),
    ],
)
def test_a_planted_secret_is_found(dataset: Path, clips: Path, tmp_path: Path, where: str, what: str) -> None:
    """The check itself fires wherever something is planted."""
    copy = Path(shutil.copytree(dataset, tmp_path / "dataset", ignore=shutil.ignore_patterns(".work")))
    secret = secrets(clips)[what]
    if where == "name":
        (copy / f"about {secret.decode()}").touch()
    elif where == "index.parquet":
        plant_in_table(copy / where, secret.decode())
    else:
        data = (copy / where).read_bytes()
        (copy / where).write_bytes(data[:600] + secret + data[600:])
    assert any(leak.startswith(what) for leak in leaks(copy, clips))
