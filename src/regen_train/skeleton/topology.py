"""Which points make a drawn person, and in which colours.

Sources: COCO-WholeBody (Jin et al. 2020, arXiv 2007.11858) for the order of the 133 points; OpenPose's 18-point body
(Cao et al. 2018, arXiv 1812.08008) and its colours, as DWPose (github IDEA-Research/DWPose) and ControlNet's drawer use
them. Colours here are as in ControlNet's table; styles that reverse the channels do so when drawing.
"""

import colorsys

SCORE_THRESHOLD = 0.3
"""DWPose draws a point where its score reaches this."""

# Slices of COCO-WholeBody's 133 points.
LEFT_SHOULDER, RIGHT_SHOULDER = 5, 6
FACE = slice(23, 91)
LEFT_HAND = slice(91, 112)
RIGHT_HAND = slice(112, 133)

NECK = 1
"""Place of the neck among OpenPose's 18 points; it is the middle of the shoulders, which COCO does not have."""

# COCO's number of each OpenPose point: nose, neck (placeholder), right arm, left arm, right leg, left leg, right and
# left eye, right and left ear.
BODY_FROM_COCO = (0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)

# Pairs of OpenPose points, in the order of drawing: shoulders, arms, legs, then the head.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

# Eighteen steps around the colour circle: limb i and joint i share one.
BODY_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)  # fmt: skip

LIMB_BRIGHTNESS = 0.6
"""Limbs are dimmed to this, joints are not."""

# Wrist to tip, finger by finger.
HAND_EDGES = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
)

# Twenty fully saturated steps around the colour circle; a fraction is cut off, as OpenCV does with a colour's floats.
HAND_COLOURS = tuple(
    tuple(round(255 * value) for value in colorsys.hsv_to_rgb(edge / len(HAND_EDGES), 1.0, 1.0))
    for edge in range(len(HAND_EDGES))
)

HAND_POINT_COLOUR = (0, 0, 255)
FACE_COLOUR = (255, 255, 255)
