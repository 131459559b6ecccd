import pytest

from regen_train.preparation.settings import DatasetSettings
from regen_train.schema import Geometry

WAN = Geometry(latent_channels=16, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=4096)


def test_defaults_are_the_papers_recipe() -> None:
    settings = DatasetSettings()
    assert (settings.fps, settings.num_frames, settings.sizes) == (7.5, 49, ((480, 832),))
    assert (settings.fill, settings.depth_fill, settings.skeleton_style) == ("gray", "gray", "regenhuman")
    assert (settings.vace_mask, settings.depth_normalization, settings.standin_depth) == ("ones", "clip", None)
    settings.check_geometry(WAN)


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(ValueError, match="fps") as caught:
        DatasetSettings(
            fps=-1.0, num_frames=0, sizes=(), dilation=-2, line_width=0.0, min_frames=3, max_windows_per_clip=0
        )
    names = ("fps", "num_frames", "sizes", "dilation", "line_width", "min_frames", "max_windows_per_clip")
    assert [name for name in names if f"{name} must" not in str(caught.value)] == []


def test_repeated_and_empty_lists_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sizes must not repeat.*conditions must not be empty"):
        DatasetSettings(sizes=((96, 160), (96, 160)), conditions=())


def test_geometry_names_every_bucket_that_does_not_fit() -> None:
    settings = DatasetSettings(num_frames=80, sizes=((480, 832), (100, 160)))
    with pytest.raises(ValueError, match=r"80x480x832: num_frames .* 77 and 81.*80x100x160: .*height .* 96 and 112"):
        settings.check_geometry(WAN)


def test_conditions_without_depth() -> None:
    lacking = [f"{number}.mp4" for number in range(7)]
    assert DatasetSettings().resolve(lacking_depth=[]) == ("structhuman", "structall")
    assert DatasetSettings().resolve(lacking_depth=lacking) == ("structhuman",)
    standin = DatasetSettings(standin_depth="vertical_gradient")
    assert standin.resolve(lacking_depth=lacking) == ("structhuman", "structall")
    asked = DatasetSettings(conditions=("pose", "structall", "depth"))
    assert asked.resolve(lacking_depth=[]) == ("pose", "structall", "depth")
    named = r"structall, depth: .*none for 0\.mp4, .*, 4\.mp4 and 2 more; bring .*--standin_depth vertical_gradient"
    with pytest.raises(ValueError, match=named):
        asked.resolve(lacking_depth=lacking)
    with pytest.raises(ValueError, match=r"none for 0\.mp4, 1\.mp4; bring"):
        asked.resolve(lacking_depth=lacking[:2])


def test_settings_are_plain_and_samples_answer_only_for_what_shapes_them() -> None:
    assert DatasetSettings().to_dict()["sizes"] == [[480, 832]]
    few, many = DatasetSettings(max_windows_per_clip=1), DatasetSettings(sizes=((96, 160), (160, 96)))
    assert few.sample_dict() == many.sample_dict()
    assert few.sample_dict() != DatasetSettings(dilation=3).sample_dict()
