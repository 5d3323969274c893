"""The plan's parameters are transformers', its bytes those that torch allocates, and its remedies work."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from rlvtg import plan, run
from rlvtg.cli import main
from rlvtg.cost import flops
from rlvtg.cost.memory import Memory, Setting, Work, counts, held, rollout, step, update
from rlvtg.cost.shapes import PUBLISHED, Shape, layers, parameters, shape, shape_of
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, batch
from rlvtg.model.load import freeze, load_config, load_model
from rlvtg.model.tiny import tiny_model, tiny_processor
from rlvtg.recipe import FAMILIES, GrpoStage, Lora, Recipe, RecipeError, RewardSpec, SftStage, load
from rlvtg.reward import bind
from rlvtg.training.grpo import grpo_trainer
from rlvtg.training.prefix import packed
from rlvtg.training.setup import lora_config
from rlvtg.training.sft import sft_trainer, target
from tests.measured_memory import peak_bytes, save_model
from tests.tiny_qwen import row, video_settings, write_video

TOLERANCE = 0.2
SEVEN = "Qwen/Qwen2.5-VL-7B-Instruct"

# --- parameters


@pytest.mark.parametrize("name", FAMILIES)
def test_every_module_has_the_parameters_that_transformers_gives_it(name: str) -> None:
    model = tiny_model(tiny_processor(name).tokenizer, family=name)
    real: dict[str, int] = {}
    for path, value in model.named_parameters():
        module = path.removeprefix("model.").rpartition(".")[0]
        real[module] = real.get(module, 0) + value.numel()
    assert {layer.name: layer.parameters for layer in layers(shape_of(model.config.to_dict()))} == real


@pytest.mark.parametrize(
    ("model", "total"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", 2_208_985_600),
        ("Qwen/Qwen2-VL-7B-Instruct", 8_291_375_616),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        (SEVEN, 8_292_166_656),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696),
    ],
)
def test_published_models_have_as_many_parameters_as_their_files(model: str, total: int) -> None:
    assert parameters(PUBLISHED[model]) == total


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-3B-Instruct", SEVEN])
def test_the_published_shape_builds_a_model_of_as_many_parameters(model: str) -> None:
    known = PUBLISHED[model]
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": known.vocabulary,
            "hidden_size": known.hidden,
            "intermediate_size": known.intermediate,
            "num_hidden_layers": known.layers,
            "num_attention_heads": known.heads,
            "num_key_value_heads": known.key_heads,
            "tie_word_embeddings": known.tied,
        },
        vision_config={
            "depth": known.vision_layers,
            "hidden_size": known.vision_hidden,
            "intermediate_size": known.vision_intermediate,
            "num_heads": known.vision_heads,
            "out_hidden_size": known.hidden,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=known.tied,
    )
    with torch.device("meta"):
        built = AutoModelForImageTextToText.from_config(config)
    built.tie_weights()
    assert built.num_parameters() == parameters(known)
    assert shape_of(config.to_dict()) == known


@pytest.mark.parametrize(
    ("lora", "frozen"),
    [
        (Lora(r=4), []),
        (Lora(r=4, target_modules="all-linear"), ["visual.blocks"]),
        (Lora(r=2, target_modules=["qkv"]), []),
    ],
    ids=["default", "all linear but the blocks", "by name"],
)
def test_adapters_have_the_parameters_that_peft_gives_them(lora: Lora, frozen: list[str]) -> None:
    model = tiny_model(tiny_processor().tokenizer)
    stage = an_sft_stage(lora=lora, freeze=frozen)
    planned = plan.setting(a_recipe("x"), stage, shape_of(model.config.to_dict()), plan.Machine())
    freeze(model, frozen)
    adapted = get_peft_model(model, lora_config(stage, model))
    assert counts(planned)[2] == sum(value.numel() for value in adapted.parameters() if value.requires_grad)


# --- bytes, measured


def a_recipe(model: str, **changes: object) -> Recipe:
    recipe = Recipe(
        name="test", model=model, bf16=False, use_cpu=True, report_to=[], grammar="to", prompt="{query}{video}"
    )
    return replace(recipe, **changes)  # fmt: skip


def an_sft_stage(**changes: object) -> SftStage:
    stage = SftStage("sft", "x", None, 1e-3, "constant", per_device_train_batch_size=1, max_steps=2)
    return replace(stage, **changes)


def a_grpo_stage(**changes: object) -> GrpoStage:
    stage = GrpoStage(
        kind="grpo", data="x", learning_rate=1e-3, lr_scheduler_type="constant", per_device_train_batch_size=4,
        max_steps=2, rewards={"tiou": RewardSpec()}, num_generations=4, beta=0.0, loss_type="grpo",
        scale_rewards="group", epsilon=0.2, num_iterations=2, temperature=1.0, max_completion_length=8,
    )  # fmt: skip
    return replace(stage, **changes)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, in which activations weigh more than weights, and two videos of 4 s."""
    folder = tmp_path_factory.mktemp("plan")
    save_model(folder / "model")
    for name in "ab":
        write_video(folder / f"{name}.mp4", seconds=4, width=280, height=280)
    return folder


