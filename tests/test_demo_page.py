"""The demo's page: whole in itself, every figure with its interval, and quiet; in Chromium where there is one."""

import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from preview_browser import CHROMIUM, Browser, started_browser

from regen_train.demo.control import CaptionControl
from regen_train.demo.journal import Entry, Journal
from regen_train.demo.measure import Gain, Measurement, MethodFigures
from regen_train.demo.methods import METHODS
from regen_train.demo.own import Refusal
from regen_train.demo.page import Gallery, write_page
from regen_train.demo.pictures import Panel, ShownClip, write_side_by_side, write_strip
from regen_train.demo.report import Report, write_report
from regen_train.demo.settings import DemoSettings
from regen_train.evaluation import REGIONS, Identification, Interval
from regen_train.video import probe_video, read_video

EVIL = "</h3><script>document.title='harm'</script>.mp4"
BEFORE, AFTER = (250, 10, 20), (10, 20, 250)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def _figures(name: str) -> MethodFigures:
    part = Interval(0.5, 0.4, 0.6, 48)
    found = Identification(48, 0.02, 0.0, 0.11, 1 / 48, 1.0)
    colours = dict.fromkeys((*REGIONS, "all"), part)
    exact = Interval(math.inf, math.inf, math.inf, 48)
    return MethodFigures(name, part, part, exact, colours, colours if METHODS[name].paints else {}, found, found)


@pytest.fixture(scope="module")
def report() -> Report:
    part = Interval(0.25, 0.1, 0.35, 48)
    measurement = Measurement(
        methods=[_figures(name) for name in METHODS],
        gains=[Gain(variant, part, part) for variant in ("structhuman", "structall")],
        apart=dict.fromkeys(("structhuman", "structall"), Interval(1.0, 0.76, 1.0, 12)),
        reconstruction_psnr=Interval(27.5, 27.0, 28.0, 48),
    )
    journal = Journal()
    journal.entries.append(Entry("train <b>", "step 200", 61.5, 1_400_000_000, ("regen_train fit --x '<y>'",)))
    return Report(DemoSettings(), measurement, CaptionControl(part, part, part), journal)


def _clip(title: str, size: tuple[int, int] = (80, 80)) -> ShownClip:
    first, last = (torch.tensor(rgb, dtype=torch.uint8).expand(1, *size, 3) for rgb in (BEFORE, AFTER))
    frames = torch.cat([first, *[last] * 8])
    ours, other = Panel("painted", "ours", frames), Panel("Blur", "other", frames)
    return ShownClip(title, "A person", [Panel("Original", "source", frames), ours], [other] * 6)


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    gallery = Gallery([_clip("Somebody"), _clip("Two")], [_clip("red")], _clip(EVIL, (64, 112)))
    write_page(path, report, gallery)
    return path


def test_a_refused_clip_of_ones_own_is_told_with_reasons_and_remedies(report: Report, tmp_path: Path) -> None:
    refusal = Refusal(EVIL, ("gives 5 frames, needs <9>",), ("bring a longer clip",))
    write_page(tmp_path / "index.html", report, Gallery([_clip("Somebody")], [_clip("red")], refusal))
    text = (tmp_path / "index.html").read_text()
    section = text.split('<section id="own">')[1].split("</section>")[0]
    assert "&lt;script&gt;" in section
    assert "<li>gives 5 frames, needs &lt;9&gt;</li>" in section
    assert "<li>bring a longer clip</li>" in section
    assert "as private as your clip" in section
    assert "data:image" not in section
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_runs_no_script_and_links_to_nothing(page: Path) -> None:
    tags = _Tags()
    tags.feed(page.read_text())
    assert tags.open == []
    assert "script" not in tags.names
    assert tags.links
    assert all(link.startswith("data:image/webp;base64,") for link in tags.links)
    assert "$" not in re.sub('base64,[^"]*', "", page.read_text())


def test_the_page_says_in_plain_words_what_it_is(page: Path) -> None:
    text = " ".join(page.read_text().split())
    for said in (
        "a toy",
        "says nothing about real video",
        "It does not prove",
        "gait",
        "open channel",
        "as private as",
    ):
        assert said in text
    assert "Your clip" in text
    assert "&lt;script&gt;" in text


def test_every_figure_has_its_interval(page: Path) -> None:
    for section in ("identity", "motion", "captions"):
        text = page.read_text().split(f'<section id="{section}">')[1].split("</section>")[0]
        cells = re.findall(r"<td>(.*?)</td>", text)
        assert cells
        assert "n = 48" in text
        assert all(re.search(r"<small>.* to .*</small>|^exact|^$", cell) for cell in cells), cells


def test_the_report_holds_every_number_as_plain_json(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", report)
    text = (tmp_path / "report.json").read_text()
    assert "Infinity" not in text
    assert '"TOY' in text or "a TOY" in text
    assert text.count('"mask_iou"') == len(METHODS) + 2


def test_strips_and_videos_show_whole_squares_of_pixels(tmp_path: Path) -> None:
    frames = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_strip(tmp_path / "strip.png", [[frames[0], frames[1]], [frames[2], frames[3]]])
    strip = Image.open(tmp_path / "strip.png")
    assert strip.size == (4 * (16 + 2 + 16), 4 * (16 + 2 + 16))
    assert [strip.getpixel((4 * x + 3, 0)) for x in range(16)] == [tuple(rgb) for rgb in frames[0, 0].tolist()]
    assert strip.getpixel((4 * 18, 4 * 18)) == tuple(frames[3, 0, 0].tolist())
    write_side_by_side(tmp_path / "videos.mp4", [frames, frames, frames], 8.0)
    info = probe_video(tmp_path / "videos.mp4")
    assert (info.height, info.width) == (64, 4 * (3 * 16 + 2 * 2))
    assert len(read_video(tmp_path / "videos.mp4").frames) == 9


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started_browser(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 1366])
def test_the_page_fits_a_phone_and_a_desk_and_asks_for_nothing(page: Path, browser: Browser, width: int) -> None:
    browser.requested.clear()
    browser.open(page, width=width, height=844)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.title") == "regen_train demo: a toy"
    assert {url.split(":")[0] for url in browser.requested} <= {"file", "data", "about"}
    assert browser.run("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")


@pytest.mark.slow
@needs_browser
def test_clips_loop_stop_and_lie_open_frame_by_frame(page: Path, browser: Browser) -> None:
    browser.open(page)
    loop = "document.querySelector('#clips .loop')"
    shift = f"new DOMMatrix(getComputedStyle({loop}.firstChild).transform).f / {loop}.clientHeight"
    seen = set()
    for _ in range(60):
        seen.add(round(browser.run(f"new Promise((done) => setTimeout(() => done({shift}), 40))")))
    assert seen == set(range(-8, 1))
    browser.run("document.getElementById('still').click()")
    assert browser.run(f"getComputedStyle({loop}.firstChild).animationPlayState") == "paused"
    before = browser.run(f"{loop}.clientHeight")
    browser.run("document.getElementById('sheet').click()")
    assert browser.run(f"{loop}.clientHeight") == pytest.approx(9 * before, rel=0.02)
    ratio = browser.run(
        "(() => { const l = document.querySelector('#own .loop'); return l.clientWidth / l.clientHeight })()"
    )
    assert ratio == pytest.approx(112 / 64 / 9, rel=0.05)
