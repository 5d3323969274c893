import math
from dataclasses import replace

import pytest
import torch
from accelerate import PartialState
from hypothesis import given
from hypothesis import strategies as st

from rlvtg.data.row import messages
from rlvtg.data.sample import DataError
from rlvtg.evaluation.evaluate import evaluate
from rlvtg.evaluation.predict import greedy, predict
from rlvtg.evaluation.predictions import read_predictions, write_predictions
from rlvtg.evaluation.zoom import predict_zoomed, zoom, zoom_settings, zoom_window
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, batch
from rlvtg.recipe import Evaluation, Recipe, RecipeError, Source
from rlvtg.rollout.hf import rollout
from rlvtg.text.span import moved
from rlvtg.video.decode import read_clip
from tests.tiny_qwen import model_and_processor, row, video_settings, write_video

PATCHES = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
PROMPT = "{video}{query}"
TIMED = "{video}{query} in {duration:.1f} s"


# --- the part that is looked at again


@pytest.mark.parametrize(
    ("spans", "margin", "part"),
    [
        ([(5, 7)], 0.0, (2, 10)),  # never closer than a patch
        ([(4, 6)], 0.0, (2, 8)),
        ([(4, 8)], 0.5, (2, 10)),
        ([(4, 8)], 0.75, (0, 12)),
        ([(5, 5)], 0.5, (2, 8)),
        ([(0, 0)], 0.5, (0, 2)),
        ([(0, 1)], 0.5, (0, 4)),
        ([(11.9, 12)], 0.5, (8, 12)),
        ([(10, 99)], 0.0, (8, 12)),
        ([(-3, 1)], 0.0, (0, 4)),
        ([(3, 4), (7, 7.5)], 0.0, (0, 10)),
        ([(7, 3), (6, 6.5)], 0.0, (4, 10)),
        ([(7, 3)], 0.5, None),
        ([(12, 14)], 0.5, None),
        ([(-2, -1)], 0.5, None),
        ([(math.nan, 3)], 0.5, None),
        ([(1, math.inf)], 0.5, None),
        ([], 0.5, None),
    ],
)
def test_the_part_around_the_found_spans(spans, margin, part):
    assert zoom_window(spans, PATCHES, margin) == part


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=20),
    st.floats(-5, 250),
    st.floats(0, 100),
    st.floats(0, 3),
)
def test_a_part_holds_what_was_found_of_the_video_and_ends_where_patches_do(steps, start, length, margin):
    edges = [0.0]
    for step in steps:
        edges.append(edges[-1] + step)
    part = zoom_window([(start, start + length)], edges, margin)
    if part is None:
        assert start >= edges[-1] or start + length < 0
    else:
        assert part[0] in edges and part[1] in edges and part[0] < part[1]
        assert part[0] <= max(start, 0) and min(start + length, edges[-1]) <= part[1]


def test_a_wider_margin_never_gives_a_smaller_part():
    parts = [zoom_window([(5, 7)], PATCHES, margin) for margin in (0, 0.5, 1, 1.5, 2, 100)]
    assert parts == [(2, 10), (2, 10), (2, 10), (2, 10), (0, 12), (0, 12)]


def test_spans_are_moved_from_the_clock_of_the_part_to_that_of_the_whole():
    assert moved([(1.0, 2.5), (3.0, 4.0)], 6.0) == [(7.0, 8.5), (9.0, 10.0)]
    assert moved([], 6.0) == []


# --- the budget


@pytest.fixture(scope="module")
def tiny():
    return model_and_processor()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """8 s at 8 frames a second."""
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4")


@pytest.fixture(scope="module")
def encode(tiny):
    return encoder(tiny, fps=1.0)


def encoder(tiny, **settings):
    model, processor = tiny
    return Encoder(processor, family(model.config), video_settings(**settings))


@pytest.mark.parametrize("sampling", ["interval", "linspace"])
@pytest.mark.parametrize("fps", [1.0, 1.6, 2.0])
@pytest.mark.parametrize("part", [(2.0, 6.0), (1.0, 8.0), (0.0, 2.5), (3.3, 6.7)])
def test_a_part_has_the_frames_of_the_whole_at_their_size_and_they_lie_denser(video, sampling, fps, part):
    settings = video_settings(fps=fps, sampling=sampling)
    whole = read_clip(video, settings)
    seconds = part[1] - part[0]
    clip = read_clip(video, zoom_settings(settings, len(whole.frames), seconds, 8.0), start=part[0], end=part[1])
    assert clip.frames.shape == whole.frames.shape
    assert clip.fps > whole.fps
    assert clip.timestamps[0] >= 0 and clip.timestamps[-1] < seconds