def an_encoder(desk: Path) -> Encoder:
    settings = video_settings(fps=2.0, max_pixels=280 * 280)
    return Encoder(tiny_processor(), family(load_config(desk / "model")), settings, max_bytes=1)


def rows(desk: Path) -> list[dict]:
    answer = {"role": "assistant", "content": [{"type": "text", "text": "<think>a red circle</think>"}]}
    return [row(str(desk / f"{name}.mp4"), completion=[answer]) for name in "ab" for _ in range(2)]


def planned(desk: Path, recipe: Recipe, stage: SftStage | GrpoStage, tile: int) -> Memory:
    """The plan of a stage in one process, with the tile of the fused head of this width and prompts of true length."""
    known = shape(str(desk / "model"))
    asked = rows(desk)[0]
    prompt = an_encoder(desk)(asked)
    pairs, tall, wide = prompt.video.grids[0].tolist()
    clip = plan.Clip(4.0, 2 * pairs, tall * 14, wide * 14, pairs * tall * wide, pairs * tall * wide // 4)
    setting = replace(plan.setting(recipe, stage, known, plan.Machine(1, 1.0, 0)), tile_width=tile)
    length = len(prompt.input_ids)
    if isinstance(stage, SftStage):
        calls = plan.calls(stage, clip, length, len(target(asked["completion"], tiny_processor())))
        return Memory(held(setting), update(setting, calls), step(setting))
    calls = [replace(call, ragged=False) for call in plan.calls(stage, clip, length, stage.max_completion_length)]
    group = Work(clip.patches, calls[0].frame, length, stage.max_completion_length, 1, stage.num_generations)
    return Memory(held(setting), update(setting, calls), step(setting), rollout(setting, group))


def trained_bytes(desk: Path, recipe: Recipe, stage: SftStage | GrpoStage, folder: Path) -> int:
    """The peak of a real run of the stage's real trainer, from before the model is loaded."""
    given = rows(desk)

    def act() -> None:
        encoder = an_encoder(desk)
        if isinstance(stage, SftStage):
            sft_trainer(recipe, stage, given, recipe.model, encoder, str(folder)).train()
        else:
            plain = [{key: value for key, value in each.items() if key != "completion"} for each in given]
            rewards = bind(stage.rewards, plain[0].keys(), grammar="to")
            grpo_trainer(recipe, stage, plain, rewards, recipe.model, encoder, str(folder)).train()

    return peak_bytes(act)


LORA = Lora(r=8, lora_alpha=8)
CHECKPOINTING = {"gradient_checkpointing": True}
CASES = {
    "sft": (an_sft_stage(), False),
    "sft, checkpointing": (an_sft_stage(**CHECKPOINTING), False),
    "sft, lora": (an_sft_stage(lora=LORA), False),
    "sft, lora, checkpointing": (an_sft_stage(lora=LORA, **CHECKPOINTING), False),
    "sft, autocast": (an_sft_stage(), True),
    "sft, lora, autocast": (an_sft_stage(lora=LORA), True),
    "grpo, shared": (a_grpo_stage(), False),
    "grpo, shared, checkpointing": (a_grpo_stage(**CHECKPOINTING), False),
    "grpo, full rows": (a_grpo_stage(share_prefix=False), False),
    "grpo, full rows, checkpointing": (a_grpo_stage(share_prefix=False, **CHECKPOINTING), False),
    "grpo, reference, frozen tower": (a_grpo_stage(beta=0.1, freeze=["visual"]), False),
    "grpo, several calls": (a_grpo_stage(max_tokens_per_forward=430, **CHECKPOINTING), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_real_run_holds_what_the_plan_says(
    case: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as wide as on a vocabulary of this size; the tile itself is looked at below
    monkeypatch.setattr(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 512)
    stage, bf16 = CASES[case]
    recipe = a_recipe(str(desk / "model"), bf16=bf16)
    expected = planned(desk, recipe, stage, 512).peak
    measured = trained_bytes(desk, recipe, stage, tmp_path)
    print(f"{case}: planned {expected / 2**20:.1f} MiB, measured {measured / 2**20:.1f} MiB")
    assert expected == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_an_update_in_bfloat16_holds_what_the_plan_says(desk: Path, shared: bool, checkpointing: bool) -> None:
    """Weights, gradients and products in bfloat16, as under DeepSpeed; the head's tile has its real width."""
    model = load_model(desk / "model", dtype=torch.bfloat16).train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    prompt = an_encoder(desk)(rows(desk)[0])
    completions = torch.randint(20, 300, (4, 16))
    mask = torch.ones_like(completions)
    if shared:
        call, _ = packed([prompt] * 4, completions, mask, video_token_id=family(model.config).video_token_id)
    else:
        call = batch([prompt] * 4, completions, mask, pad_token_id=0)
        call["labels"] = torch.cat([torch.full((4, len(prompt.input_ids)), -100), completions], dim=1)
    measured = peak_bytes(lambda: model(**call, fused_lm_head=True).log_probs.sum().backward())
    known = shape(str(desk / "model"))
    everything = frozenset(layer.name for layer in layers(known))
    setting = Setting(known, everything, zero=1, checkpointing=checkpointing, cuda=False)
    work = Work(prompt.video.pixel_values.shape[0], 400, len(prompt.input_ids), 16, 1, 4, shared, ragged=False)
    expected = update(setting, [work])
    expected["inputs"] = 2.0 * prompt.video.pixel_values.numel()  # the pixels themselves were there before
    print(f"{shared=} {checkpointing=}: planned {sum(expected.values()) / 2**20:.1f}, measured {measured / 2**20:.1f}")
    assert sum(expected.values()) == pytest.approx(measured, rel=TOLERANCE)


# --- bytes, by hand


def test_what_is_held_all_the_time_under_each_stage_of_zero() -> None:
    known = PUBLISHED[SEVEN]
    everything = frozenset(layer.name for layer in layers(known))
    number = parameters(known)
    at = {zero: held(Setting(known, everything, zero=zero, gpus=8, reference=True)) for zero in plan.ZERO}
    single = held(Setting(known, everything, zero=0))
    assert single == {"weights": 4 * number, "optimizer": 8 * number, "gradient buffers": 0}
    assert at[0] == single | {"gradient buffers": 4 * number, "reference": 4 * number}
    assert at[1] == {"weights": 2 * number, "optimizer": 1.5 * number, "gradient buffers": 1e9, "reference": 2 * number}
    assert at[2] == at[1] | {"gradient buffers": 1e9 + number / 4}
    assert at[3] == at[2] | {"weights": number / 4, "reference": number / 4}


def test_gradients_of_a_step_under_each_stage_of_zero() -> None:
    known = PUBLISHED[SEVEN]
    everything = frozenset(layer.name for layer in layers(known))
    number = parameters(known)
    made = [step(Setting(known, everything, zero=zero, gpus=4))["gradients"] for zero in plan.ZERO]
    assert made == [4 * number, 2 * number + number, number, 4e9]


def test_the_cache_of_a_rollout_has_room_for_all_completions() -> None:
    known = PUBLISHED[SEVEN]
    work = Work(4000 * 4, 400, 4100, 200, 1, 8)
    made = rollout(Setting(known, frozenset(), zero=2, gpus=8), work)
    # beside them, in each step, those of one layer repeated for all heads: more than the prompt's own, which are gone
    assert made["keys and values"] == 28 * 2 * 4 * 128 * 2 * 8 * 4300
    assert made["activations"] == 2 * 28 * 128 * 2 * 8 * 4300
    gathered = rollout(Setting(known, frozenset(), zero=3, gpus=8), work)["gathered weights"]
    assert gathered == 2 * parameters(known)


def test_the_share_of_vllm_is_there_always_or_while_it_samples_or_elsewhere() -> None:
    recipe = load(["recipe=time_r1"], files=False)
    known, place = PUBLISHED[SEVEN], plan.Machine()
    clip = plan.largest(recipe.video, known)

    def found(**settings: object) -> Memory:
        stage = load(["recipe=time_r1"], files=False).stages["rl"]
        for name, value in ({"use_vllm": True, "vllm_gpu_memory_utilization": 0.25} | settings).items():
            setattr(stage, name, value)
        return plan.memory(recipe, stage, known, place, clip)

    share = 20 * plan.GIB
    assert found(vllm_enable_sleep_mode=False).held["vLLM"] == share
    asleep = found(vllm_enable_sleep_mode=True)
    assert asleep.rollout == {"vLLM": share} and "vLLM" not in asleep.held
    assert found(vllm_mode="server").rollout == {}
    assert found(use_vllm=False).rollout.keys() == {"keys and values", "inputs", "activations", "gathered weights"}


# --- what fits, and what to change


def a_plan(words: str) -> plan.Plan:
    place, seconds, rest = plan.machine(words.split())
    return plan.plan(load(rest, files=False), place, seconds=seconds)


@pytest.mark.parametrize(
    "words",
    [
        "recipe=time_r1 gpu_memory=24 stages.rl.lora=null",
        "recipe=time_r1 gpu_memory=32 zero=0",
        "recipe=time_r1 gpu_memory=24 gpus=1 zero=0 stages.rl.per_device_train_batch_size=32",
        "recipe=time_r1_3b gpu_memory=16 zero=2 stages.cold_start.gradient_checkpointing=false",
        "recipe=time_r1 gpu_memory=40 stages.rl.share_prefix=false stages.rl.gradient_checkpointing=false",
        "recipe=timelens_8b gpu_memory=48",
    ],
)
def test_the_remedy_makes_it_fit(words: str) -> None:
    first = a_plan(words)
    failing = [stage for stage in first.stages if not first.fits(stage)]
    assert failing
    for stage in failing:
        assert stage.remedy and stage.changes
        # words of the plan come last and win over those that were given
        cured = a_plan(f"{words} {' '.join(change.words for change in stage.remedy)} seconds={first.clip.seconds}")
        [after] = [each for each in cured.stages if each.name == stage.name]
        assert cured.fits(after)
        assert after.memory[cured.machine.zero].peak == pytest.approx(stage.remedy[-1].peak)


def test_a_single_change_leaves_what_it_says() -> None:
    words = "recipe=time_r1 gpu_memory=24 stages.rl.lora=null"
    [stage] = [each for each in a_plan(words).stages if each.name == "rl"]
    for change in stage.changes:
        after = a_plan(f"{words} {change.words} seconds=384")
        [changed] = [each for each in after.stages if each.name == "rl"]
        assert changed.memory[after.machine.zero].peak == pytest.approx(change.peak), change.words


def test_the_longest_video_fits_and_a_longer_one_does_not() -> None:
    words = "recipe=time_r1 gpu_memory=30"
    [_, stage] = a_plan(words).stages
    assert stage.longest is not None and 0 < stage.longest < 384
    at, beyond = (a_plan(f"{words} seconds={seconds}") for seconds in (stage.longest, 384))
    assert at.fits(at.stages[1]) and not beyond.fits(beyond.stages[1])
    assert at.stages[1].longest == beyond.stages[1].longest == stage.longest


SHIPPED = ("time_r1_charades_3b", "tempsamp_r1", "museg", "videochat_r1_joint", "timelens_8b", "timelens2")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_can_be_planned(name: str) -> None:
    found = a_plan(f"recipe={name}")
    text = plan.report(found)
    assert "nan" not in text and "inf" not in text
    assert [stage.name for stage in found.stages] == list(found.recipe.stages)


def test_a_shared_prompt_gains_what_the_operations_say() -> None:
    [_, stage] = a_plan("recipe=time_r1").stages
    counted = flops.update(PUBLISHED[SEVEN], stage.prompt, 8, 200, frame=60, frozen=True)
    assert stage.gain == pytest.approx(
        (counted.full_rows / counted.prefix_shared, counted.vision_shared / counted.prefix_shared)
    )
    assert stage.tokens == 8 * (stage.prompt - 1 + 8 * 200)


# --- words


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("gpus=eight", "gpus: got 'eight', allowed: 1 or more"),
        ("gpus=0", "gpus: got '0', allowed: 1 or more"),
        ("gpu_memory=inf", "gpu_memory: got 'inf', allowed: GiB of one GPU"),
        ("zero=4", "zero: got '4', allowed: 0 (DDP), 1, 2 or 3"),
        ("gpu=8", "gpu: unknown key"),
        ("model=Qwen/Nothing", "want a folder with its config.json, or one of Qwen/Qwen2-VL-2B-Instruct"),
    ],
)
def test_a_bad_word_is_one_sentence(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe=time_r1", word]) == 2
    assert said in capsys.readouterr().err


def test_a_configuration_of_another_model_is_refused() -> None:
    with pytest.raises(RecipeError, match="type 'llama' is not supported"):
        shape_of({"model_type": "llama"})
    with pytest.raises(RecipeError, match="does not say num_hidden_layers"):
        shape_of({"model_type": "qwen2_5_vl", "vision_config": load_config_of_tower()})


def load_config_of_tower() -> dict:
    return Qwen2_5_VLConfig().vision_config.to_dict()


def test_a_shape_is_read_where_the_text_part_stands_at_the_top() -> None:
    config = Qwen2_5_VLConfig().to_dict()
    text = config.pop("text_config")
    assert shape_of(text | config) == shape_of(Qwen2_5_VLConfig().to_dict())


def test_the_command_needs_no_torch_and_says_by_its_status_whether_it_fits() -> None:
    code = (
        "import sys; from rlvtg.cli import main; "
        "print(main(['plan', 'recipe=time_r1', 'gpus=8', 'gpu_memory=80']), main(['plan', 'recipe=time_r1', "
        "'gpu_memory=8']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 1 False"
    assert "ZeRO-3*" in done.stdout and "it does not fit" in done.stdout


# --- a run's warning


def test_a_run_is_warned_where_it_cannot_fit_and_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(["recipe=time_r1"], files=False)
    assert plan.warning(recipe, plan.Machine(8, 80.0, 3)) is None
    said = plan.warning(recipe, plan.Machine(8, 16.0, 0))
    assert said is not None and said.startswith("stages.cold_start needs about ") and "16.0 GiB" in said
    config = SimpleNamespace(to_dict=lambda: Qwen2_5_VLConfig().to_dict())
    assert run._too_large(recipe, config, SimpleNamespace(device=torch.device("cpu"))) is None
    small = SimpleNamespace(total_memory=16 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: small)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    state = SimpleNamespace(device=torch.device("cuda", 0), num_processes=4)
    place = plan.Machine(4, 16.0, 2)
    assert run._too_large(recipe, config, state) == plan.warning(recipe, place, shape_of(config.to_dict()))


def test_a_shape_of_the_benchmark_is_that_of_a_qwen2_5_vl() -> None:
    assert Shape(4, 256, 4, 2, 64, 688, 2048, 4, 128, 344, 2).gated_vision
