"""The page in headless Chromium, opened from a file: filters through its address, keys and clicks over a pipe."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from preview_browser import CHROMIUM, QUIET, Browser, started_browser

from regen_train.preparation.preview import PageItem, Reason, write_page, write_strips

EVIL = "</script><script>document.title='harm'</script><img src=x onerror=\"document.title='harm'\">.mp4"
COLOUR = (12, 200, 64)  # of the pictures; nothing else on the page has it
CARDS = "[...document.querySelectorAll('article')].map((card) => [card.className, card.dataset.key])"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started_browser(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand windows: of each four one is accepted, one doubtful, one rejected, one failed without pictures."""
    folder = tmp_path_factory.mktemp("page")
    strip = torch.tensor(COLOUR, dtype=torch.uint8).expand(32, 3 * 48, 3).contiguous()
    write_strips(folder / "pictures" / "all", {"mask": strip, "pose": strip, "source": strip})
    strips = {name: f"pictures/all/{name}.webp" for name in ("source", "mask", "pose")}
    drawn = {"frames": (0, 14, 24), "ends": (2, 16, 25), "frame_size": (32, 48), "strips": strips, "span": (0, 24)}
    missing = Reason("mask_missing", "reject", (13, 14), {"people": 2.0}, "nobody is covered")
    doubt = Reason("detector_absent", "review", message="no second opinion")
    failure = Reason("probe_failed", "reject", message="moov atom not found")
    note = Reason("detector_absent", "note", message="nobody looked for faces")
    items = []
    for number in range(0, 2000, 4):
        keys = [f"key-{number + place:04d}" for place in range(4)]
        items += [
            PageItem(
                keys[0],
                "accept" if number else "released",
                (note,),
                name=f"clip {number}.mp4",
                caption="A person walks.",
                **drawn,
            ),
            PageItem(keys[1], "review", (doubt,), name=EVIL, caption=EVIL, **drawn),
            PageItem(keys[2], "reject", (missing, doubt), name=f"clip {number}.mp4", **drawn),
            PageItem(keys[3], "failed", (failure,), name=f"broken {number}.mov"),
        ]
    return write_page(folder, items, title="Review of <b>ours</b>", source=True)


def text_of(browser: Browser, selector: str) -> str:
    return str(browser.run(f"document.querySelector('{selector}').textContent"))


def near_colour(browser: Browser, path: Path) -> int:
    """Return how many pixels in view belong to pictures."""
    browser.screenshot(path)
    with Image.open(path) as picture:
        pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).view(-1, 3)
    return int(((pixels.int() - torch.tensor(COLOUR)).abs().amax(-1) <= 3).sum())


