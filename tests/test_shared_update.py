"""TRL's own losses over a shared prompt: the loss, metrics and gradients of full rows, whatever the objective.

The policy has moved on from its rollout, so that ratios, clipping and the distance from the reference all take part.
"""

import pytest
import torch

from rlvtg.recipe import LOSS_TYPES, Lora
from tests.test_grpo import G, a_trainer, saved
from tests.tiny_qwen import row

__all__ = ["saved"]

WHOLE = {"luspo": "sequence"}  # what TRL wants of the importance sampling of each loss


def buffered(trainer):
    """One generation batch as the trainer makes it, and a policy that is no longer the one that wrote it."""
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(2)
    trainer._train_dataloader = None
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    # completions of every length, and one that was left out as a whole because it was cut
    lengths = torch.tensor([8, 3, 0, 5, 1, 8, 6, 2])
    inputs["completion_mask"] *= (torch.arange(8) < lengths[:, None]).long()
    torch.manual_seed(5)
    with torch.no_grad():
        for value in trainer.model.parameters():
            if value.requires_grad:
                value += 0.02 * torch.randn_like(value)
    trainer.current_gradient_accumulation_steps = 1
    return inputs


def learned(trainer, inputs, *, share_prefix, budget=None):
    """Loss, gradients and what the loss logs."""
    trainer.share_prefix, trainer.max_tokens_per_forward = share_prefix, budget
    trainer._metrics["train"].clear()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    logged = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    found = {name: value.grad.clone() for name, value in trainer.model.named_parameters() if value.grad is not None}
    return float(loss.detach()), found, logged


def assert_equal(trainer, inputs):
    loss, gradients, logged = learned(trainer, inputs, share_prefix=False)
    assert {"entropy"} <= set(logged)
    assert all(value.any() for name, value in gradients.items() if "lora_A" in name or "q_proj.weight" in name)
    for budget in (None, 60):
        ours, found, said = learned(trainer, inputs, share_prefix=True, budget=budget)
        assert abs(ours - loss) < 1e-5
        assert said == pytest.approx(logged, abs=1e-4)
        assert found.keys() == gradients.keys()
        wrong = [
            name for name, value in gradients.items() if not (found[name] - value).norm() <= 1e-4 * value.norm() + 1e-9
        ]
        assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_loss_gives_the_gradients_of_full_rows(saved, tmp_path, monkeypatch, loss_type):
    trainer = a_trainer(
        saved,
        tmp_path,
        monkeypatch,
        loss_type=loss_type,
        importance_sampling_level=WHOLE.get(loss_type, "token"),
        beta=0.1,
        num_iterations=2,
    )
    inputs = buffered(trainer)
    assert inputs["old_per_token_logps"] is not None and inputs["ref_per_token_logps"] is not None
    assert_equal(trainer, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [None, False, True], ids=["no checkpointing", "checkpointing", "reentrant"])
@pytest.mark.parametrize(
    "changes",
    [
        {"lora": Lora(r=4, lora_alpha=8)},
        {"freeze": ["visual"]},
        {"importance_sampling_level": "sequence"},
        {"queries_per_video": 2},
    ],
    ids=["lora", "frozen tower", "sequence ratio", "two levels"],
)
def test_every_way_of_training_gives_the_gradients_of_full_rows(saved, tmp_path, monkeypatch, changes, reentrant):
    rows = None
    if "queries_per_video" in changes:
        rows = [row(video, query) for query in ("red", "a blue circle") for video in saved[2]]
    if reentrant is not None:
        changes = changes | {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": reentrant},
        }
    trainer = a_trainer(saved, tmp_path, monkeypatch, rows=rows, beta=0.1, num_iterations=2, **changes)
    inputs = buffered(trainer)
    assert len(inputs["prompts"]) == 2 * G
    if rows is not None:
        assert len({id(prompt.video) for prompt in inputs["prompts"]}) == 1
    assert_equal(trainer, inputs)
