"""From items to one HTML page beside its pictures: no network, no other file, opens from a disk.

Items go into the page as JSON text, from which its script makes text nodes: whatever a clip is named or captioned is
shown, and never parsed as HTML. A content security policy admits the page's own script and style by their hashes, and
pictures beside it, and nothing else.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from regen_train.files import write_atomically
from regen_train.guard import format_frames
from regen_train.preparation.preview.items import PageItem, Reason, without_names

PAGE_NAME = "index.html"
NO_SOURCE = (
    "Written without source pixels: no source strip and no StructHuman, whose background is real. File names, captions "
    "and messages, which may quote them, are left out; a page with source pixels has them under the same keys."
)
WITH_SOURCE = "This page shows the people of the source clips: keep it as safe as the clips."


def write_page(folder: Path, items: Iterable[PageItem], *, title: str, source: bool) -> Path:
    """Write ``FOLDER/index.html`` and return its path; pictures lie in the folder already.

    Args:
        folder: The page's folder.
        items: What to list, in this order.
        title: The page's heading.
        source: Whether source pixels, file names and free text may be shown; if not, text is left out here.
    """
    path = folder / PAGE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page_text(items, title=title, source=source).encode())
    return path


def page_text(items: Iterable[PageItem], *, title: str, source: bool) -> str:
    """Return the page; see `write_page`."""
    style, script = _resource("page.css"), _resource("page.js") + _resource("controls.js")
    listed = [_plain_item(item if source else without_names(item)) for item in items]
    return Template(_resource("page.html")).substitute(
        policy=html.escape(_policy(style, script)),
        title=html.escape(title),
        note=html.escape(WITH_SOURCE if source else NO_SOURCE),
        searched="name, key, caption, message" if source else "key, reason",
        style=style,
        script=script,
        data=_script_safe(listed),
    )


def _plain_item(item: PageItem) -> dict[str, Any]:
    return {
        "key": item.key,
        "verdict": item.verdict,
        "name": item.name or "",
        "caption": item.caption,
        "span": "" if item.span is None else f"{item.span[0]}-{item.span[1]}",
        "notes": list(item.notes),
        "reasons": [_plain_reason(reason) for reason in item.reasons],
        "frames": list(item.frames),
        "flagged": item.flags,
        "size": list(item.frame_size),
        "strips": dict(item.strips),
    }


def _plain_reason(reason: Reason) -> dict[str, Any]:
    return {
        "check": reason.check,
        "severity": reason.severity,
        "frames": format_frames(reason.frames, at_most=1000),
        "measured": _plain_measured(reason.measured),
        "message": reason.message,
    }


def _plain_measured(measured: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in measured.items())


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.4g}"


def _script_safe(value: Any) -> str:
    """Return JSON that may stand inside a script element: nothing in it can end the element or open another."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(style: str, script: str) -> str:
    allowed = {
        "default-src": "'none'",
        "img-src": "'self' file:",
        "style-src": _hash_source(style),
        "script-src": _hash_source(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _resource(name: str) -> str:
    return (files("regen_train.preparation.preview") / name).read_text(encoding="utf-8")
