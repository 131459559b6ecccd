"""The page's figures as HTML tables, each number with its interval and how many it comes from."""

import html
from collections.abc import Sequence

from regen_train.demo.control import CaptionControl
from regen_train.demo.journal import Journal
from regen_train.demo.measure import Measurement
from regen_train.demo.methods import METHODS, Method
from regen_train.demo.words import number, spread
from regen_train.evaluation import REGIONS, Identification, Interval

_NAMED = {"lower": "trousers, skirt", "all": "all together"}


def tiles(found: Measurement) -> str:
    """Return the few numbers to begin with."""
    ours, blur, vae = found.of("structhuman"), found.of("blur"), found.of("reconstruction")
    attack, new = ours.adaptive, ours.new_colours["all"]
    shown = [
        (
            f"{100 * attack.rate:.0f} %",
            f"of people named rightly after StructHuman, by an attacker who has learned ({_percent(attack)}; "
            f"n = {attack.n}); chance is {100 * attack.chance:.0f} %, after blur {100 * blur.adaptive.rate:.0f} %",
        ),
        (
            number(ours.mask_iou.value),
            f"mask IoU: do new people stand where the old ones stood? ({spread(ours.mask_iou)}; "
            f"n = {ours.mask_iou.n}); the VAE alone reaches {number(vae.mask_iou.value)}",
        ),
        (
            f"{number(ours.background_psnr.value, 1)} dB",
            f"PSNR outside the mask: is the room kept? ({spread(ours.background_psnr, 1)}; "
            f"n = {ours.background_psnr.n}); the VAE alone reaches {number(vae.background_psnr.value, 1)} dB",
        ),
        (
            number(new.value),
            f"correlation of the painted colours with those that the new caption asks for ({spread(new)}; n = {new.n})",
        ),
    ]
    return "".join(f"<li><b>{value}</b><span>{html.escape(text)}</span></li>" for value, text in shown)


def identity_figures(found: Measurement) -> str:
    """Return re-identification by both attackers."""
    rows = []
    for figures in found.methods:
        attacks = (figures.clean, figures.adaptive)
        cells = [_share(attack.rate, attack) for attack in attacks]
        rows.append(_row(METHODS[figures.method], [*cells, f'<td class="plot">{_plot(*attacks)}</td>']))
    n = found.methods[0].clean.n
    return _table(
        ["", "clean", "adaptive", f"0 % to 100 %, n = {n}; dashes: chance; pale: clean, full: adaptive"], rows
    )


def colour_figures(found: Measurement) -> str:
    """Return how far colours go with the original's."""
    regions = [*REGIONS, "all"]
    rows = [_row(METHODS[figures.method], [_cell(figures.old_colours[region]) for region in regions])
            for figures in found.methods]  # fmt: skip
    return _table(["", *(_headed(region, found.methods[0].old_colours[region]) for region in regions)], rows)


def caption_figures(found: Measurement) -> str:
    """Return how far colours go with the new caption's, and whether two people are kept apart."""
    regions = [*REGIONS, "all"]
    painted = [figures for figures in found.methods if figures.new_colours]
    rows = []
    for figures in painted:
        cells = [_cell(figures.new_colours[region]) for region in regions]
        apart = found.apart.get(figures.method)
        cells.append(
            "<td></td>" if apart is None else f"<td>{100 * apart.value:.0f} %<small>{_percent(apart)}</small></td>"
        )
        rows.append(_row(METHODS[figures.method], cells))
    n = next(iter(found.apart.values())).n
    heads = [_headed(region, painted[0].new_colours[region]) for region in regions]
    return _table(["", *heads, f"two people who cross keep their own (n = {n})"], rows)


def control_figures(control: CaptionControl) -> str:
    """Return what one changed word changes."""
    shirt = _cell(control.shirt)
    moved = [_cell(interval, 0) for interval in (control.shirt_change, control.other_change)]
    n = control.shirt.n
    heads = [f"the shirt follows, r (n = {n})", f"the shirt changes by, of 255 (n = {control.shirt_change.n})"]
    heads.append(f"the rest of the person by (n = {control.other_change.n})")
    return _table(["", *heads], [_row(METHODS["structhuman"], [shirt, *moved])])


def motion_figures(found: Measurement) -> str:
    """Return whether people do the same, and whether the room is the same."""
    rows = [
        _row(METHODS[figures.method], [_cell(figures.mask_iou), _cell(figures.pck), _cell(figures.background_psnr, 1)])
        for figures in found.methods
    ]
    n = found.methods[0].mask_iou.n
    return _table(["", f"mask IoU (n = {n})", f"PCK (n = {n})", f"background, dB (n = {n})"], rows)


def gain_figures(found: Measurement) -> str:
    """Return what the LoRA adds."""
    rows = []
    for gain in found.gains:
        cells = [_cell(interval, 3, signed=True) for interval in (gain.mask_iou, gain.pck)]
        rows.append(_row(METHODS[gain.variant], cells))
    n = found.gains[0].mask_iou.n
    return _table(["", f"mask IoU, with less without (n = {n})", f"PCK, with less without (n = {n})"], rows)


def step_figures(journal: Journal) -> str:
    """Return what was done, how long it took and how much memory."""
    rows = [
        f"<tr><th>{html.escape(entry.step)}</th><td>{number(entry.seconds, 1)}</td>"
        f"<td>{entry.peak_bytes / 1e9:.1f}</td><td>{html.escape(entry.result)}</td></tr>"
        for entry in journal.entries
    ]
    return _table(["step", "seconds", "GB", "result"], rows)


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(method: Method, cells: Sequence[str]) -> str:
    kind = ' class="ours"' if method.trained else ""
    what = html.escape(method.what)
    return f'<tr{kind}><th title="{what}">{html.escape(method.label)}</th>{"".join(cells)}</tr>'


def _cell(interval: Interval, digits: int = 2, *, signed: bool = False) -> str:
    sign = "+" if signed and interval.value > 0 else ""
    return f"<td>{sign}{number(interval.value, digits)}<small>{spread(interval, digits)}</small></td>"


def _share(value: float, interval: Interval | Identification) -> str:
    return f"<td>{100 * value:.0f} %<small>{_percent(interval)}</small></td>"


def _headed(region: str, interval: Interval) -> str:
    return f"{_NAMED.get(region, region)} (n = {interval.n})"


def _percent(interval: Interval | Identification) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def _plot(clean: Identification, adaptive: Identification) -> str:
    """Draw both attackers' intervals on a line from 0 to 1, and chance."""
    parts = [f'<line class="chance" x1="{100 * clean.chance:.2f}" x2="{100 * clean.chance:.2f}" y1="0" y2="26"/>']
    for found, y, faint in ((clean, 8, " faint"), (adaptive, 18, "")):
        low, high, value = (100 * share for share in (found.low, found.high, found.rate))
        parts.append(f'<line class="reach{faint}" x1="{low:.2f}" x2="{high:.2f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<line class="value{faint}" x1="{value - 0.6:.2f}" x2="{value + 0.6:.2f}" y1="{y}" y2="{y}"/>')
    return f'<svg viewBox="0 0 100 26" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
