import pytest
import torch

from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, batch
from rlvtg.recipe import RecipeError
from rlvtg.video.decode import read_clip
from tests.tiny_qwen import OTHERS, model_and_processor, row, video_settings, write_video


@pytest.fixture(scope="module")
def tiny():
    return model_and_processor()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4")


def encoder(tiny, **settings):
    model, processor = tiny
    return Encoder(processor, family(model.config), video_settings(**settings))


@pytest.mark.parametrize("fps", [1.0, 2.0, 4.0, 1.6])
def test_pixels_ids_and_seconds_equal_those_of_the_whole_hugging_face_processor_given_the_metadata(tiny, video, fps):
    model, processor = tiny
    ours = encoder(tiny, fps=fps)(row(video))
    clip = read_clip(video, video_settings(fps))
    count = len(clip.frames)
    text = processor.apply_chat_template(row(video)["prompt"], tokenize=False, add_generation_prompt=True)
    theirs = processor(
        text=[text],
        videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2)],
        video_metadata=[
            {
                "total_num_frames": count,
                "fps": clip.fps,
                "frames_indices": list(range(count)),
                "duration": clip.duration,
            }
        ],
        do_sample_frames=False,
        do_resize=False,
        return_tensors="pt",
    )
    assert torch.equal(ours.input_ids, theirs["input_ids"][0])
    assert torch.equal(ours.video.pixel_values, theirs["pixel_values_videos"])
    assert torch.equal(ours.video.grids, theirs["video_grid_thw"])
    assert ours.video.seconds_per_grid == pytest.approx([float(theirs["second_per_grid_ts"][0])], rel=1e-6)
    assert ours.video.seconds_per_grid == pytest.approx([2 / fps], rel=1e-6)


@pytest.fixture(scope="module")
def qwen3():
    return model_and_processor(family="qwen3_vl")


@pytest.mark.parametrize("sampling", ["interval", "linspace"])
@pytest.mark.parametrize("fps", [1.0, 2.0, 4.0, 1.6])
def test_a_qwen3_vl_prompt_is_that_of_its_own_processor_which_is_told_the_frames_of_the_file(
    qwen3, video, fps, sampling
):
    """Stamps, pixels, and positions, which transformers has right here."""
    model, processor = qwen3
    encode = encoder(qwen3, fps=fps, sampling=sampling, time="text")
    ours, clip = encode(row(video)), encode.clip(row(video))
    text = processor.apply_chat_template(row(video)["prompt"], tokenize=False, add_generation_prompt=True)
    theirs = qwen3_processor(processor, text.replace(MARKED, "<|video_pad|>"), clip)
    assert torch.equal(ours.input_ids, theirs["input_ids"][0])
    assert torch.equal(ours.video.pixel_values, theirs["pixel_values_videos"])
    [steps, height, width] = theirs["video_grid_thw"][0].tolist()
    assert ours.video.grids.tolist() == [[1, height, width]] * steps
    positions, _ = model.model.get_rope_index(
        theirs["input_ids"], mm_token_type_ids=theirs["mm_token_type_ids"], video_grid_thw=theirs["video_grid_thw"]
    )
    assert torch.equal(ours.position_ids, positions[:, 0])
    assert ours.next_position == int(positions.max()) + 1


def test_the_installed_transformers_leaves_markers_around_the_stamps_of_qwen3_vl_and_we_do_not(qwen3, video):
    """If this fails, transformers writes again what 4.57 and vLLM write, and the doctor need not help."""
    processor = qwen3[1]
    encode = encoder(qwen3, time="text")
    ours = processor.tokenizer.decode(encode(row(video)).input_ids)
    text = processor.apply_chat_template(row(video)["prompt"], tokenize=False, add_generation_prompt=True)
    theirs = processor.tokenizer.decode(qwen3_processor(processor, text, encode.clip(row(video)))["input_ids"][0])
    head, tail = "<|im_start|>user\n", "a red circle appears<|im_end|>"
    assert f"{head}<0.2 seconds><|vision_start|><|video_pad|>" in ours and f"<|video_pad|><|vision_end|>{tail}" in ours
    assert theirs == ours.replace(head, f"{head}<|vision_start|>").replace(tail, f"<|vision_end|>{tail}")


