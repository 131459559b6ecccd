"""What it costs to encode one clip and one prompt, which training from shards does once and online training every step.

    python benchmarks/encode.py --pretrained toy                       # seconds, on a CPU
    python benchmarks/encode.py --pretrained random:wan2.1-vace-1.3b --bucket 49x480x832 --dtype bf16 --device cuda

A clip is three videos and a frame: the clip itself, VACE's reactive and inactive video, the reference; data preparation
encodes two of them, the inactive video of an all-ones mask being a constant of the bucket, and the reference the
reactive video's first latent. Random names are Wan 2.1's VAE and UMT5-XXL with random weights. Prints markdown.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from train_step_clip import draw_clip
from train_step_ways import seconds_of
from wan_encoders import load_online_encoders

from regen_train.schema import Bucket
from regen_train.toy.tiny import build_tiny_wan_vace


def main() -> None:
    """Time video, frame and prompt in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="toy", help="toy, random:tiny, random:wan2.1-vace-1.3b or a folder")
    parser.add_argument("--bucket", type=Bucket.parse, default=Bucket(9, 80, 80))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="fp32", choices=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = options.pretrained
        if name == "random:tiny":
            options.pretrained = str(build_tiny_wan_vace(Path(folder) / "tiny"))
        encoders = load_online_encoders(options.pretrained, dtype=options.dtype, device=options.device)
    raw = draw_clip(options.bucket, encoders, options.device)
    work = {
        "video": partial(encoders.encode_video, raw.video),
        "reference frame": partial(encoders.encode_video, raw.video[:, :, :1]),
        "prompt": partial(encoders.encode_prompts, raw.ids, raw.mask),
    }
    times: dict[str, list[float]] = {part: [] for part in work}
    for _ in range(options.rounds + 1):
        for part, encode in work.items():
            times[part].append(seconds_of(encode, options.device))
    seconds = {part: statistics.median(found[1:]) for part, found in times.items()}  # the first warms up
    print(f"{name}, {options.bucket}, {options.dtype}, {options.device}, {torch.get_num_threads()} threads\n")
    print("| | seconds, median |\n|---|---|")
    for part, median in seconds.items():
        print(f"| {part} | {median:.4f} |")
    print(f"| online, every step | {3 * seconds['video'] + seconds['reference frame'] + seconds['prompt']:.4f} |")
    print(f"| data preparation, once a clip and condition | {2 * seconds['video'] + seconds['prompt']:.4f} |")


if __name__ == "__main__":
    main()
