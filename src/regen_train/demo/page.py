"""The demo's page: one HTML file that holds its pictures, loads nothing and runs no script."""

import base64
import hashlib
import html
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from regen_train.demo.figures import (
    caption_figures,
    colour_figures,
    control_figures,
    gain_figures,
    identity_figures,
    motion_figures,
    step_figures,
    tiles,
)
from regen_train.demo.own import PRIVATE, Refusal
from regen_train.demo.pictures import Panel, ShownClip
from regen_train.demo.report import Report
from regen_train.demo.words import number
from regen_train.files import write_atomically

PAGE_NAME = "index.html"


@dataclass(frozen=True)
class Gallery:
    """What the page shows.

    Args:
        clips: Held-out clips.
        words: Held-out clips with one word of the caption changed.
        own: The user's own clip, or why there is nothing of it.
    """

    clips: Sequence[ShownClip]
    words: Sequence[ShownClip]
    own: ShownClip | Refusal | None = None


def write_page(path: Path, report: Report, gallery: Gallery) -> None:
    """Write the page.

    Args:
        path: Where to.
        report: All figures.
        gallery: All pictures.
    """
    write_atomically(path, page_text(report, gallery).encode())


def page_text(report: Report, gallery: Gallery) -> str:
    """Return the page; see `write_page`."""
    found, journal = report.measurement, report.journal
    frames, height, width, _ = gallery.clips[0].panels[0].frames.shape
    own = gallery.own
    own_height, own_width = own.panels[0].frames.shape[1:3] if isinstance(own, ShownClip) else (height, width)
    style = Template(_resource("page.css")).substitute(
        frames=frames, shift=f"{100 * (1 - frames) / frames:.4f}", own_ratio=f"{own_width}/{own_height}"
    )
    identity = found.methods[0].clean
    return Template(_resource("page.html")).substitute(
        policy=html.escape(_policy(style)),
        style=style,
        size=f"{height} by {width}",
        minutes=number(journal.seconds / 60, 1),
        tiles=tiles(found),
        own="" if own is None else _own(own),
        clips="\n".join(map(_clip, gallery.clips)),
        words="".join(map(_words, gallery.words)),
        control=control_figures(report.control),
        n=identity.n,
        chance=f"{100 * identity.chance:.1f} %",
        identity=identity_figures(found),
        colours=colour_figures(found),
        motion=motion_figures(found),
        gains=gain_figures(found),
        captions=caption_figures(found),
        seconds=number(journal.seconds, 0),
        memory=f"{journal.peak_bytes / 1e9:.1f} GB",
        machine=html.escape(f"{os.cpu_count()} CPU cores, {platform.machine()}"),
        pretrained=html.escape(Path(report.settings.pretrained).name),
        steps=step_figures(journal),
        commands=html.escape("\n".join(command for entry in journal.entries for command in entry.commands)),
    )


def _own(clip: ShownClip | Refusal) -> str:
    private = f'<p class="note">{html.escape(PRIVATE)}</p>'
    if isinstance(clip, Refusal):
        return (
            f'<section id="own">\n<h2>Your clip</h2>\n<p>{html.escape(clip.title)} was left out:</p>\n'
            f"{_list(clip.reasons)}\n<p>What to do:</p>\n{_list(clip.remedies)}\n{private}\n</section>"
        )
    return (
        '<section id="own">\n<h2>Your clip</h2>\n<p class="note">Its first window, by a toy model that has only ever '
        "seen drawn people: what comes out looks like nobody real. It shows that your masks, skeletons and depth are "
        "read and pass the gate. Figures that need exact truth are left out for it; all others on this page are of the "
        f"drawn world.</p>\n{private}\n{_clip(clip)}\n</section>"
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _clip(clip: ShownClip) -> str:
    others = "".join(map(_panel, clip.others))
    return (
        f'<article class="clip">\n<h3>{html.escape(clip.title)}</h3>\n'
        f"<p>New caption: “{html.escape(clip.caption)}”</p>\n"
        f'<div class="panels">{"".join(map(_panel, clip.panels))}</div>\n'
        + (f'<div class="panels others">{others}</div>\n' if others else "")
        + "</article>"
    )


def _words(clip: ShownClip) -> str:
    return (
        f'<article class="clip">\n<h3>{html.escape(clip.title)}</h3>\n'
        f'<div class="panels">{"".join(map(_panel, clip.panels))}</div>\n</article>'
    )


def _panel(panel: Panel) -> str:
    label = html.escape(panel.label)
    return (
        f'<figure class="{panel.kind}"><div class="loop"><img alt="{label}" src="{panel.sheet}"></div>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _resource(name: str) -> str:
    return (files("regen_train.demo") / name).read_text(encoding="utf-8")