MARKED = "<|vision_start|><|video_pad|><|vision_end|>"


def qwen3_processor(processor, text, clip, rate=8):
    frames = [torch.from_numpy(clip.frames).permute(0, 3, 1, 2)]
    numbers = (clip.timestamps * rate).round().astype(int).tolist()
    metadata = [{"total_num_frames": int(clip.duration * rate), "fps": rate, "frames_indices": numbers}]
    return processor(
        text=[text], videos=frames, video_metadata=metadata, do_sample_frames=False, do_resize=False,
        return_tensors="pt",
    )  # fmt: skip


def test_a_stamp_of_the_recipe_takes_the_place_of_the_models_own_and_an_overlay_does_not(qwen3, video):
    def written(**settings):
        ids = encoder(qwen3, fps=1.0, **settings)(row(video)).input_ids
        return qwen3[1].tokenizer.decode(ids).replace(MARKED.replace("pad|>", "pad|><|video_pad|>"), "#")

    assert "user\n<0.5 seconds>#<2.5 seconds>#<4.5 seconds>#<6.5 seconds>#a red" in written(time="text")
    assert "user\n0s#2s#4s#6s#a red" in written(time="text", time_format="{:.0f}s")
    assert "user\n<0.5 seconds>#<2.5 seconds>#" in written(time="overlay", time_format="{index}")


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_whose_positions_hold_no_seconds_is_not_asked_without_another_clock(kind):
    with pytest.raises(RecipeError, match=f"video.time: got positions, but those of {kind} hold no seconds; want text"):
        encoder(model_and_processor(family=kind))


def test_qwen2_vls_positions_count_temporal_patches_at_every_rate(video):
    tiny = model_and_processor(family="qwen2_vl")
    for fps in (1.0, 2.0, 4.0):
        inputs = encoder(tiny, fps=fps, time="overlay")(row(video))
        moments = inputs.position_ids[0][inputs.input_ids == tiny[0].config.video_token_id].unique()
        assert (moments - moments[0]).tolist() == list(range(int(4 * fps)))


def test_the_time_positions_of_a_prompt_follow_the_sampled_frames_and_not_a_default_rate(tiny, video):
    def last_moment(fps):
        inputs = encoder(tiny, fps=fps)(row(video))
        pads = inputs.input_ids == tiny[0].config.video_token_id
        moments = inputs.position_ids[0][pads].unique()
        return (moments - moments[0]).tolist()

    assert last_moment(1.0) == [0, 4, 8, 12]
    assert last_moment(2.0) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert last_moment(4.0) == list(range(16))


def test_capped_frames_carry_their_effective_rate(tiny, tmp_path):
    long = write_video(tmp_path / "long.mp4", seconds=60, rate=4)
    inputs = encoder(tiny, fps=2.0, max_frames=16, sampling="linspace")(row(long))
    assert inputs.video.seconds_per_grid == pytest.approx([2 * 59.75 / 15], rel=1e-6)
    last = int(inputs.position_ids[0][inputs.input_ids == tiny[0].config.video_token_id].max())
    first = int(inputs.position_ids[0][inputs.input_ids == tiny[0].config.video_token_id].min())
    assert abs((last - first) / 2 - (60 - 2 * 59.75 / 15)) < 2 * 59.75 / 15  # within one grid step of the end


def test_text_time_puts_the_second_of_every_pair_of_frames_before_it(tiny, video):
    inputs = encoder(tiny, fps=1.0, time="text", time_format="{:.1f}s")(row(video))
    text = tiny[1].tokenizer.decode(inputs.input_ids).replace("<|video_pad|>", "#")
    pads = "#" * 2  # 28 x 56 pixels
    assert f"user\n0.0s{pads}2.0s{pads}4.0s{pads}6.0s{pads}a red circle appears" in text
    assert len(inputs.video.grids) == 4
    assert inputs.video.starts == (0.0, 2.0, 4.0, 6.0)


