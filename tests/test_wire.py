"""What a trainer and its vLLM server say to each other, as bytes."""

import json
import math
import pickle

import numpy as np
import pytest
from safetensors.numpy import load, save

from rlvtg.rollout.engine import Request, Sampled
from rlvtg.rollout.wire import Sampling, WireError, pack_requests, pack_samples, unpack_requests, unpack_samples

SAMPLING = Sampling(n=4, temperature=0.9, top_p=0.95, top_k=0, max_tokens=16, stop_token_ids=(2, 3), seed=7)
METADATA = {"fps": 1.7182818284590453, "duration": 3.3000000000000003, "frames_indices": [0, 7, 12, 31], "note": "Ω"}


def frames(seed=0, shape=(4, 6, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def packed(**changes):
    """A body whose header has the changes."""
    body = pack_requests([Request([1, 2], [(frames(), METADATA)], "a")], SAMPLING, "w")
    header = json.loads(json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]["rlvtg"])
    for path, value in changes.items():
        below = header
        *above, last = path.split("__")
        for key in above:
            below = below[int(key) if key.isdecimal() else key]
        below[last] = value
    return save(load(body), metadata={"rlvtg": json.dumps(header)})


def test_frames_their_metadata_and_ids_arrive_as_they_were_sent():
    requests = [
        Request([5, 7, 7, 9], [(frames(0), METADATA), (frames(1, (2, 4, 4, 3)), {})], "a"),
        Request([1], [], "b"),
    ]
    found, sampling, weights = unpack_requests(pack_requests(requests, SAMPLING, "abc"))
    assert sampling == SAMPLING and weights == "abc"
    assert [request.token_ids for request in found] == [[5, 7, 7, 9], [1]]
    assert [request.name for request in found] == ["a", "b"]
    for sent, got in zip(requests[0].videos, found[0].videos, strict=True):
        assert np.array_equal(sent[0], got[0]) and got[0].dtype == np.uint8
        assert sent[1] == got[1]
    assert found[1].videos == []


def test_a_part_of_a_clip_arrives_as_that_part():
    whole = frames(0, (8, 6, 8, 3))
    [found], _, _ = unpack_requests(pack_requests([Request([1], [(whole[2:4, :, ::2], {})])], SAMPLING, "w"))
    assert np.array_equal(found.videos[0][0], whole[2:4, :, ::2])


def test_a_video_that_prompts_share_is_sent_once():
    video = frames(0, (8, 32, 32, 3))
    one = pack_requests([Request([1], [(video, METADATA)])], SAMPLING, "w")
    four = pack_requests([Request([k], [(video, METADATA)]) for k in range(4)], SAMPLING, "w")
    assert len(four) < len(one) + 2000 < 2 * video.nbytes


def test_log_probabilities_arrive_to_the_last_bit():
    values = [-0.1, -1e-320, -math.pi, float(np.float32(-2.3456789)), 0.0]
    [[found]] = unpack_samples(pack_samples([[Sampled([1, 2, 3, 4, 5], values)]]))
    assert found == Sampled([1, 2, 3, 4, 5], values)


def test_a_log_probability_that_nobody_knows_arrives_as_nan():
    [[found]] = unpack_samples(pack_samples([[Sampled([1, 2], [-1.0, math.nan])]]))
    assert found.logprobs[0] == -1.0 and math.isnan(found.logprobs[1])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not a safetensors file"),
        (b"x" * 100, "not a safetensors file"),
        (pickle.dumps({"prompts": []}), "not a safetensors file"),
        (packed()[:-1], "not a safetensors file"),
        (save({"0": frames()}), "no readable header"),
        (save({"0": frames()}, metadata={"rlvtg": "{"}), "no readable header"),
        (save({"0": frames()}, metadata={"rlvtg": "[" * 100_000}), "no readable header"),
        (save({"0": frames()}, metadata={"rlvtg": "[]"}), "the header must have the keys"),
        (packed(extra=1), "the header must have the keys"),
        (packed(weights=3), "weights must be a text, got int"),
        (packed(prompts={}), "prompts must be a list, got dict"),
        (packed(prompts__0__token_ids=[]), "prompt 0 has no tokens"),
        (packed(prompts__0__token_ids=[1, -1]), "must be a whole number of at least 0, got -1"),
        (packed(prompts__0__token_ids=[1, True]), "must be a whole number of at least 0, got True"),
        (packed(prompts__0__videos__0__frames="9"), "no such array"),
        (packed(prompts__0__videos__0__metadata=None), "has no metadata"),
        (packed(sampling__n=0), "n must be a whole number of at least 1, got 0"),
        (packed(sampling__n=10**6), "n is 1000000, want 4096 at most"),
        (packed(sampling__temperature=math.nan), "temperature must be a finite number"),
        (packed(sampling__temperature=-1), "temperature is -1"),
        (packed(sampling__top_p=0), "top_p 0"),
        (packed(sampling__seed="x"), "seed must be a whole number of at least 0, got 'x'"),
        (packed(sampling__max_tokens=2**70), "max_tokens must be a whole number"),
    ],
)  # fmt: skip
def test_a_body_that_is_not_right_is_refused_in_a_sentence(body, says):
    with pytest.raises(WireError, match=says.replace("[", r"\[")):
        unpack_requests(body)


@pytest.mark.parametrize("array", [np.zeros((2, 2, 2, 3), np.float32), frames(0, (2, 2, 2, 4)), frames(0, (2, 2, 3))])
def test_frames_that_are_no_frames_are_refused(array):
    with pytest.raises(WireError, match="want uint8"):
        unpack_requests(pack_requests([Request([1], [(array, {})])], SAMPLING, "w"))


def test_metadata_that_json_cannot_hold_is_not_sent():
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack_requests([Request([1], [(frames(), {"fps": math.nan})])], SAMPLING, "w")


@pytest.mark.parametrize("body", [b"x", b"{}", b"[[{}]]", b'[[{"token_ids": [1], "logprobs": []}]]', b"[1]"])
def test_a_reply_that_is_not_right_is_refused(body):
    with pytest.raises(WireError):
        unpack_samples(body)
