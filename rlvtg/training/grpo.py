"""GRPO with video prompts, on TRL's `GRPOTrainer`. The only file that touches its internals.

TRL 1.16 knows no video: a video written into a prompt reaches its rollout and not its loss. Here a row holds the path
of its video; the encoder turns it into the same inputs for rollout and for old, reference and policy
log-probabilities. The parent's methods are wrapped, never rewritten.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from rlvtg.model.inputs import Encoder, Inputs, batch
from rlvtg.model.load import prepare
from rlvtg.recipe import GrpoStage, Recipe
from rlvtg.reward import NOT_PASSED, Reward
from rlvtg.rollout.hf import rollout
from rlvtg.text.grammar import grammar
from rlvtg.text.span import snapped
from rlvtg.training.prefix import packed, unpacked
from rlvtg.training.resume import ResumingTrainer
from rlvtg.training.setup import generating, keep_features, lora_config, trainable_model, training_arguments


class VideoGRPOTrainer(ResumingTrainer, GRPOTrainer):
    """`GRPOTrainer` for rows with a `video` column.

    Args:
        encoder: turns a row into the inputs of its prompt.
        grammar_name: how spans are read from completions for the log.
        snap_spans: reward against true spans that are widened to the times of the video's temporal patches.
        share_prefix: run a prompt once for its group in every log-probability pass (`rlvtg.training.prefix`), which
            needs sdpa or eager attention and no dropout; otherwise once for every completion. The numbers are the same.
        model, reward_funcs, args, train_dataset, kwargs: as for `GRPOTrainer`. `args.per_device_train_batch_size` is a
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
        **kwargs: Any,
    ) -> None:
        if args.per_device_train_batch_size % args.num_generations:
            raise ValueError(
                f"per_device_train_batch_size is {args.per_device_train_batch_size}, which num_generations "
                f"{args.num_generations} does not divide: groups are kept whole on a device"
            )
        self.encoder = encoder
        self.share_prefix = share_prefix
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
                **kwargs,
            )
        if self.ref_model is not None:
            prepare(self.accelerator.unwrap_model(self.ref_model))

    def _rollout(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        """TRL's rollout hook: each prompt comes G times in a row; it is encoded, prefilled and then sampled G times."""
        group = self.num_generations if self.model.training else self.num_generations_eval
        self._prompts = [prompt for row in self._rows[::group] for prompt in [self.encoder(row)] * group]
        micro = max(1, self.args.per_device_train_batch_size // group)  # prompts that fit the device together
        unique = self._prompts[::group]
        completion_ids: list[list[int]] = []
        with generating(self) as model:
            for start in range(0, len(unique), micro):
                completion_ids += rollout(
                    model, unique[start : start + micro], self.generation_config, num_generations=group
                )
        return {
            "prompt_ids": [prompt.input_ids.tolist() for prompt in self._prompts],
            "completion_ids": completion_ids,
            "logprobs": None,
        }

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.snap_spans:
            inputs = [{**row, "spans": self._snapped(row)} for row in inputs]
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        # a list with one entry per row goes through TRL's shuffling and splitting unharmed; flat pixels would not
        output["prompts"] = self._prompts
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
        self._log_metric("completions/unparsed", sum(not found for found in spans) / len(spans))
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self.model.training and self._buffered_inputs is not before:
            self._buffered_inputs = whole_groups(self._buffered_inputs)
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
            if not self.share_prefix:
                ours = batch(rows, completions, completion_mask, pad_token_id=pad_token_id, prompt_length=width)
                return model(**(call | ours))
            made = model(**packed(rows, completions, completion_mask, pad_token_id=pad_token_id), fused_lm_head=True)
            made.log_probs = unpacked(made.log_probs, completions)
            made.entropy = unpacked(made.entropy, completions)
            return made

        return super()._get_per_token_logps_and_entropies(
            with_video, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )


def _readable(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content)


def whole_groups(micro_batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of TRL's shuffled micro-batches, dealt out again so that each micro-batch holds whole groups.

    Groups follow each other in the order in which the shuffle brought their first rows. Values are tensors or lists
    with one entry per row, or scalars for the whole batch.
    """
    owners = [prompt for micro_batch in micro_batches for prompt in micro_batch["prompts"]]
    first_seen: dict[int, int] = {}
    for owner in owners:
        first_seen.setdefault(id(owner), len(first_seen))
    order = sorted(range(len(owners)), key=lambda index: first_seen[id(owners[index])])
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
    )
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
        peft_config=lora_config(stage, model),
    )
    if encoder.features is not None:
        keep_features(trainer, encoder.features)
    return trainer
