"""Follow people through a window with SAM 2.1, both ways from the frame in which each was found."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.signals.mask.canvas import Canvas
from regen_train.signals.mask.logits import masks_of_logits

_CHUNK = 16
"""Objects followed at once; each costs some 7 MB a frame."""

_SAME_BOX = 0.5
"""Least intersection over union of a box and the box around a mask for the one to explain the other."""

_MIN_COVERED = 0.1
"""Least share of a box that is masked; the slimmest pose of a person covers more of the box around it."""


class Sam2Window:
    """Follows people through the frames of one window and paints them.

    Args:
        model: `Sam2VideoModel`.
        processor: Its processor.
        frames: Of the window.
        canvas: What is painted on; people who are on its first frame already are followed first of all.
        mask_threshold: Least probability of a pixel.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        frames: UInt8[np.ndarray, "t h w 3"],
        canvas: Canvas,
        *,
        mask_threshold: float,
    ) -> None:
        self._model, self._processor, self._canvas = model, processor, canvas
        self._mask_threshold = mask_threshold
        self._size = (frames.shape[1], frames.shape[2])
        self._found: list[list[Tensor]] = [[] for _ in frames]
        self._count = 0
        self._session = processor.init_video_session(
            video=frames,
            inference_device=model.device,
            processing_device="cpu",
            video_storage_device="cpu",
            # one look at each frame, however many people are followed through it
            max_vision_features_cache_size=len(frames),
            dtype=model.dtype,
        )
        tracks = canvas.tracks_on(0)
        for track in tracks:
            canvas.follow(track, ("seen before", track))
        masks = [canvas.labels[0] == track for track in tracks]
        self._follow(0, [("seen before", track) for track in tracks], masks=masks)

    def add_boxes(self, frame: int, boxes: Float[Tensor, "n 4"]) -> None:
        """Follow whoever is in a box that nobody followed so far explains.

        Each person explains one box only: two people who stand close have boxes alike. A box in which SAM 2 sees
        hardly anything is masked whole on its frame, since the detector is sure that somebody is there.

        Args:
            frame: Number in the window.
            boxes: Left, top, right, bottom in pixels, the surest first.
        """
        new = boxes[~explained(boxes, self._boxes_on(frame))]
        names = [("found", self._count + number) for number in range(len(new))]
        self._count += len(new)
        self._follow(frame, names, boxes=new)
        for box in boxes:
            inside = self._inside(box)
            if (self._canvas.labels[frame][inside] > 0).float().mean() < _MIN_COVERED:
                self._canvas.paint(frame, inside)

    def _follow(
        self,
        frame: int,
        names: Sequence[Hashable],
        *,
        boxes: Float[Tensor, "n 4"] | None = None,
        masks: Sequence[Bool[Tensor, "h w"]] | None = None,
    ) -> None:
        for start in range(0, len(names), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            self._processor.add_inputs_to_inference_session(
                self._session,
                frame_idx=frame,
                obj_ids=list(range(len(names[chunk]))),
                input_boxes=None if boxes is None else [boxes[chunk].tolist()],
                input_masks=None if masks is None else list(masks[chunk]),
            )
            self._propagate(frame, names[chunk])
            # keeps the frames' features
            self._session.reset_tracking_data()

    def _propagate(self, start: int, names: Sequence[Hashable]) -> None:
        for reverse in (False, True):
            for output in self._model.propagate_in_video_iterator(
                self._session, start_frame_idx=start, reverse=reverse
            ):
                if not (reverse and output.frame_idx == start):
                    self._paint(output.frame_idx, output.pred_masks[:, 0], names)

    def _paint(self, frame: int, logits: Float[Tensor, "n h_low w_low"], names: Sequence[Hashable]) -> None:
        for one, name in zip(logits, names, strict=True):
            mask = masks_of_logits(one[None], self._size, self._mask_threshold)[0]
            self._canvas.paint(frame, mask, name)
            rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
            if rows:
                self._found[frame].append(torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]))

    def _boxes_on(self, frame: int) -> Float[Tensor, "n 4"]:
        found = self._found[frame]
        return torch.stack(found).float() if found else torch.zeros(0, 4)

    def _inside(self, box: Float[Tensor, "4"]) -> Bool[Tensor, "h w"]:
        height, width = self._size
        left, top = (max(0, int(value)) for value in box[:2].floor().tolist())
        right, bottom = (int(value) for value in box[2:].ceil().tolist())
        inside = torch.zeros(self._size, dtype=torch.bool, device=self._canvas.labels.device)
        # at least a pixel, and inside the frame
        top, left = min(top, height - 1), min(left, width - 1)
        inside[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        return inside


def explained(boxes: Float[Tensor, "n 4"], known: Float[Tensor, "m 4"]) -> Bool[Tensor, " n"]:
    """Say which boxes are those of known people; pairs are made one to one, the best fit first.

    Args:
        boxes: Left, top, right, bottom of what was detected.
        known: The same of people who are followed.
    """
    from torchvision.ops import box_iou

    overlaps = box_iou(boxes, known)
    result = torch.zeros(len(boxes), dtype=torch.bool)
    while overlaps.numel() and float(overlaps.max()) >= _SAME_BOX:
        box, person = divmod(int(overlaps.argmax()), len(known))
        result[box] = True
        overlaps[box], overlaps[:, person] = 0, 0
    return result
