"""GRPO with video prompts, on TRL's `GRPOTrainer`. This file and groups.py alone touch its internals.

TRL 1.16 knows no video: a video written into a prompt reaches its rollout and not its loss. Here a row holds the path
of its video; the encoder turns it into the same inputs for rollout and for old, reference and policy
log-probabilities. The parent's methods are wrapped, never rewritten.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from rlvtg.model.inputs import Encoder, Inputs, batch
from rlvtg.model.load import prepare
from rlvtg.model.prefix_attention import obstacle
from rlvtg.recipe import GrpoStage, Recipe, RecipeError, many_calls
from rlvtg.reward import NOT_PASSED, Reward
from rlvtg.rollout.client import OneForAll
from rlvtg.rollout.engine import Engine, Sampled, unscored
from rlvtg.rollout.hf import rollout
from rlvtg.text.grammar import grammar
from rlvtg.text.span import snapped
from rlvtg.training.early_stop import StoppingTrainer
from rlvtg.training.engine_rollout import EngineRollout, engine_of
from rlvtg.training.experts import expert_tokens
from rlvtg.training.groups import GroupTrainer
from rlvtg.training.prefix import at_least, packed, slices, unpacked
from rlvtg.training.sampler import GroupSampler, Order, order_of, shuffled
from rlvtg.training.setup import generating, keep_features, lora_config, trainable_model, training_arguments

TOLERANCE = 1e-4
"""Of log-probabilities in float32, with a shared prompt and without."""
COARSE_TOLERANCE = 0.3
"""The same in bfloat16 or float16, whose rounding depends on how rows are batched."""
ENGINE_TOLERANCE = 1e-3
"""Of the log-probability of any token that vLLM sampled in float32."""
COARSE_ENGINE_TOLERANCE = 0.1
"""Of their mean in bfloat16 or float16, where single tokens may differ by much more."""


class VideoGRPOTrainer(StoppingTrainer, GroupTrainer):
    """`GroupTrainer` for rows with a `video` column.

    Args:
        encoder: turns a row into the inputs of its prompt.
        grammar_name: how spans are read from completions for the log.
        snap_spans: reward against true spans that are widened to the times of the video's temporal patches.
        share_prefix: run a prompt once for its group in every log-probability pass (`rlvtg.training.prefix`), which
            needs sdpa attention and no dropout; otherwise once for every completion. The numbers are the same, which
            is checked on the first group of a run and logged as `shared_prefix/difference`.
        max_tokens_per_forward: a micro-batch of more tokens, with its prompts shared, is run in several calls.
        order: the rows of an epoch (`rlvtg.training.sampler`); None is all of them, shuffled.
        engine: samples the completions (`rlvtg.rollout.engine`); None is Hugging Face's `generate`.
        vllm_tolerance: by how much the engine's log-probabilities may differ from the policy's. They are compared at
            every rollout, when both have the same weights: those of any token in float32, their mean otherwise.
        model, reward_funcs, args, train_dataset, kwargs: as for `GroupTrainer`. `args.per_device_train_batch_size` is a
            multiple of `args.num_generations`: a group is kept whole.
    """

    _buffered_inputs: list[dict[str, Any]]

    def __init__(
        self,
        model: PreTrainedModel,
        reward_funcs: list[Any],
        args: GRPOConfig,
        train_dataset: Dataset,
        *,
        encoder: Encoder,
        grammar_name: str,
        snap_spans: bool = False,
        share_prefix: bool = True,
        max_tokens_per_forward: int | None = None,
        order: Order | None = None,
        engine: Engine | OneForAll | None = None,
        vllm_tolerance: float | None = None,
        **kwargs: Any,
    ) -> None:
        if args.per_device_train_batch_size % args.num_generations:
            raise ValueError(
                f"per_device_train_batch_size is {args.per_device_train_batch_size}, which num_generations "
                f"{args.num_generations} does not divide: groups are kept whole on a device"
            )
        self.encoder = encoder
        self.share_prefix = share_prefix
        self.max_tokens_per_forward = max_tokens_per_forward
        self._must_check = share_prefix
        self._order = shuffled(len(train_dataset)) if order is None else order
        self.snap_spans = snap_spans
        self._grammar = grammar(grammar_name)
        self._rows: Sequence[Mapping[str, Any]] = []  # rows of the generation batch that is being made
        self._prompts: list[Inputs] = []  # inputs of the rows in the pass that is running
        with warnings.catch_warnings():
            # the versions of TRL are pinned to a minor release, and its signatures are held by a test
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'", category=UserWarning)
            super().__init__(
                model,
                reward_funcs,
                args,
                train_dataset,
                processing_class=encoder.processor,
                rollout_func=self._rollout,
                expert_grammar=grammar_name,
                **kwargs,
            )
        if max_tokens_per_forward is not None and self.accelerator.num_processes > 1 and _is_reentrant(args):
            # what the recipe says was checked with it; TRL makes it reentrant for LoRA with ZeRO-3
            said = many_calls(max_tokens_per_forward, self.accelerator.num_processes)
            raise RecipeError(f"{said} (TRL makes it true for LoRA with ZeRO-3)")
        if self.ref_model is not None:
            prepare(self.accelerator.unwrap_model(self.ref_model))
        for held in (self.model, self.ref_model) if share_prefix else ():
            if held is not None and (reason := obstacle(held)):
                raise ValueError(f"the model cannot share a prompt: {reason}, or share_prefix false")
        self._vllm_tolerance = vllm_tolerance
        self._must_compare = True
        if engine is not None:
            if self.is_fsdp_enabled:
                raise RecipeError("use_vllm: got true under FSDP, whose shards are not gathered; want DDP or DeepSpeed")
            # TRL was not asked to start vLLM in its own way, and from here on does everything else as with its own
            self.vllm_generation = EngineRollout(engine, self.accelerator.unwrap_model(self.model), encoder)
            self.use_vllm, self._last_loaded_step = True, -1

    def get_train_dataloader(self) -> DataLoader[Any]:
        # rows hold no tensors; looking for some in G copies of each would take longer than encoding the prompts
        placed, self.accelerator.device_placement = self.accelerator.device_placement, False
        try:
            return super().get_train_dataloader()
        finally:
            self.accelerator.device_placement = placed

    def _get_train_sampler(self, dataset: Dataset | None = None) -> GroupSampler:
        return GroupSampler(
            self._order,
            prompts=self.args.generation_batch_size // self.num_generations,
            num_generations=self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def _rollout(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        """TRL's rollout hook: each prompt comes G times in a row; it is encoded, prefilled and then sampled G times."""
        group = self.num_generations if self.model.training else self.num_generations_eval
        self._prompts = [prompt for row in self._rows[::group] for prompt in [self.encoder(row)] * group]
        micro = max(1, self.args.per_device_train_batch_size // group)  # prompts that fit the device together
        unique = self._prompts[::group]
        sampled = 0  # tokens, of prompts and completions

        def sample(prompts: list[int], count: int) -> list[list[Sampled]]:
            nonlocal sampled
            if self.use_vllm:
                groups = self.vllm_generation.sample(
                    [self._rows[prompt * group] for prompt in prompts],
                    [unique[prompt] for prompt in prompts],
                    n=count,
                    temperature=self.temperature,
                    max_tokens=self.max_completion_length,
                    stop_token_ids=self.eos_token_ids,
                )
            else:
                groups = sample_here(prompts, count)
            sampled += sum(len(one.token_ids) for made in groups for one in made)
            sampled += count * sum(len(unique[prompt].input_ids) for prompt in prompts)
            return groups

        def sample_here(prompts: list[int], count: int) -> list[list[Sampled]]:
            made: list[list[int]] = []
            with generating(self) as model:
                for start in range(0, len(prompts), micro):
                    some = [unique[prompt] for prompt in prompts[start : start + micro]]
                    made += rollout(model, some, self.generation_config, num_generations=count)
            return [list(map(unscored, made[start : start + count])) for start in range(0, len(made), count)]

        prompt_ids = [prompt.input_ids.tolist() for prompt in self._prompts]
        completions = self._completed(self._rows, sample)
        if self.use_vllm:
            self.vllm_generation.rest()
        completion_ids = [completion.token_ids for completion in completions]
        written = zip(prompt_ids, completion_ids, self._are_experts(len(prompt_ids)), strict=True)
        self._thrown_tokens = sampled - sum(len(asked) + len(ids) for asked, ids, expert in written if not expert)
        logprobs = [completion.logprobs for completion in completions] if self.use_vllm else None
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": logprobs}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.snap_spans:
            inputs = [{**row, "spans": self._snapped(row)} for row in inputs]
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        # a list with one entry per row goes through TRL's shuffling and splitting unharmed; flat pixels would not
        output["prompts"] = self._prompts
        if self._must_check and self.model.training:
            self._check_shared_prompt(output)
            self._must_check = False
        if self.use_vllm and self.model.training:
            self._check_engine(output)
        # the log holds prompts as they are read; wandb's tables refuse TRL's, where a video is a part without text
        logged = self._logs["prompt"]
        for index, messages in enumerate(logged):
            logged[index] = [{**message, "content": _readable(message["content"])} for message in messages]
        return output

    def _snapped(self, row: Mapping[str, Any]) -> list[list[float]]:
        stamps = self.encoder.stamps(row)
        return [list(snapped((start, end), stamps)) for start, end in row["spans"]]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        spans = [
            self._grammar.parse(completion[0]["content"], row["duration"])
            for completion, row in zip(completions, inputs, strict=True)
        ]
        # all that a reward may ask for, so that any reward can be tried on the log (`rlvtg reward`)
        for column in inputs[0].keys() - set(NOT_PASSED):
            self._log_completion_extra(column, [row[column] for row in inputs])
        self._log_completion_extra("predicted", [[list(span) for span in found] for found in spans])
        self._log_answers(inputs, spans, completion_ids_list)
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def between_batches(self) -> bool:
        return self._step % (self.args.steps_per_generation * self.num_iterations) == 0

    def progress(self) -> dict[str, Any]:
        tables = {name: {key: list(value) for key, value in self._logs[name].items()} for name in ("rewards", "extra")}
        lists = {name: list(self._logs[name]) for name in ("prompt", "completion", "advantages")}
        return super().progress() | {"completions": lists | tables}

    def recall(self, kept: Mapping[str, Any]) -> None:
        super().recall(kept)
        for name, logged in kept["completions"].items():
            for key, values in logged.items() if isinstance(logged, dict) else ():
                self._logs[name][key].extend(values)
            if isinstance(logged, list):
                self._logs[name].extend(logged)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        # a reward that applied to no row has nothing to log; TRL would log None, which TensorBoard refuses
        for name in [name for name, values in metrics.items() if all(map(math.isnan, values))]:
            del metrics[name]
        super().log(logs, start_time)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self.model.training and self._buffered_inputs is not before:
            self._buffered_inputs = self._weighed(whole_groups(self._buffered_inputs))
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._prompts = inputs["prompts"]
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The parent's log-probabilities, of a model that is also given the videos and positions of its rows."""
        pad_token_id = self.processing_class.tokenizer.pad_token_id
        done = 0

        def with_video(**call: Any) -> Any:
            nonlocal done
            ids, mask = call["input_ids"], call["attention_mask"]
            rows = self._prompts[done : done + len(ids)]
            done += len(ids)
            width = ids.shape[1] - logits_to_keep
            completions, completion_mask = ids[:, width:], mask[:, width:]
            given = ids[:, :width][mask[:, :width].bool()].tolist()
            if given != [token for row in rows for token in row.input_ids.tolist()]:
                raise RuntimeError("the prompts of a log-probability pass are not those of the rollout")
            if self.share_prefix:
                return self._with_shared_prompts(model, rows, completions, completion_mask)
            ours = batch(rows, completions, completion_mask, pad_token_id=pad_token_id, prompt_length=width)
            return model(**(call | ours))

        return super()._get_per_token_logps_and_entropies(
            with_video, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )

    def _with_shared_prompts(
        self, model: Any, rows: Sequence[Inputs], completions: torch.Tensor, completion_mask: torch.Tensor
    ) -> Any:
        """The model's output with log-probabilities and entropies (B, C), from one call or, over budget, several."""
        video_token_id = self.encoder.family.video_token_id
        dealt = [list(range(len(rows)))]
        if self.max_tokens_per_forward is not None:
            dealt = slices(rows, completion_mask, self.max_tokens_per_forward, video_token_id=video_token_id)
            # DDP and ZeRO-3 want as many calls from every process
            most = self.accelerator.gather(torch.tensor([len(dealt)], device=completions.device)).max()
            dealt = at_least(dealt, int(most))
        log_probs, entropies = [], []
        for part in dealt:
            call, places = packed(
                [rows[row] for row in part], completions[part], completion_mask[part], video_token_id=video_token_id
            )
            made = model(**call, fused_lm_head=True)
            log_probs.append(unpacked(made.log_probs, places))
            entropies.append(unpacked(made.entropy, places))
        order = torch.tensor([row for part in dealt for row in part], device=completions.device).argsort()
        made.log_probs = torch.cat(log_probs)[order]
        made.entropy = None if made.entropy is None else torch.cat(entropies)[order]
        return made

    def _check_shared_prompt(self, output: dict[str, Any]) -> None:
        """The first group's log-probabilities with its prompt shared and without, row by row; the difference is logged.

        Raises:
            RuntimeError: they differ by more than rounding.
        """
        shared, alive = self._of_first_group(output)
        self.share_prefix = False
        alone, _ = self._of_first_group(output, batch_size=1)
        self.share_prefix = True
        differences = self.accelerator.gather(((shared - alone) * alive).abs().max()[None])
        difference = float(differences.max())
        if self.state.global_step == 0:  # a run that goes on from a checkpoint logs what it would have logged unkilled
            self._metrics["train"]["shared_prefix/difference"].append(difference)
        tolerance = TOLERANCE if self._is_exact() else COARSE_TOLERANCE
        if not difference <= tolerance:
            raise RuntimeError(
                f"log-probabilities with a shared prompt differ by {difference:.2g} from those without, tolerance "
                f"{tolerance:g}; nothing is trained; set share_prefix to false and report this"
            )

    def _is_exact(self) -> bool:
        return self.model.dtype == torch.float32 and self.accelerator.mixed_precision == "no"

    def _of_first_group(
        self, output: dict[str, Any], batch_size: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy's log-probabilities (G, C) of the first group of a rollout, and where there are tokens."""
        first = [prompt is self._prompts[0] for prompt in self._prompts]
        group = first.index(False) if False in first else len(first)
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)[:group]
        # a completion that the loss leaves out is still a completion to compare
        written = output["completion_ids"][:group] != self.processing_class.tokenizer.pad_token_id
        alive = written.flip(1).long().cummax(1).values.flip(1)
        mask = torch.cat([output["prompt_mask"][:group], alive.to(output["prompt_mask"])], dim=1)
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            found, _, _ = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, alive.shape[1], batch_size=batch_size or group
            )
        return found, alive

    def _check_engine(self, output: dict[str, Any]) -> None:
        """Hold the log-probabilities that vLLM sampled with against the policy's, of the same weights; log both.

        TRL compares and logs those that count in the loss, where it corrects for the difference. The first rollout of a
        run has its first group compared whatever counts, and without a correction so has every rollout.

        Raises:
            RuntimeError: they differ by more than the tolerance.
        """
        names = [f"sampling/sampling_logp_difference/{which}" for which in ("mean", "max")]
        metrics = self._metrics["train"]
        is_corrected = self.vllm_importance_sampling_correction
        compared = [[metrics[name][-1] for name in names]] if is_corrected else []
        if self._must_compare or not is_corrected:
            found, alive = self._of_first_group(output)
            sampled = output["sampling_per_token_logps"][: len(found)]
            known = alive.bool() & ~sampled.isnan()  # an expert was not sampled
            apart = (found - sampled)[known].abs()
            here = torch.stack([apart.sum(), apart.new_tensor(apart.numel()), apart.max()])
            everywhere = self.accelerator.gather(here[None])
            mean = float(everywhere[:, 0].sum() / everywhere[:, 1].sum())
            compared.append([mean, float(everywhere[:, 2].max())])
            self._must_compare = False
        if not is_corrected:
            for name, value in zip(names, compared[-1], strict=True):
                metrics[name].append(value)
        exact = self._is_exact() and self.vllm_generation.is_exact
        tolerance = self._vllm_tolerance or (ENGINE_TOLERANCE if exact else COARSE_ENGINE_TOLERANCE)
        difference = max(most if exact else mean for mean, most in compared)
        if not difference <= tolerance:
            raise RuntimeError(
                f"vLLM sampled with log-probabilities that differ from the policy's by {difference:.2g} "
                f"{'at most' if exact else 'on average'}, tolerance {tolerance:g} (vllm_tolerance), right after it was "
                "given the policy's weights: it has other weights, frames or positions; the run stops here"
            )


