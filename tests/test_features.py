"""A video is encoded once per run where nothing behind its features learns, and nothing else changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlvtg.evaluation.predict import predict
from rlvtg.model.family import family
from rlvtg.model.features import FeatureCache, content_digests
from rlvtg.model.inputs import Encoder, batch
from rlvtg.model.load import freeze, load_config, load_model
from rlvtg.model.vision import share_vision
from rlvtg.recipe import GrpoStage, Lora, Recipe, RecipeError, RewardSpec, SftStage
from rlvtg.reward import bind
from rlvtg.training.grpo import grpo_trainer
from rlvtg.training.setup import keep_features
from rlvtg.training.sft import sft_trainer
from tests.tiny_qwen import OTHERS, SHOWN, row, save, video_settings

PLENTY = 10**8
G = 4
TOWER = ["visual.patch_embed", "visual.blocks"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved model and three videos."""
    return save(tmp_path_factory.mktemp("saved"), seconds=(4, 6, 8))


def an_encoder(saved, features=None, **settings):
    return Encoder(
        saved[1],
        family(load_config(saved[0] / "model")),
        video_settings(**({"fps": 1.0} | settings)),
        features=features,
    )


def a_model(saved, frozen=("visual",), cache=None):
    model = load_model(saved[0] / "model")
    freeze(model, frozen)
    share_vision(model, cache)
    return model


def call(saved, encoder, videos=(0, 1)):
    """One model call: both queries of each video, and a completion behind each."""
    rows = [encoder(row(saved[2][video], query)) for video in videos for query in ("red", "a blue circle")]
    ids = torch.arange(20, 20 + 5 * len(rows)).view(len(rows), 5)
    return batch(rows, ids, torch.ones_like(ids), pad_token_id=0)


def log_probs(model, inputs):
    return model(**inputs).logits[:, -6:-1].log_softmax(-1).gather(2, inputs["input_ids"][:, -5:, None])[..., 0]


class Tower:
    """Counts the patches that go through the vision towers of models."""

    def __init__(self, *models):
        self.patches = []
        for model in models:
            model.base_model.visual.register_forward_pre_hook(lambda _, args: self.patches.append(len(args[0])))


# --- the store


def test_the_least_recently_used_features_go_first_and_the_budget_holds():
    cache = FeatureCache(max_bytes=2 * 4 * 3 * 5)
    for name in "ab":
        cache.put((name,), torch.ones(3, 5))
    assert cache.get(("a",)) is not None
    cache.put(("c",), torch.ones(3, 5))
    assert cache.get(("b",)) is None
    assert cache.get(("a",)) is not None and cache.get(("c",)) is not None
    assert cache.bytes == 2 * 4 * 3 * 5
    cache.put(("huge",), torch.ones(7, 5))
    assert cache.get(("huge",)) is None
    assert (cache.bytes, cache.encodes, cache.hits) == (2 * 4 * 3 * 5, 4, 3)


def test_kept_features_hold_their_own_memory_and_no_graph():
    cache = FeatureCache(PLENTY)
    whole = torch.ones(100, 5, requires_grad=True) * 2
    cache.put(("a",), whole[:3])
    kept = cache.get(("a",))
    assert kept.untyped_storage().nbytes() == 3 * 5 * 4
    assert not kept.requires_grad


def test_a_digest_is_of_one_video_and_of_its_shape():
    patches = torch.arange(48.0).view(24, 2)
    first, second = content_digests(patches, torch.tensor([[2, 2, 2], [1, 4, 4]]))
    assert first != second
    assert content_digests(patches[:8], torch.tensor([[2, 2, 2]])) == (first,)
    assert content_digests(patches[:8], torch.tensor([[1, 2, 4]])) != (first,)
    assert content_digests(patches[:8] + 1e-6, torch.tensor([[2, 2, 2]])) != (first,)


# --- the same numbers


@pytest.mark.parametrize("frozen", [["visual"], TOWER], ids=["merged", "before the merger"])
@pytest.mark.parametrize("settings", [{}, {"time": "text"}, {"max_pixels": 6 * 784, "fps": 2.0}])
def test_log_probabilities_and_gradients_are_those_without_a_cache(saved, frozen, settings):
    check_cache(saved, frozen, settings)


