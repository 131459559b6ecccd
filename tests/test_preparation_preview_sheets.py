from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from data_prep import sheets
from regen_train.encoders import load_vae
from regen_train.shards import ShardReader
from regen_train.toy.tiny import build_tiny_wan_vace


def test_sheets_show_the_clip_and_its_conditions(tiny_dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ["--dataset", str(tiny_dataset), "--pretrained", str(tiny_model), "--output", str(tmp_path / "sheets")]
    assert sheets.main([*options, "--num_samples", "2", "--columns", "3"]) == 0
    written = sorted((tmp_path / "sheets").glob("*.png"))
    assert len(written) == 2
    reader, vae = ShardReader(str(tiny_dataset)), load_vae(str(tiny_model))
    samples = {sample.key: sample for sample in map(reader.read, range(len(reader)))}
    for path in written:
        sample = samples[path.stem]
        height, width = sample.bucket.height, sample.bucket.width
        with Image.open(path) as picture:
            pixels = pil_to_tensor(picture).permute(1, 2, 0)
        assert pixels.shape == (3 * height, 3 * width, 3)
        everything = vae.decode_video(sample.conditions["structall"].reactive.float())
        human = vae.decode_video(sample.conditions["structhuman"].reactive.float())
        real = vae.decode_video(sample.latents.float())
        assert torch.equal(pixels[:height, -width:], real[-1])
        assert torch.equal(pixels[height : 2 * height, :width], everything[0])
        assert torch.equal(pixels[2 * height :, width : 2 * width], human[2])


def test_another_vae_is_refused(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = build_tiny_wan_vace(tmp_path / "other", seed=1)
    options = ["--dataset", str(tiny_dataset), "--pretrained", str(other), "--output", str(tmp_path / "sheets")]
    with pytest.raises(SystemExit, match="2"):
        sheets.main(options)
    assert "name the model that the dataset was prepared with" in capsys.readouterr().err
    assert not (tmp_path / "sheets").exists()