def test_a_browser_alone_shows_what_the_address_asks_for(page: Path, tmp_path: Path) -> None:
    options = ["--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [str(CHROMIUM), *QUIET, *options, f"{page.as_uri()}#verdict=reject"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    assert text.count('<article class="reject"') == text.count("<article") == 20
    assert "1-20 of 500, page 1 of 25" in text


def test_all_of_two_thousand_windows_come_page_by_page(browser: Browser, page: Path) -> None:
    start = time.monotonic()
    browser.open(page)
    assert [key for _, key in browser.run(CARDS)] == [f"key-{number:04d}" for number in range(20)]
    assert time.monotonic() - start < 20
    browser.open(page, "page=100")
    assert text_of(browser, "#shown") == "1981-2000 of 2000, page 100 of 100"
    browser.open(page, "page=999")
    assert browser.run(CARDS)[-1] == ["failed", "key-1999"]


@pytest.mark.parametrize(
    ("fragment", "count", "verdicts"),
    [
        ("verdict=reject", 500, {"reject"}),
        ("reason=detector_absent", 1500, {"released", "accept", "review", "reject"}),
        ("reason=detector_absent&verdict=review", 500, {"review"}),
        ("reason=detector_absent&severity=review", 1000, {"review", "reject"}),
        ("severity=note", 500, {"released", "accept"}),
        ("severity=fatal", 2000, {"released", "accept", "review", "reject", "failed"}),
        ("verdict=released", 1, {"released"}),
        ("q=MOOV+atom", 500, {"failed"}),
        ("q=clip+1996", 2, {"accept", "reject"}),
        ("q=key-0006", 1, {"reject"}),
        ("verdict=nonsense", 2000, {"released", "accept", "review", "reject", "failed"}),
    ],
)
def test_filters(browser: Browser, page: Path, fragment: str, count: int, verdicts: set[str]) -> None:
    browser.open(page, fragment)
    assert {verdict for verdict, _ in browser.run(CARDS)} == verdicts
    assert f" of {count}, " in text_of(browser, "#shown")


def test_nothing_found_is_said(browser: Browser, page: Path) -> None:
    browser.open(page, "q=nowhere")
    assert text_of(browser, "#items") == "Nothing matches these filters."


def test_counts_and_reasons_are_told(browser: Browser, page: Path) -> None:
    browser.open(page, "q=key-0002")
    counts = ["all 1", "✓ accept 0", "✓ released 0", "? review 0", "✕ reject 1", "! failed 0"]
    assert browser.run("[...document.querySelectorAll('#verdicts button')].map((b) => b.textContent)") == counts
    assert "reject mask_missing: nobody is covered (frames 13-14 · people 2)" in text_of(browser, "article")
    assert text_of(browser, ".numbers") == "0⚑ 1424"
    reasons = ["any", "detector_absent (1)", "mask_missing (1)"]
    assert browser.run("[...document.querySelectorAll('#reason option')].map((o) => o.textContent)") == reasons


def test_each_filter_counts_what_the_others_leave(browser: Browser, page: Path) -> None:
    browser.open(page, "reason=detector_absent")
    options = "[...document.querySelectorAll('#{} option')].map((o) => o.textContent)"
    assert browser.run(options.format("severity")) == ["any", "review (1000)", "note (500)"]
    browser.open(page, "severity=reject&verdict=failed")
    assert browser.run(options.format("reason")) == ["any", "probe_failed (500)"]
    assert browser.run(options.format("severity")) == ["any", "reject (500)"]
    browser.open(page, "severity=note&reason=mask_missing")
    assert browser.run(options.format("reason")) == ["any", "detector_absent (500)", "mask_missing (0)"]
    assert browser.run("document.querySelector('#reason').value") == "mask_missing"


def test_notes_are_folded_away(browser: Browser, page: Path) -> None:
    browser.open(page, "q=key-0004")
    assert text_of(browser, "article summary") == "Notes: detector_absent"
    assert browser.run("document.querySelectorAll('article details[open], article > .reasons').length") == 0


def test_a_clip_with_an_evil_name_does_no_harm(browser: Browser, page: Path) -> None:
    browser.open(page, "verdict=review")
    assert browser.run("document.title") == "Review of <b>ours</b>"
    assert text_of(browser, "article h2") == EVIL
    assert text_of(browser, "article details") == f"Caption: {EVIL}"
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.querySelectorAll('article h2 *, article details > *, h1 *').length") == 20


def test_pictures_come_from_beside_the_page_and_nothing_from_elsewhere(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    browser.requested.clear()
    for fragment in ("", "size=l", "item=key-0102&frame=14", "hide=mask,pose"):
        browser.open(page, fragment)
        assert near_colour(browser, tmp_path / "shot.png") > 5000, fragment
    assert {url.split("#")[0] for url in browser.requested} - {"about:blank"} == {
        page.as_uri(),
        *((page.parent / f"pictures/all/{name}.webp").as_uri() for name in ("mask", "pose", "source")),
    }


def test_rows_are_hidden_and_pictures_described(browser: Browser, page: Path) -> None:
    browser.open(page, "hide=mask,pose")
    layers = "[...document.querySelector('article').querySelectorAll('.layer')].map((cell) => cell.textContent)"
    assert browser.run(layers) == ["frame", "Source"]
    image = "(({alt, loading}) => [alt, loading])(document.querySelector('article img'))"
    assert browser.run(image) == ["Source of frames 0, 14, 24", "lazy"]
    browser.press("2")
    assert browser.run(layers) == ["frame", "Source", "Mask"]
    assert browser.run("location.hash") == "#hide=pose"


def test_a_linked_frame_is_looked_at_closely(browser: Browser, page: Path) -> None:
    browser.open(page, "item=key-0102&frame=14")
    assert text_of(browser, "#closer-title") == "clip 100.mp4: frame 14, flagged by mask_missing"
    assert browser.run("document.querySelectorAll('dialog[open] figure').length") == 3
    assert text_of(browser, "#shown") == "101-120 of 2000, page 6 of 100"


def test_keys_walk_through_cards_frames_and_pages(browser: Browser, page: Path) -> None:
    focused = "document.activeElement.dataset.key"
    browser.open(page, "verdict=reject")
    browser.press("j", "j", "j", "k")
    assert browser.run(focused) == "key-0006"
    browser.press("Enter")
    assert "frame 14, flagged" in text_of(browser, "#closer-title")
    browser.press("ArrowRight", "ArrowRight")
    assert text_of(browser, "#closer-title").endswith("frame 24")
    browser.press("ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert text_of(browser, "#closer-title").endswith("frame 0")
    browser.press("Escape", "n")
    assert browser.run(focused) == "key-0082"
    assert browser.run("location.hash") == "#verdict=reject&page=2"
    browser.press("k")
    assert browser.run(focused) == "key-0078"


def test_mouse_and_search_box(browser: Browser, page: Path) -> None:
    browser.open(page)
    x, y = browser.run(
        "((r) => [r.left + r.width / 2, r.top + 5])(document.querySelector('.strip').getBoundingClientRect())"
    )
    browser.click(x, y)
    assert text_of(browser, "#closer-title") == "clip 0.mp4: frame 14"
    browser.press("Escape", "/", *"moov")
    assert browser.run("location.hash") == "#q=moov"
    assert text_of(browser, "#shown") == "1-20 of 500, page 1 of 25"
    browser.run("document.querySelector('#reset').click()")
    assert browser.run("location.hash + document.querySelector('#query').value") == ""