@pytest.mark.parametrize("family", OTHERS)
def test_so_they_are_in_other_families(tmp_path, family):
    """Qwen3-VL keeps what the merger and the deepstack mergers make, or are given, side by side."""
    other = save(tmp_path, seconds=(4, 6), family=family)
    rest = {"qwen3_vl": ["visual.pos_embed", "visual.deepstack_merger_list"]}
    for frozen in (["visual"], TOWER + rest.get(family, [])):
        check_cache(other, frozen, SHOWN[family])


def check_cache(saved, frozen, settings):
    cache = FeatureCache(PLENTY, merged=frozen == ["visual"])
    plain, cached = a_model(saved, frozen), a_model(saved, frozen, cache)
    tower = Tower(cached)
    expected = log_probs(plain, call(saved, an_encoder(saved, **settings)))
    expected.sum().backward()
    gradients = {name: value.grad for name, value in plain.named_parameters() if value.grad is not None}
    assert any("visual.merger" in name for name in gradients) == (frozen != ["visual"])
    assert not any("blocks" in name for name in gradients)
    encoder = an_encoder(saved, cache, **settings)
    for _ in ("encoded", "kept"):
        found = log_probs(cached, call(saved, encoder))
        assert (found - expected).abs().max() < 1e-6
        cached.zero_grad()
        found.sum().backward()
        assert gradients.keys() == {name for name, value in cached.named_parameters() if value.grad is not None}
        for name, value in cached.named_parameters():
            if name in gradients:
                scale = max(1.0, float(gradients[name].abs().max()))
                assert (value.grad - gradients[name]).abs().max() < 1e-6 * scale, name
    assert len(tower.patches) == 1


def test_a_batch_may_be_half_new_and_in_another_order(saved):
    for merged in (True, False):
        cache = FeatureCache(PLENTY, merged=merged)
        encoder, model = an_encoder(saved, cache), a_model(saved, cache=cache)
        tower = Tower(model)
        with torch.no_grad():
            log_probs(model, call(saved, encoder, (1,)))
            found = log_probs(model, call(saved, encoder, (2, 1, 0)))
            expected = log_probs(a_model(saved), call(saved, an_encoder(saved), (2, 1, 0)))
        # the tower's rounding depends on what is encoded together, here one video or two instead of three
        assert (found - expected).abs().max() < 1e-5
        sizes = [len(encoder(row(video)).video.pixel_values) for video in saved[2]]
        assert tower.patches == [sizes[1], sizes[2] + sizes[0]]


def test_a_video_that_does_not_fit_is_encoded_again_and_right(saved):
    cache = FeatureCache(max_bytes=100)
    model, encoder = a_model(saved, cache=cache), an_encoder(saved, cache)
    tower = Tower(model)
    with torch.no_grad():
        found = [log_probs(model, call(saved, encoder)) for _ in range(2)]
        expected = log_probs(a_model(saved), call(saved, an_encoder(saved)))
    assert max(float((one - expected).abs().max()) for one in found) < 1e-6
    assert len(tower.patches) == 2 and cache.bytes == 0


# --- what features depend on


@pytest.mark.parametrize("merged", [True, False])
def test_changed_weights_are_noticed_and_equal_ones_shared(saved, merged):
    cache = FeatureCache(PLENTY, merged=merged)
    encoder = an_encoder(saved, cache)
    one, other = a_model(saved, cache=cache), a_model(saved, cache=cache)
    tower = Tower(one, other)
    with torch.no_grad():
        before = log_probs(one, call(saved, encoder))
        assert torch.equal(log_probs(other, call(saved, encoder)), before)
        assert len(tower.patches) == 1  # the other model has the same weights
        for value in other.base_model.visual.blocks.parameters():
            value.mul_(1.5)
        changed = log_probs(other, call(saved, encoder))
        assert len(tower.patches) == 2
        assert (changed - before).abs().max() > 1e-3
        share_vision(other)  # as `prepare` does again
        assert torch.equal(log_probs(other, call(saved, encoder)), changed)
        other.load_state_dict(one.state_dict())
        assert torch.equal(log_probs(other, call(saved, encoder)), before)
        assert len(tower.patches) == 2
        one.base_model.visual.merger.mlp[2].bias.add_(1.0)
        assert (log_probs(one, call(saved, encoder)) - before).abs().max() > 1e-3
        assert len(tower.patches) == (3 if merged else 2)


