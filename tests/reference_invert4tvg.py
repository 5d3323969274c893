"""Invert4TVG: nian1125/Invert4TVG@3597015, qwen-vl-finetune/qwenvl/train and inference."""

from string import punctuation

from rlvtg.reward import find
from rlvtg.text.grammar import grammar
from rlvtg.text.inverse import released_match, released_verbs
from rlvtg.text.verbs import tagger, verbs
from rlvtg.video.segment import released_segment_frames

SUFFIX = tagger("suffix")


def stub(lemmas, auxiliaries=()):
    """The tagger with which the rows of the inverse task were recorded: main verbs are the keys of a table."""

    def tag(text):
        words = [word.strip(punctuation).lower() for word in text.split()]
        return [(word, lemmas.get(word, word), word in lemmas and word not in auxiliaries) for word in words]

    return tag


def score(reward, completion, kwargs):
    """What our function gives where the reference function `reward` was called with these inputs."""
    if reward == "iou":
        return find("tiou")([completion], [[kwargs["solution"]]])[0]
    if reward == "format":
        return find("think_format")([completion])[0]
    if reward == "format2":
        return find("answer_format")([completion])[0]
    if reward in ("act", "act_strict"):
        return _completed(completion, kwargs, strict=reward == "act_strict")
    if reward == "total_vc":
        return _completed(completion, kwargs) + score("format2", completion, {})
    if reward.startswith("fallback_"):
        return _fallback(reward.removeprefix("fallback_"), completion, kwargs)
    if reward == "calculate_frame_range":
        names = ("total_frames", "fps", "start_sec", "end_sec")
        return list(released_segment_frames(*[kwargs[name] for name in names]))
    if reward == "eval_parse":
        spans = grammar("invert4tvg_eval").parse(completion)
        return list(spans[0]) if spans else [None, None]
    raise ValueError(f"Invert4TVG has no reward {reward!r}")


def _completed(completion, kwargs, strict=False):
    strict = strict or kwargs.get("use_strict_matching", False)
    return find("verb_completion")(
        [completion],
        query=[kwargs["problem"]],
        masked_query=[kwargs.get("miss")],
        verb=[None],
        mode="original_strict" if strict else "original",
        tagger=stub(kwargs["stub"], kwargs.get("aux_tokens", ())),
    )[0]


def _fallback(name, completion, kwargs):
    truth, masked = kwargs.get("truth"), kwargs.get("miss") or ""
    if name == "extract_verbs":
        return sorted(set(verbs(completion, SUFFIX)))
    if name == "extract_verbs_from_diff":
        return sorted(released_verbs(completion if truth is None else truth, masked, SUFFIX))
    if name == "get_verb_variants":
        return [completion]
    if name in ("v1", "v1_strict", "v2", "v2_default"):
        return float(released_match(completion, truth, masked, SUFFIX, strict=name.startswith("v1")))
    raise ValueError(f"Invert4TVG has no reward 'fallback_{name}'")
