"""The 133 points of COCO-WholeBody of a posed body: 17 body, 6 feet, 68 face, 21 left hand, 21 right hand."""

import numpy as np
from numpy.typing import NDArray

from regen_train.toy.world.body import SIDES, Array, Points
from regen_train.toy.world.head import EYES, NOSE, Head, face_places

_LIMB_JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_EAR, _HEEL = 0.9, 0.9
_TURNED_AWAY = -0.35
"""Points of the head that face the camera less than this are hidden by the head."""


def whole_body(points: Points, head: Head) -> tuple[Array, NDArray[np.bool_]]:
    """Return the 133 points in the camera's axes, and which of them the head itself hides.

    Args:
        points: From `regen_train.toy.world.body.pose_body`.
        head: Of the same body.

    Returns:
        [t, 133, 3] in nominal heights, and [133].
    """
    eyes, eyes_turned = head.on_face(EYES)
    nose, nose_turned = head.on_face(NOSE)
    face, face_turned = head.on_face(face_places())
    ears = np.stack([head.at(sign * _EAR, 0.0, 0.0) for _, sign in SIDES], axis=1)
    ears_turned = (ears - head.centre[:, None])[0, :, 2] / head.radius
    limbs = np.stack([points[f"{joint}_{side}"] for joint in _LIMB_JOINTS for side, _ in SIDES], axis=1)
    feet = [_foot(points, side, sign) for side, sign in SIDES]
    hands = [_hand(points, side, sign) for side, sign in SIDES]
    everything = np.concatenate([nose, eyes, ears, limbs, *feet, face, *hands], axis=1)
    hidden = np.zeros(everything.shape[1], bool)
    hidden[:5] = np.concatenate([nose_turned, eyes_turned, ears_turned]) < _TURNED_AWAY
    hidden[23:91] = face_turned < _TURNED_AWAY
    return everything, hidden


def _foot(points: Points, side: str, sign: float) -> Array:
    """Return big toe, small toe and heel."""
    toe, heel = points[f"toe_{side}"], points[f"heel_{side}"]
    ahead = toe - heel
    across = np.stack([-ahead[:, 2], np.zeros(len(toe)), ahead[:, 0]], axis=-1)
    # Across a foot that points to the camera is left to right; big toes are inside.
    aside = 0.1 * sign * across
    return np.stack([toe + aside, toe - aside, toe + _HEEL * (heel - toe)], axis=1)


def _hand(points: Points, side: str, sign: float) -> Array:
    """Return the wrist and five fingers of four joints, in a fan within the hand."""
    wrist, tip = points[f"wrist_{side}"], points[f"hand_{side}"]
    along = tip - wrist
    aside = np.stack([along[:, 1], -along[:, 0], np.zeros(len(along))], axis=-1)
    joints = [wrist]
    for finger in range(5):
        reach = 0.7 if finger == 0 else 1.15 - 0.06 * abs(finger - 2)
        across = 0.13 * sign * (finger - 2)
        joints += [wrist + reach * (0.4 + 0.15 * joint) * along + across * aside for joint in range(1, 5)]
    return np.stack(joints, axis=1)
