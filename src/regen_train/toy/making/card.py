"""Write the toy's model card from what was made and logged."""

import csv
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from regen_train.pretrained import read_config
from regen_train.shards import load_dataset
from regen_train.toy.form import TOY_FORM

_TEMPLATE = Path(__file__).with_name("card.md")


def write_card(model: Path, dataset: Path) -> None:
    """Write README.md into a finished toy.

    Args:
        model: Its folder, logs included.
        dataset: The shards that the base was trained on.
    """
    transformer, vae = (read_config(model / part / "config.json") for part in ("transformer", "vae"))
    logs = model / "logs"
    trained, measured = _last(logs / "vae.csv"), _last(logs / "base.csv", having="held_out_loss")
    text = _TEMPLATE.read_text().format(
        num_frames=TOY_FORM.num_frames,
        height=TOY_FORM.height,
        width=TOY_FORM.width,
        fps=TOY_FORM.fps,
        latents=vae["z_dim"],
        blocks=transformer["num_layers"],
        vace_blocks=len(transformer["vace_layers"]),
        width_of_blocks=transformer["num_attention_heads"] * transformer["attention_head_dim"],
        vae_parameters=_millions(model / "vae"),
        parameters=_millions(model / "transformer"),
        text_parameters=_millions(model / "text_encoder"),
        vae_steps=f"{int(trained['step']):,}",
        clips=f"{load_dataset(str(dataset)).info.num_samples:,}",
        steps=f"{int(_last(logs / 'base.csv')['step']):,}",
        psnr=trained["held_out_psnr"],
        people_psnr=trained["held_out_people_psnr"],
        text_loss=_last(logs / "text_encoder.csv")["loss"],
        base_loss=measured["held_out_loss"],
    )
    (model / "README.md").write_text(text)


def _last(log: Path, *, having: str = "step") -> Mapping[str, str]:
    with log.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row[having]][-1]


def _millions(folder: Path) -> float:
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            total += sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    return total / 1e6