@pytest.mark.parametrize("sampling", ["interval", "linspace"])
def test_a_part_has_no_more_frames_than_the_file_and_none_twice(video, sampling):
    settings = video_settings(fps=8.0, sampling=sampling)
    whole = read_clip(video, settings)
    clip = read_clip(video, zoom_settings(settings, len(whole.frames), 2.0, 8.0), start=2.0, end=4.0)
    assert (len(whole.frames), len(clip.frames)) == (64, 16)
    assert clip.timestamps.tolist() == pytest.approx([k / 8 for k in range(16)])


def test_the_pixels_of_all_frames_stay_below_the_limit_of_the_whole(tmp_path):
    large = write_video(tmp_path / "large.mp4", width=224, height=168)
    settings = video_settings(fps=8.0, max_pixels=50000, total_pixels=200000)
    whole = read_clip(large, settings)
    clip = read_clip(large, zoom_settings(settings, len(whole.frames), 2.0, 8.0), start=2.0, end=4.0)
    assert len(clip.frames) < len(whole.frames)
    assert clip.frames.shape[1] > whole.frames.shape[1]  # fewer frames, so larger ones
    for shown in (whole, clip):
        assert len(shown.frames) // 2 * shown.frames[0, :, :, 0].size <= 200000


@pytest.mark.parametrize("time", ["positions", "text"])
def test_a_prompt_about_a_part_is_as_long_as_the_one_about_the_whole(tiny, video, time):
    encode = encoder(tiny, fps=1.0, time=time)
    whole = encode(row(video))
    part = encode(row(video, video_start=2.0, video_end=6.0), zoom_settings(encode.settings, 8, 4.0, 8.0))
    assert part.video.pixel_values.shape == whole.video.pixel_values.shape
    assert len(part.input_ids) == len(whole.input_ids)
    assert sum(whole.video.seconds_per_grid) == 2 * sum(part.video.seconds_per_grid)


# --- the passes


def first_answer(asked, completion="first", predicted=((3.0, 5.0),)):
    kept = {key: asked[key] for key in ("id", "video", "query", "duration", "spans")}
    return kept | {"completion": completion, "predicted": [list(span) for span in predicted]}


def look_again(tiny, encode, rows, predictions, *, passes=2, prompt=PROMPT, **options):
    settings = {"grammar_name": "to", "max_new_tokens": 6}
    return zoom(tiny[0], encode, rows, predictions, passes=passes, prompt=prompt, **settings | options)


@pytest.fixture(scope="module")
def writer(video):
    """A model that has learned one answer, `1 to 3`, whatever it is shown, and its processor."""
    model, processor = model_and_processor()
    encode = Encoder(processor, family(model.config), video_settings(fps=1.0))
    prompts = [encode(row(video), video_settings(fps=fps)) for fps in (1.0, 4 / 3, 2.0)]
    text = "<answer>1 to 3</answer>" + processor.tokenizer.eos_token
    ids = torch.tensor([processor.tokenizer(text, add_special_tokens=False)["input_ids"]] * len(prompts))
    inputs = batch(prompts, ids, torch.ones_like(ids), pad_token_id=processor.tokenizer.pad_token_id)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        logits = model(**inputs).logits[:, -ids.shape[1] - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), processor


@pytest.fixture(scope="module")
def writers_encoder(writer):
    return encoder(writer, fps=1.0)


