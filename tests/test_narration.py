import torch

from rlvtg.data.narration import narrate
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, narrated
from tests.tiny_qwen import model_and_processor, row, video_settings, write_video


def test_a_narrated_row_tells_its_own_event_and_the_others_tell_nothing():
    rows = [row("a.mp4", "a red circle", spans=[[2.0, 5.0], [7.0, 8.0]])]
    told = [{"start": 2.0, "end": 5.0, "text": "a red circle"}, {"start": 7.0, "end": 8.0, "text": "a red circle"}]
    assert narrate(rows, share=1.0, seed=0) == [{**rows[0], "narration": told}]
    assert narrate(rows, share=0.0, seed=0) == [{**rows[0], "narration": []}]


def test_the_share_is_drawn_at_random_and_by_the_seed_alone():
    rows = [row("a.mp4", f"query {k}") for k in range(1000)]
    drawn = [bool(told["narration"]) for told in narrate(rows, share=0.3, seed=1)]
    assert drawn == [bool(told["narration"]) for told in narrate(rows, share=0.3, seed=1)]
    assert drawn != [bool(told["narration"]) for told in narrate(rows, share=0.3, seed=2)]
    assert 250 < sum(drawn) < 350


def test_an_event_is_told_in_every_patch_that_it_touches():
    events = [{"start": 2.0, "end": 5.0, "text": "red"}, {"start": 4.5, "end": 6.0, "text": "blue"}]
    assert narrated(events, [0.0, 2.0, 4.0, 6.0], 2.0) == [" nothing\n", " red\n", " red, blue\n", " nothing\n"]


def test_narration_stands_behind_its_patch_and_is_all_that_is_learned_of_a_prompt(tmp_path):
    model, processor = model_and_processor()
    encode = Encoder(processor, family(model.config), video_settings(1.0, time="text", time_format="{:02.0f}"))
    [told] = narrate([row(write_video(tmp_path / "a.mp4"), "a red circle")], share=1.0, seed=0)
    inputs = encode(told)
    text = processor.tokenizer.decode(inputs.input_ids).replace("<|video_pad|>", "")
    assert "00 nothing\n02 a red circle\n04 a red circle\n06 nothing\na red circle<|im_end|>" in text
    learned = inputs.labels != -100
    assert torch.equal(inputs.labels[learned], inputs.input_ids[learned])
    told_text = processor.tokenizer.decode(inputs.labels[learned])
    assert told_text == " nothing\n a red circle\n a red circle\n nothing\n"


def test_a_narrated_prompt_has_the_positions_of_its_own_tokens(tmp_path):
    model, processor = model_and_processor()
    encode = Encoder(processor, family(model.config), video_settings(1.0, time="text", time_format="{:02.0f}"))
    plain = row(write_video(tmp_path / "a.mp4"), "a red circle")
    [told] = narrate([plain], share=1.0, seed=0)
    assert (encode(plain).labels == -100).all()
    text = encode(told).labels != -100
    more = len(encode(told).input_ids) - len(encode(plain).input_ids)
    assert int(text.sum()) == more
    assert encode(told).next_position == encode(plain).next_position + more
