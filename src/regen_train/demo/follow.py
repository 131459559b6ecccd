"""How well the people of a painted video do what the original's did, as the toy's observer sees them."""

from jaxtyping import UInt8
from torch import Tensor

from regen_train.demo.measure import Follow, Followed
from regen_train.evaluation import mask_iou, pck
from regen_train.skeleton.topology import SCORE_THRESHOLD
from regen_train.toy.observer import BODY_POINTS, Observer, load_observer
from regen_train.toy.world import WorldClip


def load_follower() -> Follow:
    """Return a comparison with the shipped observer.

    Raises:
        FileNotFoundError: Its weights are not there.
    """
    observer = load_observer()
    return lambda video, truth: follow(observer, video, truth)


def follow(observer: Observer, video: UInt8[Tensor, "t h w 3"], truth: WorldClip) -> Followed:
    """Compare what is seen in a video with the exact truth of the clip that it was made from.

    Args:
        observer: Looks.
        video: The treated clip.
        truth: The original.
    """
    seen = observer.look(video)
    points = list(BODY_POINTS)
    wanted, sure = truth.poses.keypoints[:, :, points], truth.poses.scores[:, :, points] >= SCORE_THRESHOLD
    found = seen.points(wanted.shape[1])
    return Followed(mask_iou(seen.mask, truth.mask > 0), pck(found, wanted, sure).rate)