def test_the_second_answer_is_moved_to_the_seconds_of_the_whole_video(writer, writers_encoder, video):
    [[one]] = predict_zoomed(
        writer[0], writers_encoder, [[row(video)]],
        passes=2, prompt=PROMPT, grammar_name="to", max_new_tokens=30, margin=0.0, quiet=True,
    )  # fmt: skip
    whole = {"window": [0.0, 8.0], "completion": "<answer>1 to 3</answer>", "predicted": [[1.0, 3.0]]}
    assert one["passes"][0] == whole
    # 1 to 3 is widened by a patch of 2 s, and to the patches: the part starts at 0, so both clocks are one
    assert one["passes"][1] == {**whole, "window": [0.0, 6.0]}
    asked = row(video)
    [later] = look_again(
        writer, writers_encoder, [asked], [first_answer(asked, predicted=[(5, 7)])], max_new_tokens=30, margin=0.0
    )
    assert (later["window"], later["predicted"]) == ([2.0, 8.0], [[3.0, 5.0]])
    assert later["completion"] == "<answer>1 to 3</answer>"
    assert [answer["predicted"] for answer in later["passes"]] == [[[5, 7]], [[3.0, 5.0]]]


def test_every_pass_but_the_first_looks_around_the_answer_before_it(writer, writers_encoder, video):
    asked = row(video)
    given = [first_answer(asked, predicted=[(6.5, 7.5)])]
    [one] = look_again(writer, writers_encoder, [asked], given, passes=9, max_new_tokens=30, margin=0.0)
    # shown 4 to 8, it says 5 to 7; shown 2 to 8, it says 3 to 5; around that is the whole video, so the passes end
    assert [answer["window"] for answer in one["passes"]] == [[0.0, 8.0], [4.0, 8.0], [2.0, 8.0]]
    assert [answer["predicted"] for answer in one["passes"]] == [[[6.5, 7.5]], [[5.0, 7.0]], [[3.0, 5.0]]]
    [two] = look_again(writer, writers_encoder, [asked], given, passes=2, max_new_tokens=30, margin=0.0)
    assert two["passes"] == one["passes"][:2] and two["predicted"] == [[5.0, 7.0]]


def test_a_window_of_a_file_keeps_its_own_clock(writer, writers_encoder, video):
    asked = row(video, video_start=2.0, video_end=8.0, duration=6.0)
    answers = [first_answer(asked, predicted=[(4.5, 5.5)])]
    [one] = look_again(writer, writers_encoder, [asked], answers, max_new_tokens=30, margin=0.0)
    assert one["window"] == [2.0, 6.0] and one["predicted"] == [[3.0, 5.0]]
    assert one["passes"][0]["window"] == [0.0, 6.0]


def test_the_second_pass_is_shown_the_frames_of_the_part_and_not_those_of_the_whole(tiny, encode, video):
    asked = row(video)
    [one] = look_again(tiny, encode, [asked], [first_answer(asked, predicted=[(5, 7)])], margin=0.0)
    # an encoder of its own, with the settings that give the part of 6 s the 8 frames that the whole of 8 s had
    dense = encoder(tiny, fps=8 / 6, max_frames=8)
    inputs = dense({**asked, "video_start": 2.0, "video_end": 8.0})
    shown = read_clip(video, dense.settings, start=2.0, end=8.0)
    assert shown.timestamps.tolist() == pytest.approx([k * 0.75 for k in range(8)])
    texts = [
        tiny[1].batch_decode(rollout(tiny[0], [prompt], greedy(encode, 6)), skip_special_tokens=True)[0]
        for prompt in (inputs, encode(asked))
    ]
    assert one["passes"][1]["completion"] == texts[0] != texts[1]


def test_an_unreadable_later_answer_is_kept_beside_the_one_that_stands(tiny, encode, video):
    asked = row(video)
    given = first_answer(asked, predicted=[(5, 7)])
    [one] = look_again(tiny, encode, [asked], [given], passes=4)
    assert {key: one[key] for key in given} == given
    assert "window" not in one and len(one["passes"]) == 2
    assert one["passes"][1]["predicted"] == [] and one["passes"][1]["window"] == [2.0, 8.0]


def test_rows_without_a_usable_first_answer_stay_the_failures_that_they_are(tiny, encode, video):
    rows = [row(video, name) for name in ("none", "reversed", "behind the end", "all of it", "a part")]
    spans = [[], [(5.0, 2.0)], [(9.0, 12.0)], [(0.0, 8.0)], [(5.0, 7.0)]]
    given = [first_answer(asked, predicted=found) for asked, found in zip(rows, spans, strict=True)]
    found = look_again(tiny, encode, rows, given)
    assert [len(one["passes"]) for one in found] == [1, 1, 1, 1, 2]
    assert [one["predicted"] for one in found] == [one["predicted"] for one in given]
    assert [one["id"] for one in found] == [asked["id"] for asked in rows]