def test_text_time_leaves_no_time_in_the_positions(tiny, video):
    inputs = encoder(tiny, fps=1.0, time="text")(row(video))
    widest = int(inputs.video.grids.max()) // 2
    assert int(inputs.position_ids[0].diff().max()) <= widest
    assert inputs.next_position <= len(inputs.input_ids)


def test_overlay_draws_the_time_and_leaves_positions_and_clip_alone(tiny, video):
    plain, drawn = encoder(tiny, fps=1.0), encoder(tiny, fps=1.0, time="overlay", time_format="{index}")
    before, after = plain(row(video)), drawn(row(video))
    assert torch.equal(before.position_ids, after.position_ids)
    assert torch.equal(before.input_ids, after.input_ids)
    assert not torch.equal(before.video.pixel_values, after.video.pixel_values)
    assert (plain.clip(row(video)).frames == drawn.clip(row(video)).frames).all()


def test_the_stamps_are_the_times_of_the_temporal_patches(tiny, video):
    assert encoder(tiny, fps=1.0).stamps(row(video)) == [0.0, 2.0, 4.0, 6.0]


def test_a_video_is_decoded_once_and_its_patches_are_shared_by_all_its_queries(tiny, video):
    encode = encoder(tiny)
    first, second = encode(row(video)), encode(row(video, "a blue circle appears"))
    assert encode.clips.decodes == 1
    assert first.video is second.video


def test_patches_are_forgotten_over_the_byte_budget_and_made_again(tiny, video, tmp_path):
    model, processor = tiny
    other = write_video(tmp_path / "b.mp4", seed=1)
    small = Encoder(processor, family(model.config), video_settings(), max_bytes=1)
    first = small(row(video))
    small(row(other))
    again = small(row(video))
    assert first.video is not again.video
    assert torch.equal(first.video.pixel_values, again.video.pixel_values)


def test_one_row_can_be_sampled_with_other_settings(tiny, video):
    encode = encoder(tiny, fps=1.0)
    plain, dense, again = encode(row(video)), encode(row(video), video_settings(fps=4.0)), encode(row(video))
    assert torch.equal(dense.video.pixel_values, encoder(tiny, fps=4.0)(row(video)).video.pixel_values)
    assert torch.equal(dense.position_ids, encoder(tiny, fps=4.0)(row(video)).position_ids)
    assert again.video is plain.video is not dense.video


def test_a_clip_window_moves_the_clock_to_its_start(tiny, video):
    inputs = encoder(tiny, fps=1.0, time="text")(row(video, video_start=2.0, video_end=6.0))
    whole = encoder(tiny, fps=1.0, time="text")(row(video))
    assert inputs.video.starts == (0.0, 2.0)
    assert torch.equal(inputs.video.pixel_values, torch.cat(whole.video.pixel_values.chunk(4)[1:3]))


def test_a_batch_pads_prompts_left_and_completions_right_and_gives_each_video_once(tiny, video, tmp_path):
    encode = encoder(tiny, fps=1.0)
    other = write_video(tmp_path / "b.mp4", seconds=4, seed=1)
    long, short = encode(row(video)), encode(row(other, "b"))
    completions = torch.tensor([[300, 301, 2], [300, 2, 0], [301, 2, 0]])
    mask = (completions != 0).long()
    made = batch([long, long, short], completions, mask, pad_token_id=0)
    width, gap = len(long.input_ids), len(long.input_ids) - len(short.input_ids)
    assert made["input_ids"].shape == (3, width + 3)
    assert made["input_ids"][2, :gap].tolist() == [0] * gap
    assert made["attention_mask"][2].tolist() == [0] * gap + [1] * len(short.input_ids) + [1, 1, 0]
    assert torch.equal(made["position_ids"][:, 2, gap:width], short.position_ids)
    assert made["position_ids"][:, 0, width:].tolist() == [[long.next_position + k for k in range(3)]] * 3
    assert made["video_rows"] == [[0], [0], [1]]
    assert len(made["video_grid_thw"]) == 2
    assert len(made["pixel_values_videos"]) == len(long.video.pixel_values) + len(short.video.pixel_values)