def test_an_adapter_on_the_tower_has_features_of_its_own(saved):
    cache = FeatureCache(PLENTY)
    encoder, plain = an_encoder(saved, cache), a_model(saved, cache=cache)
    adapted = get_peft_model(a_model(saved), LoraConfig(target_modules="all-linear", init_lora_weights=False)).eval()
    with torch.no_grad():
        before = log_probs(plain, call(saved, encoder))
        expected = log_probs(adapted, call(saved, an_encoder(saved)))
        share_vision(adapted, cache)
        for _ in ("encoded", "kept"):
            assert (log_probs(adapted, call(saved, encoder)) - expected).abs().max() < 1e-5
        assert (before - expected).abs().max() > 1e-2
    assert cache.encodes == 4


def test_features_of_another_precision_are_not_mixed_in(saved):
    cache = FeatureCache(PLENTY)
    model, encoder = a_model(saved, cache=cache), an_encoder(saved, cache)
    tower = Tower(model)
    with torch.no_grad():
        exact = log_probs(model, call(saved, encoder))
        with torch.autocast("cpu", torch.bfloat16):
            coarse = log_probs(model, call(saved, encoder))
            assert torch.equal(log_probs(model, call(saved, encoder)), coarse)
        assert torch.equal(log_probs(model, call(saved, encoder)), exact)
        assert len(tower.patches) == 2
        model.bfloat16()
        log_probs(model, call(saved, encoder))
    assert len(tower.patches) == 3


@pytest.mark.parametrize(("frozen", "part"), [([], "blocks"), (TOWER, "merger")])
def test_what_learns_is_never_read_from_the_cache(saved, frozen, part):
    cache = FeatureCache(PLENTY, merged=True)
    model, encoder = a_model(saved, frozen, cache), an_encoder(saved, cache)
    for _ in range(2):
        model.zero_grad()
        log_probs(model, call(saved, encoder)).sum().backward()
        assert all(value.grad.abs().max() > 0 for value in getattr(model.base_model.visual, part).parameters())
    assert cache.encodes == 0


# --- whole stages


def a_recipe(saved):
    model = str(saved[0] / "model")
    return Recipe(name="test", model=model, bf16=False, use_cpu=True, report_to=[], grammar="to")