def test_the_same_rows_give_the_same_predictions(tiny, encode, video):
    rows = [row(video, "a red circle"), row(video, "a blue circle")]
    given = [first_answer(rows[0], predicted=[(5, 7)]), first_answer(rows[1], predicted=[(1, 3)])]
    runs = [look_again(tiny, each, rows, given) for each in (encode, encoder(tiny, fps=1.0))]
    assert runs[0] == runs[1]


def test_an_evaluation_keeps_zoomed_answers_and_reads_them_again_on_the_clock_of_their_part(
    writer, writers_encoder, tmp_path
):
    clips = [write_video(tmp_path / f"{name}.mp4", seconds=8, seed=seed) for seed, name in enumerate("bc")]
    rows = [row(clip, spans=[[1.0, 3.0]]) for clip in clips]
    settings = Evaluation(batch_size=1, max_new_tokens=30, zoom=2)
    recipe = Recipe(
        name="mine", model="some/model", data={"test": Source("test.json", "videos")}, prompt=PROMPT, grammar="to",
        stages={}, evaluation=settings, video=writers_encoder.settings, use_cpu=True,
    )  # fmt: skip
    place, state = tmp_path / "rl", PartialState(cpu=True)
    metrics = evaluate(recipe, writer[0], writers_encoder, rows, place, state, name="m")
    written = read_predictions(place / "predictions.jsonl")
    assert [len(one["passes"]) for one in written] == [2, 2]
    assert metrics["protocol"]["zoom"] == {"passes": 2, "margin": 0.5, "grammar": "to"}
    # a part that starts behind 0, as a run on other videos would have left it
    late = [one | {"window": [4.0, 8.0], "predicted": [[5.0, 7.0]]} for one in written]
    write_predictions(place / "predictions.jsonl", late)
    again = evaluate(recipe, writer[0], writers_encoder, rows, place, state, name="m")
    assert read_predictions(place / "predictions.jsonl") == late and again["mIoU"] < metrics["mIoU"]
    with pytest.raises(RecipeError, match="another zoom"):
        other = replace(recipe, evaluation=replace(settings, zoom=3))
        evaluate(other, writer[0], writers_encoder, rows, place, state, name="m")


@pytest.mark.parametrize("passes", [0, 1])
def test_one_pass_is_the_plain_prediction(tiny, encode, video, passes):
    rows = [row(video, "a red circle"), row(video, "a blue circle")]
    settings = {"grammar_name": "to", "max_new_tokens": 6, "quiet": True}
    batches = [[each] for each in rows]
    plain = list(predict(tiny[0], encode, batches, **settings))
    assert list(predict_zoomed(tiny[0], encode, batches, passes=passes, prompt=PROMPT, **settings)) == plain


# --- prompts


def test_a_prompt_that_states_the_duration_states_that_of_the_part(tiny, encode, video):
    asked = row(video)
    asked["prompt"] = messages({**asked, "duration": 8.0}, TIMED)
    [one] = look_again(tiny, encode, [asked], [first_answer(asked, predicted=[(5, 7)])], prompt=TIMED)
    inputs = encode(
        {**asked, "prompt": messages({**asked, "duration": 6.0}, TIMED), "video_start": 2.0, "video_end": 8.0},
        zoom_settings(encode.settings, 8, 6.0, 8.0),
    )
    assert "in 6.0 s" in tiny[1].tokenizer.decode(inputs.input_ids)
    [written] = tiny[1].batch_decode(rollout(tiny[0], [inputs], greedy(encode, 6)), skip_special_tokens=True)
    assert one["passes"][1]["completion"] == written


def test_a_prompt_of_its_own_is_refused_where_the_template_states_the_duration(tiny, encode, video):
    asked = row(video)
    given = [first_answer(asked, predicted=[(5, 7)])]
    with pytest.raises(DataError, match=r"row 'a a red circle appears' has a prompt of its own"):
        look_again(tiny, encode, [asked], given, prompt=TIMED)
    assert len(look_again(tiny, encode, [asked], given)[0]["passes"]) == 2
