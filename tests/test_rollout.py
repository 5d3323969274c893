"""The sampler, the policy and plain Hugging Face generation agree, in float32, at every frame rate."""

import pytest
import torch
from transformers import GenerationConfig

from rlvtg.evaluation.predict import greedy, sampled
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, batch
from rlvtg.rollout.hf import rollout
from tests.tiny_qwen import OTHERS, SHOWN, model_and_processor, row, video_settings, write_video

SAMPLING = GenerationConfig(do_sample=True, max_new_tokens=12, pad_token_id=0, eos_token_id=2, top_k=0)
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=12, pad_token_id=0, eos_token_id=2)


@pytest.fixture(scope="module")
def tiny():
    return model_and_processor()


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    """A model and processor of another family, and how it is told the time."""
    return model_and_processor(family=request.param), SHOWN[request.param]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / "a.mp4", seconds=8), write_video(folder / "b.mp4", seconds=5, seed=1)]


def prompts(tiny, videos, **settings):
    model, processor = tiny
    encode = Encoder(processor, family(model.config), video_settings(**settings))
    return [encode(row(videos[0])), encode(row(videos[1], "when does a blue circle appear"))]


def policy(model, inputs, completions):
    """Log-probabilities of completions (lists of ids) behind their prompts, from one plain forward pass."""
    width = max(map(len, completions))
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids in completions])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in completions])
    call = batch(inputs, ids, mask, pad_token_id=0)
    with torch.no_grad():
        logits = model(**call).logits[:, -width - 1 : -1]
    return logits.log_softmax(-1).gather(2, ids[..., None])[..., 0], mask


@pytest.mark.parametrize(
    "settings",
    [
        {"fps": 1.0},
        {"fps": 2.0},
        {"fps": 4.0},
        {"fps": 1.6},
        {"fps": 1.0, "time": "text"},
        {"fps": 1.0, "time": "overlay"},
    ],
    ids=["1 fps", "2 fps", "4 fps", "fractional interval", "text", "overlay"],
)
def test_the_policy_gives_sampled_tokens_the_log_probability_they_were_sampled_with(tiny, videos, settings):
    check_sampling(tiny[0], prompts(tiny, videos, **settings))


@pytest.mark.parametrize("settings", [{"fps": 2.0}, {"fps": 1.6}, {"fps": 1.0, "time": "overlay"}])
def test_so_it_does_in_other_families(other, videos, settings):
    tiny, shown = other
    check_sampling(tiny[0], prompts(tiny, videos, **(shown | settings)))


