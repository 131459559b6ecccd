"""The page in headless Chromium, from a file: its filters through the address, its keys and clicks over a pipe."""

import html
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from regen_train.preparation.preview import PageItem, Reason, write_page, write_strips

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--hide-scrollbars", "--window-size=1366,768", "--virtual-time-budget=3000"),
)
EVIL = "</script><script>document.title='harm'</script><img src=x onerror=\"document.title='harm'\">.mp4"
COLOUR = (12, 200, 64)  # of the pictures; nothing else on the page has it

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]


def browse(page: Path, fragment: str, tmp_path: Path, *options: str) -> str:
    """Open the page and return what is in it then; fails on any complaint of the browser about the page."""
    profile = tmp_path / "profile"
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *options, f"{page.as_uri()}#{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def look(page: Path, fragment: str, tmp_path: Path) -> list[dict[str, str]]:
    """Return the cards that the page shows."""
    body = browse(page, fragment, tmp_path, "--dump-dom").split("<main", 1)[1].split("</main>", 1)[0]
    cards = re.findall(r"<article class=\"(\w+)\".*?data-key=\"([^\"]*)\">(.*?)</article>", body, flags=re.DOTALL)
    return [{"verdict": verdict, "key": key, "html": inner} for verdict, key, inner in cards]


def shown(page: Path, fragment: str, tmp_path: Path) -> str:
    found = re.search(r"<output id=\"shown\"[^>]*>(.*?)</output>", browse(page, fragment, tmp_path, "--dump-dom"))
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand windows: of each four one is accepted, one doubtful, one rejected, one failed without pictures."""
    folder = tmp_path_factory.mktemp("page")
    strip = torch.tensor(COLOUR, dtype=torch.uint8).expand(32, 3 * 48, 3).contiguous()
    write_strips(folder / "pictures" / "all", {"mask": strip, "pose": strip, "source": strip})
    strips = {name: f"pictures/all/{name}.webp" for name in ("source", "mask", "pose")}
    drawn = {"frames": (0, 14, 24), "ends": (2, 16, 25), "frame_size": (32, 48), "strips": strips, "span": (0, 24)}
    items = []
    for number in range(0, 2000, 4):
        keys = [f"key-{number + place:04d}" for place in range(4)]
        missing = Reason("mask_missing", "reject", (13, 14), {"people": 2.0}, "nobody is covered")
        doubt = Reason("detector_absent", "review", message="no second opinion")
        failure = Reason("failed", "reject", message="moov atom not found")
        items += [
            PageItem(keys[0], "accept", name=f"clip {number}.mp4", caption="A person walks.", **drawn),
            PageItem(keys[1], "review", (doubt,), name=EVIL, caption=EVIL, **drawn),
            PageItem(keys[2], "reject", (missing, doubt), name=f"clip {number}.mp4", **drawn),
            PageItem(keys[3], "failed", (failure,), name=f"broken {number}.mov"),
        ]
    return write_page(folder, items, title="Review of <b>ours</b>", source=True)


def test_all_of_two_thousand_windows_come_page_by_page(page: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    assert [card["key"] for card in look(page, "", tmp_path)] == [f"key-{number:04d}" for number in range(20)]
    assert time.monotonic() - start < 30
    assert shown(page, "page=100", tmp_path) == "1981-2000 of 2000, page 100 of 100"
    assert look(page, "page=999", tmp_path)[-1]["key"] == "key-1999"


@pytest.mark.parametrize(
    ("fragment", "count", "verdicts"),
    [
        ("verdict=reject", 500, {"reject"}),
        ("reason=detector_absent", 1000, {"review", "reject"}),
        ("reason=detector_absent&verdict=review", 500, {"review"}),
        ("q=MOOV+atom", 500, {"failed"}),
        ("q=clip+1996", 2, {"accept", "reject"}),
        ("q=key-0006", 1, {"reject"}),
        ("verdict=nonsense", 2000, {"accept", "review", "reject", "failed"}),
    ],
)
def test_filters(page: Path, tmp_path: Path, fragment: str, count: int, verdicts: set[str]) -> None:
    cards = look(page, fragment, tmp_path)
    assert {card["verdict"] for card in cards} == verdicts
    assert f" of {count}, " in shown(page, fragment, tmp_path)


def test_nothing_found_is_said(page: Path, tmp_path: Path) -> None:
    assert "Nothing matches these filters." in browse(page, "q=nobody", tmp_path, "--dump-dom")


def test_counts_and_reasons_are_told(page: Path, tmp_path: Path) -> None:
    text = browse(page, "verdict=reject", tmp_path, "--dump-dom")
    assert re.findall(r"<button [^>]*data-verdict[^>]*>([^<]*)<", text) == [
        *("all 2000", "✓ accept 500", "? review 500", "✕ reject 500", "! failed 500"),
    ]
    card = html.unescape(re.sub(r"<[^>]*>", "", look(page, "q=key-0002", tmp_path)[0]["html"]))
    assert "reject mask_missing: nobody is covered (frames 13-14 · people 2)" in card
    assert "⚑ 14" in card
    assert "⚑ 24" not in card


def test_a_clip_with_an_evil_name_does_no_harm(page: Path, tmp_path: Path) -> None:
    text = browse(page, "verdict=review", tmp_path, "--dump-dom")
    assert "<title>Review of &lt;b&gt;ours&lt;/b&gt;</title>" in text
    assert html.escape(EVIL, quote=False) in text
    assert text.count("<script") == 2
    assert "onerror=&quot;" not in text
    assert 'src="x"' not in text


def test_pictures_are_loaded_from_beside_the_page(page: Path, tmp_path: Path) -> None:
    for fragment in ("", "size=l", "item=key-0002&frame=14", "hide=mask,pose"):
        browse(page, fragment, tmp_path, f"--screenshot={tmp_path / 'shot.png'}")
        with Image.open(tmp_path / "shot.png") as picture:
            pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).view(-1, 3)
        near = (pixels.int() - torch.tensor(COLOUR)).abs().amax(-1) <= 3
        assert int(near.sum()) > 5000, fragment


def test_rows_can_be_hidden(page: Path, tmp_path: Path) -> None:
    card = look(page, "hide=mask,pose", tmp_path)[0]
    assert re.findall(r"<span class=\"layer\">(\w+)</span>", card["html"]) == ["frame", "Source"]
    assert card["html"].count("<img") == 1
    assert 'loading="lazy"' in card["html"]
    assert 'alt="Source of frames 0, 14, 24"' in card["html"]


def test_a_linked_frame_is_looked_at_closely(page: Path, tmp_path: Path) -> None:
    text = browse(page, "item=key-0102&frame=14", tmp_path, "--dump-dom")
    dialog = text.split('<dialog id="closer"')[1].split("</dialog>")[0]
    assert "clip 100.mp4: frame 14, flagged by mask_missing" in dialog
    assert dialog.count("<figure>") == 3
    assert "101-120 of 2000" in text
