"""What one training step costs by its shapes alone: FLOPs, the least seconds they take, and memory, by policy.

    python benchmarks/step_on_paper.py [--rate 790]

Executed FLOPs are what the GPU has to do: forward; backward, in which flash attention computes its products once more
(2.5 times its forward); and what the checkpointing policy recomputes. Model FLOPs, of which MFU is made, leave out all
that is computed twice. The floor is executed FLOPs by ``--rate``, the rate of large matrix products in TFLOP/s, which
`regen_train profile` measures on a device; 790 is assumed for bf16 on an H200. Of bytes that move it knows nothing:
`bytes_on_paper.py` counts those. Memory is the estimate of the same command, and a policy is taken for a card whose
free memory it fills to nine tenths at most: the last column is the least that must be free. Prints markdown; seconds on
any machine.
"""

import argparse
from dataclasses import dataclass

from regen_train.model import LoraSpec, WanVace, estimate_bytes
from regen_train.model.checkpointing import Policy
from regen_train.model.memory import USABLE_SHARE
from regen_train.model.outline import outline_wan_vace
from regen_train.schema import MAX_PROMPT_TOKENS, Bucket
from regen_train.training.flops import training_flops

_GIB, _TERA = 2**30, 1e12
POLICIES: tuple[Policy, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Shape:
    """One row's clip.

    Args:
        pretrained: The model, random.
        bucket: Of the clip.
        reference: Whether there is a reference frame.
    """

    pretrained: str
    bucket: Bucket
    reference: bool = True


SHAPES = (
    Shape("random:wan2.1-vace-1.3b", Bucket(49, 480, 832)),
    Shape("random:wan2.1-vace-1.3b", Bucket(81, 480, 832), reference=False),
    Shape("random:wan2.1-vace-1.3b", Bucket(81, 480, 832)),  # structhuman_81f.yaml
    Shape("random:14b", Bucket(49, 480, 832)),
)


def main() -> None:
    """Print a row for every shape and policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=790.0, help="TFLOP/s of large matrix products")
    rate = parser.parse_args().rate
    print("| model | tokens | checkpointing | model TFLOP | executed TFLOP | floor s | MFU at floor | GiB | free GiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        learning = outline_wan_vace(shape.pretrained, lora=LoraSpec(rank=32))
        frozen = outline_wan_vace(shape.pretrained, lora=None)
        tokens = learning.geometry.num_tokens(shape.bucket, reference=shape.reference)
        useful = training_flops(learning, tokens) / _TERA
        for policy in POLICIES:
            executed = _executed(learning, frozen, tokens, policy) / _TERA
            gib = estimate_bytes(learning, policy, tokens=tokens, batch=1) / _GIB
            floor = executed / rate
            print(
                f"| {shape.pretrained.removeprefix('random:')} | {tokens:,} | {policy} | {useful:,.0f} "
                f"| {executed:,.0f} | {floor:.2f} | {useful / executed:.0%} | {gib:.1f} "
                f"| {gib / USABLE_SHARE:.1f} |"
            )


def _executed(learning: WanVace, frozen: WanVace, tokens: int, policy: Policy) -> int:
    forward = training_flops(frozen, tokens)
    own = 4 * tokens * tokens * learning.hidden_size * learning.num_blocks
    words = 4 * tokens * MAX_PROMPT_TOKENS * learning.hidden_size * learning.num_blocks
    again = {"none": 0, "selective": forward - own - words, "full": forward}[policy]
    return training_flops(learning, tokens) + own // 2 + again


if __name__ == "__main__":
    main()