def check_sampling(model, inputs):
    # plain `generate` on unique prompts reports the distribution that it sampled from
    nothing = torch.zeros((2, 0), dtype=torch.long)
    call = batch(inputs, nothing, nothing, pad_token_id=0)
    features = model.get_video_features(call.pop("pixel_values_videos"), call.pop("video_grid_thw"), return_dict=True)
    del call["video_rows"]
    torch.manual_seed(0)
    with torch.no_grad():
        made = model.generate(
            **call, mm_encoder_outputs={"video": features}, generation_config=SAMPLING,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    completions = made.sequences[:, call["input_ids"].shape[1] :].tolist()
    scores = torch.stack(made.scores, dim=1).log_softmax(-1)
    sampled = scores.gather(2, torch.tensor(completions)[..., None])[..., 0]
    ours, mask = policy(model, inputs, completions)
    live = torch.tensor([[2 not in ids[:k] for k in range(len(ids))] for ids in completions])
    assert live.sum() > 12
    assert (ours - sampled)[live].abs().max() < 1e-4


@pytest.mark.parametrize("settings", [{"fps": 2.0}, {"fps": 1.6}, {"fps": 1.0, "time": "text"}])
def test_prefilling_once_gives_the_greedy_tokens_of_plain_generation(tiny, videos, settings):
    check_greedy(tiny[0], prompts(tiny, videos, **settings))


@pytest.mark.parametrize("settings", [{"fps": 2.0}, {"fps": 1.0, "time": "overlay"}])
def test_so_it_does_in_other_families_too(other, videos, settings):
    tiny, shown = other
    check_greedy(tiny[0], prompts(tiny, videos, **(shown | settings)))


def check_greedy(model, inputs):
    ours = rollout(model, inputs, GREEDY, num_generations=3)
    for index, one in enumerate(inputs):
        with torch.no_grad():
            plain = model.generate(
                input_ids=one.input_ids[None], attention_mask=torch.ones_like(one.input_ids)[None],
                position_ids=one.position_ids[:, None], pixel_values_videos=one.video.pixel_values,
                video_grid_thw=one.video.grids, generation_config=GREEDY,
            )  # fmt: skip
        expected = plain[0, len(one.input_ids) :].tolist()
        assert ours[3 * index : 3 * index + 3] == [expected] * 3


def test_sampled_frequencies_of_the_first_token_follow_the_policy(tiny, videos):
    model, _ = tiny
    inputs = prompts(tiny, videos, fps=2.0)[:1]
    torch.manual_seed(1)
    config = GenerationConfig(do_sample=True, max_new_tokens=1, pad_token_id=0, eos_token_id=2, top_k=0)
    first = torch.tensor([ids[0] for ids in rollout(model, inputs, config, num_generations=4000)])
    nothing = torch.zeros((1, 0), dtype=torch.long)
    with torch.no_grad():
        expected = model(**batch(inputs, nothing, nothing, pad_token_id=0)).logits[0, -1].softmax(-1)
    found = torch.bincount(first, minlength=len(expected)) / 4000
    assert (found - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5
    assert expected.max() > 0.02  # not flat: a wrong distribution would show


def test_a_group_is_prefilled_and_its_video_encoded_once(tiny, videos):
    model, _ = tiny
    inputs = prompts(tiny, videos, fps=1.0)
    patches, tokens = [], []
    hooks = [
        model.model.visual.register_forward_pre_hook(
            lambda _, args, kwargs: patches.append(len(args[0])), with_kwargs=True
        ),
        model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: tokens.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
    ]
    rollout(model, inputs, GREEDY, num_generations=8)
    for hook in hooks:
        hook.remove()
    assert patches == [sum(len(one.video.pixel_values) for one in inputs)]
    width = max(len(one.input_ids) for one in inputs)
    assert tokens[0] == (2, width - 1)
    assert set(tokens[1:]) == {(16, 1)}


@pytest.mark.parametrize("fps", [1.0, 4.0])
def test_the_stock_positions_of_transformers_would_break_the_parity(tiny, videos, fps):
    """The control: with the positions that transformers computes itself, the log-probabilities are visibly others."""
    model, _ = tiny
    one = prompts(tiny, videos, fps=fps)[0]
    ids = rollout(model, [one], GREEDY)[0]
    ours, _ = policy(model, [one], [ids])
    sequence = torch.cat([one.input_ids, torch.tensor(ids)])[None]
    with torch.no_grad():
        stock = model(
            input_ids=sequence, pixel_values_videos=one.video.pixel_values, video_grid_thw=one.video.grids,
            second_per_grid_ts=torch.tensor(one.video.seconds_per_grid),
            mm_token_type_ids=(sequence == model.config.video_token_id).int() * 2,
        ).logits[0, -len(ids) - 1 : -1]  # fmt: skip
    theirs = stock.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    assert (ours[0] - theirs).abs().max() > 1e-3


def test_the_frame_rate_reaches_the_model(tiny, videos):
    """The same frames under another clock give other log-probabilities: no default rate stands in for the true one."""
    model, processor = tiny
    one = prompts(tiny, videos, fps=2.0)[0]
    encode = Encoder(processor, family(model.config), video_settings(2.0))
    clip = encode.clip(row(videos[0]))
    slower = type(clip)(clip.frames, clip.timestamps * 3, clip.duration * 3)
    from rlvtg.model.inputs import prompt_inputs, video_inputs

    video = video_inputs(slower, processor, family(model.config), time="positions")
    other = prompt_inputs(
        row(videos[0])["prompt"], video, processor, family(model.config), time="positions", time_format=""
    )
    assert torch.equal(other.input_ids, one.input_ids)
    ids = rollout(model, [one], GREEDY)[0]
    ours, _ = policy(model, [one], [ids])
    theirs, _ = policy(model, [other], [ids])
    assert (ours - theirs).abs().max() > 1e-3


@pytest.mark.parametrize("config", [greedy, lambda encoder, limit: sampled(encoder, limit, 1.0)])
def test_what_a_released_model_says_of_generation_is_not_taken_over(tiny, videos, config):
    model, processor = tiny
    encoder = Encoder(processor, family(model.config), video_settings())
    inputs, own = prompts(tiny, videos), model.generation_config
    made = []
    # as Qwen2.5-VL has it, with a penalty that would be felt here
    for generation in (own, GenerationConfig(do_sample=True, repetition_penalty=3.0, temperature=1e-6, top_k=1)):
        model.generation_config = generation
        torch.manual_seed(0)
        made.append(rollout(model, inputs, config(encoder, 12), num_generations=2))
    model.generation_config = own
    assert made[0] == made[1]
