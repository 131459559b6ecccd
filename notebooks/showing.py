"""What the notebooks share: the demo's output, pictures in rows, tables."""

import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image, Markdown, display
from jaxtyping import UInt8
from torch import Tensor

from regen_train.demo.settings import DemoFolder

DEMO_VARIABLE = "REGEN_TRAIN_DEMO"
"""Names the folder of a demo elsewhere than in ``demo_output`` beside ``notebooks``."""

_INCHES, _DPI = 1.35, 120
"""Side of a picture: twice the toy's 80 pixels."""


def open_demo() -> DemoFolder:
    """Find what `regen_train demo` made, and keep libraries from talking into the notebook.

    Raises:
        FileNotFoundError: There is none, or it is not finished.
    """
    stated = os.environ.get(DEMO_VARIABLE)
    folder = DemoFolder(Path(stated) if stated else Path(__file__).resolve().parents[1] / "demo_output")
    needed = (folder.path / "report.json", folder.dataset, folder.run("structhuman"), folder.exported("structhuman"))
    missing = [path.relative_to(folder.path).as_posix() for path in needed if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder.path} holds no finished demo, it lacks {', '.join(missing)}: run `make demo` first (minutes on "
            f"two CPU cores), or name the folder of another demo in the environment variable {DEMO_VARIABLE}"
        )
    _hush_libraries()
    return folder


def show_pictures(
    rows: Mapping[str, Sequence[UInt8[Tensor, "h w 3"]]], columns: Sequence[str] = (), *, inches: float = _INCHES
) -> None:
    """Show rows of pictures of one size, pixels as squares.

    Args:
        rows: What stands before each row, and its pictures.
        columns: What stands above the pictures.
        inches: Side of a picture.
    """
    width = max(map(len, rows.values()))
    figure, axes = plt.subplots(
        len(rows), width, squeeze=False, figsize=(inches * width + 1.3, inches * len(rows) + 0.25), layout="constrained"
    )
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture.numpy(), interpolation="nearest")
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis, label in zip(axes[0], columns, strict=False):
        axis.set_title(label, fontsize="medium")
    file = io.BytesIO()  # JPEG, for painted pictures are large as PNG
    figure.savefig(file, format="jpeg", dpi=_DPI, pil_kwargs={"quality": 85, "optimize": True})
    plt.close(figure)
    display(Image(file.getvalue(), format="jpeg", alt="; ".join(rows)))


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show a table; the first column to the left, the others to the right."""
    rule = [":--", *("--:" for _ in header[1:])]
    display(Markdown("\n".join("| " + " | ".join(map(str, row)) + " |" for row in (header, rule, *rows))))


def _hush_libraries() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
