import pytest
import torch
from transformers import Qwen2_5_VLConfig

from rlvtg.model.family import family
from rlvtg.model.positions import prompt_positions
from tests.tiny_qwen import model_and_processor

VIDEO = 7
FAMILY = family(Qwen2_5_VLConfig(video_token_id=VIDEO, vision_config={"tokens_per_second": 2}))


def positions(ids, grids, seconds):
    found, next_position = prompt_positions(torch.tensor(ids), torch.tensor(grids), seconds, FAMILY)
    return found.tolist(), next_position


def time_of(grid_steps, seconds):
    """The time positions of a video of one token per grid step, at the start of a prompt."""
    found, _ = positions([VIDEO] * grid_steps, [[grid_steps, 2, 2]], [seconds])
    return found[0]


def test_time_positions_are_seconds_times_two_at_1_2_and_4_fps_and_at_a_fractional_interval():
    assert time_of(4, 2.0) == [0, 4, 8, 12]  # 1 fps
    assert time_of(4, 1.0) == [0, 2, 4, 6]  # 2 fps
    assert time_of(4, 0.5) == [0, 1, 2, 3]  # 4 fps
    assert time_of(5, 0.7) == [0, 1, 2, 4, 5]  # floor(1.4 k)
    assert time_of(4, 4.0) == [0, 8, 16, 24]  # 0.5 fps


def test_an_interval_that_is_a_third_does_not_fall_below_the_whole_number_it_means():
    assert time_of(7, 2 / 3) == [0, 1, 2, 4, 5, 6, 8]
    assert time_of(31, 0.1)[-1] == 6


def test_text_behind_a_video_starts_one_above_its_last_moment():
    found, next_position = positions([1, VIDEO, VIDEO, VIDEO, 2, 3], [[3, 2, 2]], [2.0])
    assert found[0] == [0, 1, 5, 9, 10, 11]
    assert found[1] == [0, 1, 1, 1, 10, 11]
    assert next_position == 12


def test_sixty_four_frames_at_two_fps_put_the_first_text_at_108_as_the_original_release_and_vllm_do():
    pads = 32 * 2 * 3  # 56 x 84 pixels
    found, _ = positions([1] * 45 + [VIDEO] * pads + [2], [[32, 4, 6]], [1.0])
    assert found[0][-2] == 45 + 62
    assert found[0][-1] == 108


def test_rows_and_columns_of_a_frame_are_height_and_width_positions():
    found, _ = positions([VIDEO] * 6, [[1, 4, 6]], [1.0])
    assert found == [[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]


def test_two_videos_in_one_prompt_each_start_where_the_text_before_them_ends():
    found, next_position = positions([1, VIDEO, VIDEO, 1, VIDEO, VIDEO, 1], [[2, 2, 2], [2, 2, 2]], [2.0, 0.5])
    assert found[0] == [0, 1, 5, 6, 7, 8, 9]
    assert next_position == 10


def test_neighbouring_videos_are_told_apart_by_their_grids():
    found, _ = positions([VIDEO, VIDEO, VIDEO], [[1, 2, 2], [2, 2, 2]], [1.0, 1.0])
    assert found[0] == [0, 1, 3]


@pytest.mark.parametrize(
    ("ids", "grids", "message"),
    [
        ([1, VIDEO, VIDEO], [[1, 2, 2]], "more video pads"),
        ([1, VIDEO], [[2, 2, 2]], "needs 2 pads"),
        ([1, VIDEO, 1, VIDEO], [[2, 2, 2]], "needs 2 pads"),
        ([1, 2], [[1, 2, 2]], "0 videos, but 1"),
    ],
)
def test_pads_that_do_not_fit_the_grids_are_an_error(ids, grids, message):
    with pytest.raises(ValueError, match=message):
        positions(ids, grids, [1.0] * len(grids))


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_vl"])
def test_where_positions_hold_no_seconds_a_temporal_patch_is_one_position(kind):
    facts = family(model_and_processor(family=kind)[0].config)
    ids = torch.tensor([1, *[facts.video_token_id] * 4, 5])
    found, _ = prompt_positions(ids, torch.tensor([[4, 2, 2]]), [2.5], facts)
    assert found[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_ours_differ_from_the_installed_transformers_only_behind_the_video():
    """If this fails, transformers has changed how it places text behind a video: read its release notes."""
    model, processor = model_and_processor()
    facts = family(model.config)
    ids = torch.tensor([1, *[facts.video_token_id] * 4, 5, 6])
    grids = torch.tensor([[4, 2, 2]])
    ours, _ = prompt_positions(ids, grids, [1.0], facts)
    theirs, _ = model.model.get_rope_index(
        ids[None], mm_token_type_ids=(ids == facts.video_token_id).int()[None] * 2, video_grid_thw=grids,
        second_per_grid_ts=torch.tensor([1.0]),
    )  # fmt: skip
    assert torch.equal(ours[:, :5], theirs[:, 0, :5])
    assert ours[0, 5:].tolist() == [8, 9]
    assert theirs[0, 0, 5:].tolist() == [2, 3]
