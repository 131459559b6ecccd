"""The model card: what the files are, where they come from, how to load them, and what they do not promise."""

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

from regen_train.adapter import ADAPTER_FILE, AdapterMetadata
from regen_train.export.writing import MERGED_FILE, WAN_FILE, ExportedFile
from regen_train.files import file_sha256

CARD_FILE: Final = "README.md"
BASE_PLACEHOLDER: Final = "PATH/TO/BASE"

_PLACEHOLDER: Final = f"""
The base was loaded from a folder or file of that name and is identified by its sha256. In the code below
`{BASE_PLACEHOLDER}` stands for where it lies.
"""

_HEAD = Template("""\
---
library_name: diffusers
${base_model}tags: [video, anonymization, wan, vace]
---
# Video anonymizer for Wan VACE: $variant

Trained with regen_train on conditions in which people are gray silhouettes with a drawn skeleton; it generates new
people into them.

| | |
|---|---|
$facts
$placeholder
Settings of the training:

```json
$recipe
```

## Files

Every file was loaded again with the tool it is for (original names: with this package, and whole weights with
diffusers), and its velocity compared with the trained model's on a fixed input.

| file | format | difference | limit | sha256 |
|---|---|---|---|---|
$files

Differences are the largest in fp32; for bf16 weights they are root mean squares, and the limit is 1.25 times the
distance of the unmerged model in bf16.
""")

_DIFFUSERS = Template("""
## diffusers

```python
import torch
from diffusers import WanVACEPipeline

pipe = WanVACEPipeline.from_pretrained("$base"$revision, dtype=torch.bfloat16)
pipe.load_lora_weights(".", weight_name="$file")
```
""")

_WAN = Template("""
## DiffSynth-Studio

```python
import torch
from diffsynth.pipelines.wan_video import ModelConfig, WanVideoPipeline

base = "$original"  # the base above, in its original format
pipe = WanVideoPipeline.from_pretrained(
    torch_dtype=torch.bfloat16,
    device="cuda",
    model_configs=[
        ModelConfig(path=f"{base}/diffusion_pytorch_model.safetensors"),
        ModelConfig(path=f"{base}/models_t5_umt5-xxl-enc-bf16.pth"),
        ModelConfig(path=f"{base}/Wan2.1_VAE.pth"),
    ],
)
pipe.load_lora(pipe.vace, "$file", alpha=1)
```

## ComfyUI

Copy `$file` to `models/loras` and put *LoraLoaderModelOnly* (strength 1) behind the node that loads the
Wan VACE model.
""")

_MERGED = Template("""
## Merged weights ($dtype)

```python
import torch
from diffusers import WanVACEPipeline, WanVACETransformer3DModel

transformer = WanVACETransformer3DModel.from_pretrained("merged", subfolder="transformer", dtype=torch.$torch)
pipe = WanVACEPipeline.from_pretrained("$base"$revision, transformer=transformer, dtype=torch.$torch)
```

`merged/$file` is the same transformer under the original names. For ComfyUI copy it to
`models/diffusion_models`; for DiffSynth-Studio give its path to the `ModelConfig` that stands for the base's
`diffusion_pytorch_model.safetensors`. Text encoder and VAE are those of the base.
""")

_TAIL = """
## Limits

- Made for one kind of condition: make it as the training did (regen_train, the variant above). With other conditions
  the pictures are worse and people may be recognisable.
- What a condition shows, the result keeps: silhouettes, body proportions, gait and, with StructHuman, the background.
  A skeleton alone can identify a person who is known to the observer. Outputs are de-identified; whether they are
  anonymous in the sense of a law depends on the videos and on who looks at them, and no model decides that.
- Missed people are not anonymized. Check masks before and pictures after.
- The training data are encodings of the original videos and are as sensitive as these; this folder holds none, but a
  model can remember what it was trained on.
- Not for making a person appear to do what they did not do, nor for hiding that a video was altered.

## Licence

The base is released by its authors under a licence of its own (Wan 2.1: Apache-2.0), which goes on to hold for merged
weights. Of the trained weights, whoever trained them decides, within what the licences and consents of the training
videos allow.
"""


def model_card(
    metadata: AdapterMetadata, files: Sequence[ExportedFile], *, trainable: str, dtype: str, folder: Path
) -> str:
    """Return the card as markdown, with usage for exactly the files written.

    Args:
        metadata: Where the weights come from.
        files: What was written, by paths relative to ``folder``.
        trainable: ``lora``, ``vace`` or ``all``.
        dtype: Precision of merged weights.
        folder: Where the files lie now, to hash them.
    """
    names = {file.path.name for file in files}
    on_hub = "/" in metadata.base_name  # every other base is known by the last part of its path
    head = _HEAD.substitute(
        base_model=f"base_model: {metadata.base_name}\n" if on_hub else "",
        placeholder="" if on_hub else _PLACEHOLDER,
        variant=metadata.variant or "variant unknown",
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(metadata, trainable).items()),
        recipe=json.dumps({**metadata.recipe, **metadata.settings}, indent=2, sort_keys=True),
        files="\n".join(_row(file, folder) for file in files),
    )
    base = {
        "base": metadata.base_name if on_hub else BASE_PLACEHOLDER,
        "original": f"models/{metadata.base_name.removesuffix('-diffusers')}" if on_hub else BASE_PLACEHOLDER,
        "revision": f', revision="{metadata.base_revision}"' if metadata.base_revision else "",
    }
    usage = ""
    if ADAPTER_FILE in names:
        usage += _DIFFUSERS.substitute(base, file=ADAPTER_FILE)
    if WAN_FILE in names:
        usage += _WAN.substitute(base, file=WAN_FILE)
    if MERGED_FILE in names:
        torch_name = {"bf16": "bfloat16", "fp32": "float32"}[dtype]
        usage += _MERGED.substitute(base, dtype=dtype, torch=torch_name, file=MERGED_FILE)
    return head + usage + _TAIL


def _facts(metadata: AdapterMetadata, trainable: str) -> dict[str, str]:
    known = {
        "base": metadata.base_name,
        "base revision": metadata.base_revision,
        "base sha256 (bf16-rounded tensors under diffusers' names)": metadata.base_sha256,
        "dataset fingerprint": metadata.dataset_fingerprint,
        "steps": metadata.step,
        "weights": {"raw": "as trained", "ema": "moving average"}.get(metadata.weights, metadata.weights),
        "trained": {"lora": "LoRA", "vace": "VACE blocks", "all": "all weights"}[trainable],
    }
    if trainable == "lora":
        kind = "DoRA" if metadata.use_dora else "rsLoRA" if metadata.use_rslora else "LoRA"
        known |= {kind: f"rank {metadata.rank}, alpha {metadata.alpha:g}, {metadata.targets} of every VACE block"}
    known |= {"regen_train": metadata.code_version}
    return {name: "unknown" if value in (None, "") else f"{value}" for name, value in known.items()}


def _row(file: ExportedFile, folder: Path) -> str:
    path = folder / file.path
    weights = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    digest = "<br>".join(f"`{file_sha256(weight)}`" for weight in weights)
    return f"| `{file.path}` | {file.format} | {file.difference:.1e} | {file.limit:.1e} | {digest} |"
