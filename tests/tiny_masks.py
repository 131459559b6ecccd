"""Tiny random models of the classes that find masks, saved as their big kin are."""

import json
from pathlib import Path

import torch

SEED = 0
SIDE = 56
PATCH = 14


def build_tiny_sam3(folder: Path) -> Path:
    """Save a random SAM 3 video model of some 5 million parameters, with its processor."""
    from transformers import (
        CLIPTokenizer,
        Sam2VideoVideoProcessor,
        Sam3ImageProcessor,
        Sam3VideoConfig,
        Sam3VideoModel,
        Sam3VideoProcessor,
    )

    torch.manual_seed(SEED)
    cells = SIDE // PATCH
    sizes = [[4 * cells, 4 * cells], [2 * cells, 2 * cells], [cells, cells]]
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH, "window_size": 2, "global_attn_indexes": [1],
        "pretrain_image_size": SIDE,
    }  # fmt: skip
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 128,
        "backbone_feature_sizes": sizes,
    }
    small = {"hidden_size": 128, "intermediate_size": 64, "num_attention_heads": 2}
    detector = {
        "vision_config": vision,
        "text_config": {
            "model_type": "clip_text_model", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64,
            "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
            "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
        },
        "geometry_encoder_config": {**small, "num_layers": 1},
        "detr_encoder_config": {**small, "num_layers": 1},
        "detr_decoder_config": {**small, "num_layers": 1, "num_queries": 3},
        "mask_decoder_config": {"hidden_size": 128, "num_attention_heads": 2},
    }  # fmt: skip
    tracker = {
        "vision_config": vision, "image_size": SIDE,
        "prompt_encoder_config": {"hidden_size": 128, "image_size": SIDE, "patch_size": PATCH},
        "mask_decoder_config": {"hidden_size": 128, "mlp_dim": 64, "iou_head_hidden_dim": 64, "num_attention_heads": 2},
        "memory_attention_hidden_size": 128, "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 64, "memory_attention_rope_feat_sizes": [cells, cells],
        "memory_encoder_hidden_size": 128, "memory_encoder_output_channels": 64, "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128, "memory_fuser_intermediate_dim": 64,
    }  # fmt: skip
    config = Sam3VideoConfig(detector_config=detector, tracker_config=tracker, low_res_mask_size=4 * cells)
    Sam3VideoModel(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    processor = Sam3VideoProcessor(
        Sam3ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size), CLIPTokenizer(*_clip_vocabulary(folder))
    )
    processor.save_pretrained(folder)
    return folder


def _clip_vocabulary(folder: Path) -> tuple[str, str]:
    letters = list("abcdefghijklmnopqrstuvwxyz")
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    merges.write_text("#version: 0.2\n")
    return str(vocabulary), str(merges)


def build_tiny_grounding_dino(folder: Path) -> Path:
    """Save a random Grounding DINO over a Swin backbone, with its processor."""
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    torch.manual_seed(SEED)
    backbone = {
        "model_type": "swin", "image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1, 1],
        "num_heads": [1, 1, 1], "window_size": 4, "out_features": ["stage2", "stage3"],
    }  # fmt: skip
    text = {
        "model_type": "bert", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=6, num_feature_levels=3,
        encoder_n_points=2, decoder_n_points=2, max_text_len=32,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "person", "human"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


def build_tiny_sam2(folder: Path) -> Path:
    """Save a random SAM 2 video model over a Hiera backbone, with its processor."""
    from transformers import (
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
    )

    torch.manual_seed(SEED)
    side, cells, width = 64, 4, 128
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "image_size": [side, side],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 2],
        "global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4],
    }  # fmt: skip
    vision = {
        "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[4 * cells] * 2, [2 * cells] * 2, [cells] * 2], "fpn_hidden_size": width,
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision, image_size=side,
        prompt_encoder_config={"hidden_size": width, "image_size": side, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": width, "mlp_dim": 64, "iou_head_hidden_dim": 64, "num_attention_heads": 2
        },
        memory_attention_hidden_size=width, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[cells, cells], memory_encoder_hidden_size=width,
        memory_encoder_output_channels=64, mask_downsampler_embed_dim=width, memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=64,
    )  # fmt: skip
    Sam2VideoModel(config).save_pretrained(folder)
    size = {"height": side, "width": side}
    Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size)).save_pretrained(folder)
    return folder


def build_mask_rcnn_state(*, label: int) -> dict[str, torch.Tensor]:
    """Return the state of a random Mask R-CNN of the real architecture that sees the given COCO class everywhere."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    torch.manual_seed(SEED)
    state = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=91).state_dict()
    state["roi_heads.box_predictor.cls_score.bias"][label] = 20.0
    state["roi_heads.mask_predictor.mask_fcn_logits.bias"][label] = 20.0
    # half as much to write; load_state_dict makes fp32 of it
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
