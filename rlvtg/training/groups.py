"""What GRPO makes of its groups beyond TRL: an expert among them, our advantages, and groups without variance.

The mechanisms are in modules of their own and know no trainer; here they meet TRL 1.16, whose methods are wrapped.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch
from accelerate.utils import gather, gather_object
from transformers import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import nanstd

from rlvtg.recipe import Expert
from rlvtg.reward import goes_by_spans
from rlvtg.rollout.engine import Sampled, unscored
from rlvtg.text.span import Span
from rlvtg.training.advantage import alike, batch_advantages
from rlvtg.training.early_stop import SPREAD
from rlvtg.training.experts import are_experts, controlled_reward, expert_tokens
from rlvtg.training.guard_rails import drift, span_statistics
from rlvtg.training.zero_variance import resample, weighed

Sample = Callable[[list[int], int], list[list[Sampled]]]
"""(prompts, by their number among those of the batch; n) -> n completions of each."""


@dataclass(frozen=True)
class _Scored:
    """A group with what its rewards said: G completions, rewards (G, R), columns for the log."""

    completions: list[Sampled]
    rewards: torch.Tensor
    columns: dict[str, list[Any]]


class GroupTrainer(GRPOTrainer):
    """`GRPOTrainer` with the following; in evaluation there is neither expert nor resampling nor dropping.

    With an expert, TRL's own metrics (`reward`, `rewards/*`, `completions/*`) stay what they are, over all completions
    and over rewards as they were earned. What the policy wrote has the same names behind `on_policy/`, and the experts
    `expert/reward_mean` (scaled and capped) and `expert/advantage_mean`. `completions/unparsed` and `spans/*` are about
    what the policy wrote, and of rows that some reward of theirs judges by spans; `reward_group_std`, the mean standard
    deviation within a group, is of what the policy wrote too. The log of completions has a column `expert`.
    `num_tokens` counts what was sampled again.

    Args:
        expert: the last completion of every training group is the row's annotation; the policy writes the others.
        expert_grammar: what the annotation is written in.
        advantage_eps: added to the standard deviation that divides an advantage.
        zero_variance: what becomes of groups whose rewards are all equal: "keep", "drop" or "resample".
        max_resamples: how often such a group is sampled again at most.
        reward_funcs: bound rewards (`rlvtg.reward.bind`).
        args, processing_class, kwargs: as for `GRPOTrainer`.
    """

    _pending_extra_logs: defaultdict[str, list[Any]]

    def __init__(
        self,
        model: Any,
        reward_funcs: list[Any],
        args: GRPOConfig,
        train_dataset: Any,
        *,
        processing_class: ProcessorMixin,
        expert: Expert | None = None,
        expert_grammar: str = "to",
        advantage_eps: float = 1e-4,
        zero_variance: str = "keep",
        max_resamples: int = 2,
        **kwargs: Any,
    ) -> None:
        self._expert = expert
        self._expert_grammar = expert_grammar
        self._advantage_eps = advantage_eps
        self._zero_variance = zero_variance
        self._max_resamples = max_resamples
        self._scored: list[_Scored] | None = None  # groups that were scored while they were sampled
        self._gathered = torch.zeros(0)  # rewards (N, R) of the generation batch, of all processes
        self._first_flat: list[bool] = []  # of this process's groups as they were first sampled, when resampling
        self._resampled = 0
        self._rewards = list(reward_funcs)
        self._thrown_tokens = 0  # of prompts and completions that this process sampled and put others in the place of
        if args.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError(
                f"multi_objective_aggregation is {args.multi_objective_aggregation!r}; advantages are made of the "
                "weighted sum of the rewards, sum_then_normalize"
            )
        super().__init__(model, reward_funcs, args, train_dataset, processing_class=processing_class, **kwargs)

    def _completed(self, rows: Sequence[Mapping[str, Any]], sample: Sample) -> list[Sampled]:
        """Completions of whole groups for `rows`, of which each prompt has G in a row."""
        is_training = self.model.training
        size = self.num_generations if is_training else self.num_generations_eval
        has_expert = self._expert is not None and is_training

        def groups(prompts: list[int]) -> list[list[Sampled]]:
            found = sample(prompts, size - has_expert)
            if has_expert:
                for prompt, group in zip(prompts, found, strict=True):
                    group.append(self._written(rows[prompt * size]))
            return found

        def again(prompts: list[int]) -> list[_Scored]:
            return self._score([list(rows[p * size : (p + 1) * size]) for p in prompts], groups(prompts))

        everything = list(range(len(rows) // size))
        if not is_training or self._zero_variance != "resample":
            return [one for group in groups(everything) for one in group]

        def is_flat(group: _Scored) -> bool:
            return self._is_flat(self._totals(group.rewards))

        first = again(everything)
        self._first_flat = [is_flat(group) for group in first]
        self._scored, self._resampled = resample(first, is_flat, again, self._largest, self._max_resamples)
        return [one for group in self._scored for one in group.completions]

    def _written(self, row: Mapping[str, Any]) -> Sampled:
        assert self._expert is not None
        tokenizer = self.processing_class.tokenizer
        return unscored(expert_tokens(row, self._expert_grammar, self._expert, tokenizer, self.max_completion_length))

    def _largest(self, number: int) -> int:
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    def _score(self, rows: Sequence[list[Any]], groups: list[list[Sampled]]) -> list[_Scored]:
        """The groups with their rewards; every process comes with as many."""
        size = len(groups[0])
        inputs = [row for group in rows for row in group]
        ids = [each.token_ids for group in groups for each in group]
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        pending, self._pending_extra_logs = self._pending_extra_logs, defaultdict(list)
        gathered = super()._calculate_rewards(inputs, [row["prompt"] for row in inputs], completions, ids)
        columns, self._pending_extra_logs = self._pending_extra_logs, pending
        own = gathered[self._own(gathered)]
        return [
            _Scored(
                group, own[k * size : (k + 1) * size],
                {name: values[k * size : (k + 1) * size] for name, values in columns.items()},
            )
            for k, group in enumerate(groups)
        ]  # fmt: skip

    def _own(self, gathered: torch.Tensor) -> slice:
        """Where this process's rows are among those of all processes."""
        count = len(gathered) // self.accelerator.num_processes
        return slice(self.accelerator.process_index * count, (self.accelerator.process_index + 1) * count)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        if self._expert is not None:
            self._log_completion_extra("expert", self._are_experts(len(inputs)))
        if self._scored is None:
            gathered = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        else:
            gathered = gather(torch.cat([group.rewards for group in self._scored]))
            for name in sorted({name for group in self._scored for name in group.columns}):
                for group in self._scored:
                    self._log_completion_extra(name, group.columns.get(name, [None] * len(group.completions)))
            self._scored = None
        self._require_finite(gathered, inputs)
        self._gathered = gathered
        return gathered

    def _are_experts(self, count: int) -> list[bool]:
        if self._expert is None or not self.model.training:
            return [False] * count
        return are_experts(count, self.num_generations)

    def _require_finite(self, gathered: torch.Tensor, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Raise in every process for a reward that would make its group's advantages meaningless; NaN is TRL's None."""
        for place, which in gathered.isinf().nonzero().tolist():
            ids = gather_object([row.get("id") for row in inputs])
            raise ValueError(
                f"reward {self.reward_func_names[which]} is {gathered[place, which]:g} for row {ids[place]!r}; "
                "want finite numbers or None"
            )

    def _log_answers(
        self, rows: Sequence[Mapping[str, Any]], spans: Sequence[list[Span]], completion_ids: Sequence[list[int]]
    ) -> None:
        """Metrics of what the policy wrote; TRL averages them over completions and processes."""
        experts = self._are_experts(len(rows))
        for row, found, ids, is_expert in zip(rows, spans, completion_ids, experts, strict=True):
            if is_expert:
                continue
            if goes_by_spans(self._rewards, row.get("task")):
                self._log_metric("completions/unparsed", float(not found))
                for name, value in span_statistics(found, row["spans"], row["duration"]).items():
                    self._log_metric(name, value)
            if self._expert is not None:
                self._log_metric("on_policy/completions/mean_length", float(len(ids)))
                self._log_metric("on_policy/completions/clipped_ratio", float(ids[-1] not in self._stops()))

    def _stops(self) -> list[int]:
        return [*self.eos_token_ids, self.processing_class.tokenizer.pad_token_id]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        is_training = self.model.training
        size = self.num_generations if is_training else self.num_generations_eval
        totals = self._totals(self._gathered)
        anchor = self._expert.anchor if self._expert is not None and is_training else None
        advantages = batch_advantages(
            totals, size, scale_rewards=self.scale_rewards, eps=self._advantage_eps, anchor=anchor
        )
        output["advantages"] = torch.tensor(advantages).to(output["advantages"])[self._own(self._gathered)]
        logged = self._logs["advantages"]
        for place in range(1, min(len(logged), len(advantages)) + 1):
            logged[-place] = advantages[-place]
        self._metrics["train" if is_training else "eval"][SPREAD].append(self._spread(totals, size))
        if not is_training:
            return output
        metrics = self._metrics["train"]
        flat = [self._is_flat(totals[start : start + size]) for start in range(0, len(totals), size)]
        if self._expert is not None:
            self._log_experts(metrics, totals, advantages)
        self._log_variance(metrics, flat)
        if self._zero_variance == "drop":
            kept = torch.tensor([not one for one in flat for _ in range(size)])[self._own(self._gathered)]
            mask = output["completion_mask"]
            output["kept"] = kept.to(mask.device)
            output["tokens"] = mask.sum(1)
            output["completion_mask"] = mask * output["kept"][:, None].to(mask)
        return output

    def _totals(self, rewards: torch.Tensor) -> list[float | None]:
        """Weighted sums of rewards (N, R) of whole groups, None where no reward applies; as the expert's count."""
        sums = (rewards * self.reward_weights.to(rewards.device)).nansum(1).tolist()
        nothing = rewards.isnan().all(1).tolist()
        totals = [None if none else total for none, total in zip(nothing, sums, strict=True)]
        if self._expert is None:
            return totals
        return [
            total if total is None or not is_expert else self._controlled(total)
            for total, is_expert in zip(totals, self._are_experts(len(totals)), strict=True)
        ]

    def _spread(self, totals: Sequence[float | None], size: int) -> float:
        """The mean over groups of the standard deviation of what the policy earned in each; NaN if none has one."""
        experts = self._are_experts(len(totals))
        earned = [
            float("nan") if total is None or is_expert else total
            for total, is_expert in zip(totals, experts, strict=True)
        ]
        return float(nanstd(torch.tensor(earned).view(-1, size), dim=1).nanmean())

    def _controlled(self, reward: float) -> float:
        assert self._expert is not None
        return controlled_reward(reward, scale=self._expert.scale, cap=self._expert.cap)

    def _is_flat(self, group: Sequence[float | None]) -> bool:
        """Whether no completion of a training group gets an advantage."""
        return alike(group[:-1] if self._expert is not None and self._expert.anchor is not None else group)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The parent's, with the drift of lengths and their ratio to the annotated ones, of what is logged together."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        lengths = "completions/mean_length" if self._expert is None else "on_policy/completions/mean_length"
        if self.model.training:
            for name, new in ((lengths, "completions/length_drift"), ("spans/length", "spans/length_drift")):
                ratio = drift(_mean(metrics.get(name)), name, self.state.log_history)
                if ratio is not None:
                    metrics[new] = [ratio]
        predicted, true = _mean(metrics.get("spans/length")), _mean(metrics.get("spans/true_length"))
        if predicted is not None and true:
            metrics["spans/length_ratio"] = [predicted / true]
        super().log(logs, start_time)

    def _log_experts(self, metrics: Any, totals: list[float | None], advantages: list[float]) -> None:
        is_expert = torch.tensor(self._are_experts(len(totals)), device=self._gathered.device)
        numbers = torch.tensor([float("nan") if total is None else total for total in totals], device=is_expert.device)
        metrics["expert/reward_mean"].append(numbers[is_expert].nanmean().item())
        metrics["expert/advantage_mean"].append(torch.tensor(advantages)[is_expert.cpu()].mean().item())
        own = {f"rewards/{name}/": self._gathered[:, k] for k, name in enumerate(self.reward_func_names)}
        for name, values in own.items():
            metrics[f"on_policy/{name}mean"].append(values[~is_expert].nanmean().item())
            metrics[f"on_policy/{name}std"].append(_deviation(values[~is_expert]))
        metrics["on_policy/reward"].append(numbers[~is_expert].nanmean().item())
        metrics["on_policy/reward_std"].append(_deviation(numbers[~is_expert]))

    def _log_variance(self, metrics: Any, flat: list[bool]) -> None:
        """Fractions of the groups, as first sampled and as they go into the loss, and how many were sampled again."""
        if self._zero_variance == "resample":
            here = [sum(self._first_flat), len(self._first_flat), self._resampled, self._thrown_tokens]
            counts = torch.tensor(here, dtype=torch.float64, device=self.accelerator.device)
            first, groups, resampled, thrown = self.accelerator.reduce(counts, reduction="sum").tolist()
            metrics["zero_variance/resamples"].append(resampled)
            metrics["zero_variance/before"].append(first / groups)
            self.state.num_input_tokens_seen += int(thrown)
            metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        else:
            metrics["zero_variance/before"].append(sum(flat) / len(flat))
        metrics["zero_variance/after"].append(0.0 if self._zero_variance == "drop" else sum(flat) / len(flat))

    def _weighed(self, micro_batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The micro-batches of a generation batch, each told by how much to scale its loss for the dropped groups."""
        if self._zero_variance != "drop":
            return micro_batches
        here = weighed(micro_batches, self.loss_type)
        amounts = torch.tensor(here, dtype=torch.float32, device=self.accelerator.device)
        whole, kept = self.accelerator.reduce(amounts, reduction="sum").tolist()
        factor = torch.tensor(whole / kept if kept else 1.0, device=self.accelerator.device)
        return [{**micro_batch, "loss_factor": factor} for micro_batch in micro_batches]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss * inputs["loss_factor"] if "loss_factor" in inputs else loss


def _mean(values: list[float] | None) -> float | None:
    known = [value for value in values or [] if not isnan(value)]
    return sum(known) / len(known) if known else None


def _deviation(values: torch.Tensor) -> float:
    """The unbiased standard deviation of what is not NaN; NaN of fewer than two."""
    return values[~values.isnan()].std().item()
