"""Two stages of three tasks each through the real command, with prompts that differ by stage, task and evaluation."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.test_train_command import Done, train

RECIPE = """\
extends: base
model: some/model
data:
  charades: {annotations: charades.json, videos: videos}
  nextgqa: {reader: jsonl, annotations: nextgqa.jsonl, videos: videos}
  held_out: {annotations: held_out.json, videos: videos}
video: {sampling: interval, time: text}
grammar: to
prompt: "When: {query}{video}"
stages:
  plain: &stage
    kind: grpo
    data: charades
    prompt: "Only say when: {query}{video}"
    tasks:
      tvg: {share: 0.5}
      vc: {inverse: verb_completion, share: 0.25, prompt: "Complete: {masked_query}{video}"}
      gqa: {data: nextgqa, share: 0.25, prompt: "{query}? {options}{video}"}
    rewards:
      tiou: {weight: 1.0, tasks: [tvg]}
      verb_completion: {weight: 1.0, tasks: [vc]}
      option_accuracy: {weight: 1.0, tasks: [gqa]}
      letters: {weight: 0.1}
    num_generations: 4
    beta: 0.0
    loss_type: dapo
    scale_rewards: none
    epsilon: 0.2
    num_iterations: 1
    temperature: 1.0
    max_completion_length: 16
    learning_rate: 1.0e-4
    lr_scheduler_type: constant
    per_device_train_batch_size: 4
  thinking:
    <<: *stage
    prompt: "Think, then say when: {query}{video}"
evaluation: {data: held_out, prompt: "Tell when: {query}{video}"}
"""
STEPS = 8


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Done:
    place = tmp_path_factory.mktemp("tasks")
    (place / "joint.yaml").write_text(RECIPE)
    steps = [f"stages.{stage}.max_steps={STEPS}" for stage in ("plain", "thinking")]
    return train(place, "recipe=joint.yaml", "scale=tiny", "save_steps=100", *steps)


def completions(ran: Done, stage: str) -> pd.DataFrame:
    files = sorted((ran.place / "runs/joint" / stage / "completions").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files])


def made(ran: Done) -> dict[str, dict]:
    """The rows that stand in for the recipe's data, by id."""
    lines = (ran.place / "data/tiny_scale/rl.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


@pytest.mark.slow
def test_every_step_is_of_one_task_and_all_tasks_come(ran: Done) -> None:
    for stage in ("plain", "thinking"):
        table = completions(ran, stage)
        groups = table.groupby("step")
        assert groups.size().tolist() == [4] * STEPS
        assert groups["task"].nunique().tolist() == groups["id"].nunique().tolist() == [1] * STEPS
        assert set(table["task"]) == {"tvg", "vc", "gqa"}


@pytest.mark.slow
def test_a_reward_is_none_for_rows_of_other_tasks(ran: Done) -> None:
    table = completions(ran, "plain")
    for reward, task in (("tiou", "tvg"), ("verb_completion", "vc"), ("option_accuracy", "gqa")):
        assert (table[reward].notna() == (table["task"] == task)).all()
    assert table["letters"].notna().all()
    assert 'value of "None"' not in ran.err
    log = json.loads((ran.place / "runs/joint/plain/log_history.json").read_text())["log"]
    tasks = table.groupby("step")["task"].first()
    steps = {record["step"]: record for record in log if "reward" in record}
    assert {step for step, record in steps.items() if "rewards/tiou/mean" in record} == set(tasks[tasks == "tvg"].index)


@pytest.mark.slow
def test_prompts_are_those_of_stage_and_task(ran: Done) -> None:
    rows = made(ran)
    for stage, words in (("plain", "Only say when: "), ("thinking", "Think, then say when: ")):
        for _, row in completions(ran, stage).iterrows():
            source = rows[row["id"].removesuffix(f"/{row['task']}")]
            first, second = source["options"]
            asked = {
                "tvg": f"{words}{source['query']}",
                "vc": f"Complete: {source['masked_query']}",
                "gqa": f"{source['query']}? (A) {first}\n(B) {second}",
            }
            assert row["prompt"][0]["content"] == f"{asked[row['task']]}<video>"
    protocol = json.loads((ran.place / "runs/joint/evaluation/thinking/metrics.json").read_text())["protocol"]
    assert protocol["prompt"] == "Tell when: {query}{video}"


@pytest.mark.slow
def test_an_inverse_row_is_the_segment_and_its_duration(ran: Done) -> None:
    table = completions(ran, "plain")
    for _, row in table[table["task"] == "vc"].iterrows():
        [[start, end]] = made(ran)[row["id"].removesuffix("/vc")]["spans"]
        assert (row["video_start"], row["video_end"], row["duration"]) == (start, end, end - start)


@pytest.mark.slow
def test_the_table_has_every_stage_and_the_best_constant_of_the_grounding_rows(ran: Done) -> None:
    assert {"before", "plain", "thinking", "always"} <= set(ran.table())
    assert Path(ran.place / "runs/joint/left_out.plain.vc.jsonl").read_text() == ""