def an_sft_trainer(saved, tmp_path, features, **changes):
    stage = SftStage(
        kind="sft", data="cold_start", learning_rate=1e-3, lr_scheduler_type="constant", per_device_train_batch_size=2,
        num_train_epochs=2, freeze=["visual"],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(stage, name, value)
    answer = [{"role": "assistant", "content": [{"type": "text", "text": "02 to 05"}]}]
    rows = [row(video, query, completion=answer) for video in saved[2][:2] for query in ("red", "when is it blue")]
    recipe = a_recipe(saved)
    return sft_trainer(recipe, stage, rows, recipe.model, an_encoder(saved, features), str(tmp_path / "out"))


def a_grpo_trainer(saved, tmp_path, features, **changes):
    Path(tmp_path / "mine.py").write_text(
        "def even_length(completions, **_):\n    return [float(len(c[0]['content']) % 2) for c in completions]\n"
    )
    stage = GrpoStage(
        kind="grpo", data="rl", learning_rate=1e-3, lr_scheduler_type="constant", per_device_train_batch_size=2 * G,
        num_train_epochs=2, rewards={str(tmp_path / "mine.py:even_length"): RewardSpec()}, num_generations=G, beta=0.1,
        loss_type="grpo", scale_rewards="group", epsilon=0.2, num_iterations=2, temperature=1.0,
        max_completion_length=4, freeze=["visual"],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(stage, name, value)
    recipe = a_recipe(saved)
    rows = [row(video) for video in saved[2][:2]]
    rewards = bind(stage.rewards, rows[0].keys(), grammar="to")
    return grpo_trainer(recipe, stage, rows, rewards, recipe.model, an_encoder(saved, features), str(tmp_path / "out"))


def patches(saved, count):
    encoder = an_encoder(saved)
    return sum(len(encoder(row(video)).video.pixel_values) for video in saved[2][:count])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (an_sft_trainer, {"gradient_checkpointing": True}),
        (an_sft_trainer, {"freeze": TOWER}),
        (a_grpo_trainer, {}),
        (a_grpo_trainer, {"freeze": TOWER, "share_prefix": False}),
        (a_grpo_trainer, {"freeze": [], "lora": Lora(r=4, lora_alpha=8), "gradient_checkpointing": True}),
        (a_grpo_trainer, {"freeze": TOWER, "lora": Lora(r=4, lora_alpha=8, target_modules="all-linear")}),
    ],
    ids=["sft", "sft, merger learns", "grpo", "grpo, merger learns", "grpo, lora", "grpo, lora on the merger"],
)
def test_a_stage_encodes_each_video_once_and_learns_the_same(saved, tmp_path, make, changes):
    """Two epochs; in GRPO two updates for each rollout, and a reference."""
    finals = []
    cache = FeatureCache(PLENTY, merged=changes.get("freeze") != TOWER)
    for features in (None, cache):
        torch.manual_seed(0)
        trainer = make(saved, tmp_path, features, learning_rate=1e-5, **changes)
        policy = trainer.model.get_base_model() if "lora" in changes else trainer.model
        reference = getattr(trainer, "ref_model", None)
        tower = Tower(policy, *([] if reference is None else [reference]))
        trainer.train()
        assert trainer.state.epoch >= 2
        if features is not None:
            rows = [row(video) for video in saved[2][:2]]
            encode = an_encoder(saved, features)
            list(predict(trainer.model, encode, [rows], grammar_name="to", max_new_tokens=2, quiet=True))
            # the policy's passes, the reference's and the evaluation together
            assert sum(tower.patches) == patches(saved, 2)
            assert cache.encodes == 2
        else:
            assert sum(tower.patches) >= (2 if make is an_sft_trainer else 8) * patches(saved, 2)
        finals.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})
    for name, value in finals[0].items():
        # where gradients cancel out, rounding decides the sign of an Adam step
        assert ((value - finals[1][name]).abs() < 1e-6).float().mean() > 0.99, name


# --- what is refused


@pytest.mark.parametrize("make", [an_sft_trainer, a_grpo_trainer])
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"freeze": []}, r"visual\.patch_embed"),
        ({"freeze": ["visual.patch_embed"]}, r"visual\.blocks"),
        ({"freeze": TOWER}, r"visual\.merger"),
        ({"freeze": [], "lora": Lora(r=4, target_modules="all-linear")}, r"visual\.blocks.*lora"),
    ],
)
def test_a_stage_that_trains_what_the_cache_takes_for_fixed_is_refused(saved, tmp_path, make, changes, part):
    with pytest.raises(RecipeError, match=f"video.cache_features: got true, but the stage trains {part}"):
        make(saved, tmp_path, FeatureCache(PLENTY, merged=True), **changes)


def test_sharded_weights_are_refused(saved, tmp_path, monkeypatch):
    trainer = an_sft_trainer(saved, tmp_path, None)
    keep_features(trainer, FeatureCache(PLENTY))
    trainer.is_fsdp_enabled = True
    with pytest.raises(RecipeError, match="under FSDP or DeepSpeed ZeRO-3, where every rank must run the vision tower"):
        keep_features(trainer, FeatureCache(PLENTY))
    trainer.is_fsdp_enabled = False
    monkeypatch.setattr("rlvtg.training.setup.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(RecipeError, match="under FSDP or DeepSpeed ZeRO-3, where every rank must run the vision tower"):
        keep_features(trainer, FeatureCache(PLENTY))


def test_inputs_carry_digests_only_for_a_cache(saved):
    assert "video_keys" not in call(saved, an_encoder(saved))
    encoder = an_encoder(saved, FeatureCache(PLENTY), time="text")
    made = call(saved, encoder)
    assert len(made["video_keys"]) == len(made["video_grid_thw"])
    video = encoder(row(saved[2][0])).video
    assert made["video_keys"][: len(video.grids)] == list(video.digests)
    assert replace(video, digests=()).digests == ()
