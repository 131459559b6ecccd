"""What a person looks at: the review page of a run, and contact sheets of a finished dataset."""

from regen_train.preparation.preview.collect import Run, check_page_folder, items_of_run
from regen_train.preparation.preview.items import PageItem, Reason, reasons_of_report, without_names
from regen_train.preparation.preview.outcomes import ClipOutcome, WindowOutcome, outcomes_of_run
from regen_train.preparation.preview.page import page_text, write_page
from regen_train.preparation.preview.sheets import check_vae, contact_sheet, write_sheet
from regen_train.preparation.preview.shots import Drawing
from regen_train.preparation.preview.strips import choose_frames, draw_strips, write_strips

__all__ = [
    "ClipOutcome",
    "Drawing",
    "PageItem",
    "Reason",
    "Run",
    "WindowOutcome",
    "check_page_folder",
    "check_vae",
    "choose_frames",
    "contact_sheet",
    "draw_strips",
    "items_of_run",
    "outcomes_of_run",
    "page_text",
    "reasons_of_report",
    "without_names",
    "write_page",
    "write_sheet",
    "write_strips",
]