def _is_reentrant(args: GRPOConfig) -> bool:
    return args.gradient_checkpointing and bool((args.gradient_checkpointing_kwargs or {}).get("use_reentrant"))


def _readable(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content)


def whole_groups(micro_batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of TRL's shuffled micro-batches, dealt out again so that each micro-batch holds whole groups.

    Groups follow each other in the order in which the shuffle brought the first rows about their videos, then their own
    first rows. Values are tensors or lists with one entry per row, or scalars for the whole batch.
    """
    owners = [prompt for micro_batch in micro_batches for prompt in micro_batch["prompts"]]
    videos: dict[int, int] = {}
    groups: dict[int, int] = {}
    for owner in owners:
        videos.setdefault(id(owner.video), len(videos))
        groups.setdefault(id(owner), len(groups))
    order = sorted(range(len(owners)), key=lambda row: (videos[id(owners[row].video)], groups[id(owners[row])]))
    size = len(owners) // len(micro_batches)
    dealt = [order[start : start + size] for start in range(0, len(order), size)]
    return [{key: _pick([micro[key] for micro in micro_batches], rows) for key in micro_batches[0]} for rows in dealt]


def _pick(pieces: list[Any], rows: list[int]) -> Any:
    """Rows of a value that is spread over micro-batches; scalars and None are the same in all of them."""
    if pieces[0] is None or (isinstance(pieces[0], torch.Tensor) and pieces[0].ndim == 0):
        return pieces[0]
    if isinstance(pieces[0], torch.Tensor):
        return torch.cat(pieces)[rows]
    whole = [entry for piece in pieces for entry in piece]
    return [whole[row] for row in rows]


def grpo_trainer(
    recipe: Recipe,
    stage: GrpoStage,
    rows: Sequence[Mapping[str, Any]],
    rewards: list[Reward],
    path: str,
    encoder: Encoder,
    folder: str,
    order: Order | None = None,
) -> VideoGRPOTrainer:
    """The trainer of one GRPO stage; nothing is trained yet.

    Args:
        recipe: machine facts, grammar and seed.
        stage: the stage, which states its whole objective.
        rows: dataset rows; their columns are what the rewards were bound to.
        rewards: bound rewards.
        path: the model to start from, a folder or a hub id; with `beta` above 0 it is the reference too.
        encoder: the run's encoder.
        folder: where checkpoints, logs and completions go.
        order: the rows of an epoch; None is what the stage says of tasks and `queries_per_video`.
    """
    arguments = GRPOConfig(
        **training_arguments(recipe, stage, folder),
        num_generations=stage.num_generations,
        beta=stage.beta,
        loss_type=stage.loss_type,
        scale_rewards=stage.scale_rewards,
        epsilon=stage.epsilon,
        epsilon_high=stage.epsilon_high,
        num_iterations=stage.num_iterations,
        temperature=stage.temperature,
        top_p=stage.top_p,
        top_k=stage.top_k or 0,
        max_completion_length=stage.max_completion_length,
        steps_per_generation=stage.steps_per_generation,
        mask_truncated_completions=stage.mask_truncated_completions,
        importance_sampling_level=stage.importance_sampling_level,
        reward_weights=[reward.weight for reward in rewards],
        log_completions=True,
        num_completions_to_print=0,
        # `use_vllm` stays false: the engine is started here, for videos
        vllm_importance_sampling_correction=stage.vllm_importance_sampling_correction,
        vllm_importance_sampling_mode=stage.vllm_importance_sampling_mode,
        vllm_importance_sampling_clip_max=stage.vllm_importance_sampling_clip_max,
        vllm_importance_sampling_clip_min=stage.vllm_importance_sampling_clip_min,
    )
    if stage.expert is not None:  # an expert that is too long is found before the model is loaded
        for row in rows:
            expert_tokens(row, recipe.grammar, stage.expert, encoder.processor.tokenizer, stage.max_completion_length)
    model = trainable_model(recipe, stage, path)
    trainer = VideoGRPOTrainer(
        model,
        list(rewards),
        arguments,
        Dataset.from_list([dict(row) for row in rows]),
        encoder=encoder,
        grammar_name=recipe.grammar,
        snap_spans=stage.snap_spans,
        share_prefix=stage.share_prefix,
        max_tokens_per_forward=stage.max_tokens_per_forward,
        expert=stage.expert,
        advantage_eps=stage.advantage_eps,
        zero_variance=stage.zero_variance,
        max_resamples=stage.max_resamples,
        order=order_of(stage, rows) if order is None else order,
        engine=engine_of(recipe, stage, path, encoder) if stage.use_vllm else None,
        vllm_tolerance=stage.vllm_tolerance,
        peft_config=lora_config(stage, model),
    )
    if encoder.features is not None:
        keep_features(trainer, encoder.features)
    return trainer
