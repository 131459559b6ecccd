"""Does anonymization do what it says: pose and background kept, the old identity gone, the asked-for one there?"""

from regen_train.evaluation.appearance import REGIONS, colour_correlation, coverage, region_colours
from regen_train.evaluation.baselines import blackout_people, blur_people, pixelate_people
from regen_train.evaluation.fidelity import Pck, mask_iou, pck, psnr
from regen_train.evaluation.identification import Identification, adaptive_rank1, rank1
from regen_train.evaluation.intervals import Interval, difference_interval, mean_interval, share_interval

__all__ = [
    "REGIONS",
    "Identification",
    "Interval",
    "Pck",
    "adaptive_rank1",
    "blackout_people",
    "blur_people",
    "colour_correlation",
    "coverage",
    "difference_interval",
    "mask_iou",
    "mean_interval",
    "pck",
    "pixelate_people",
    "psnr",
    "rank1",
    "region_colours",
    "share_interval",
]
