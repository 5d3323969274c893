"""One of two processes that train together: `python -m tests.two_processes MODEL_AND_VIDEOS PLACE`.

Every group has an expert, and the first process's group gets equal rewards the first two times that it is sampled.
"""

import json
import os
import sys
from pathlib import Path

from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_processor
from rlvtg.recipe import Expert, GrpoStage, Recipe, RewardSpec
from rlvtg.reward import bind
from rlvtg.training import grpo
from tests.tiny_qwen import row, video_settings

REWARD = """
import os

calls = []

def ranked(completions, **_):
    calls.append(len(completions))
    equal = os.environ["RANK"] == "0" and len(calls) <= 2
    return [0.5 if equal else float(place) for place in range(len(completions))]
"""


def main(saved: Path, place: Path, zero_variance: str) -> None:
    """Train one step, and write what this process did to `place`."""
    rank = os.environ["RANK"]
    file = place / f"reward_{rank}.py"
    file.write_text(REWARD)
    stage = GrpoStage(
        kind="grpo", data="rl", learning_rate=1e-3, lr_scheduler_type="constant", per_device_train_batch_size=4,
        max_steps=1, rewards={f"{file}:ranked": RewardSpec()}, num_generations=4, beta=0.0, loss_type="grpo",
        scale_rewards="group", epsilon=0.2, num_iterations=1, temperature=1.0, max_completion_length=32,
        expert=Expert("<answer>{spans}</answer>"), zero_variance=zero_variance, max_resamples=4,
    )  # fmt: skip
    model = str(saved / "model")
    recipe = Recipe(name="test", model=model, bf16=False, use_cpu=True, report_to=[], grammar="to")
    rows = [row(str(video)) for video in sorted(saved.glob("*.mp4"))[:2]]
    encoder = Encoder(load_processor(model), family(load_config(model)), video_settings(1.0))
    rewards = bind(stage.rewards, rows[0].keys(), grammar="to")
    trainer = grpo.grpo_trainer(recipe, stage, rows, rewards, model, encoder, str(place / "out"))
    sampled = []
    plain = grpo.rollout

    def recorded(model, prompts, config, *, num_generations):
        sampled.append((len(prompts), num_generations))
        return plain(model, prompts, config, num_generations=num_generations)

    grpo.rollout = recorded
    trainer.train()
    grpo.rollout = plain
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    weights = [float(value.detach().double().sum()) for value in trainer.model.parameters()]
    [batch] = trainer._buffered_inputs
    told = {
        "log": {name: log[name] for name in log if name.startswith(("zero_variance", "expert", "on_policy"))},
        "sampled": sampled,
        "weights": weights,
        "factor": float(batch.get("loss_factor", 1.0)),
    }
    (place / f"{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    for way in ("resample", "drop"):
        (Path(sys.argv[2]) / way).mkdir(exist_ok=True)
        main(Path(sys.argv[1]), Path(sys.argv[2]) / way, way)
