"""A run of the real command that several test files look at, made once: two small stages, LoRA, both exports.

Its environment holds secrets, and one of its rewards asks a judge that quotes the key it was sent.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.local_judge import Status, serving
from tests.test_train_command import ACCELERATE, OWN_REWARD, SCRIPT, SMALL, environment

# Put together here, so that nothing in this file looks like a key.
SECRETS = {
    "HF_TOKEN": "hf_" + "Ab1Cd2Ef3G" * 3 + "HiJk",
    "WANDB_API_KEY": "0123456789" * 4,
    "JUDGE_API_KEY": "sk-" + "J1u2D3g4E5" * 3,
    "MY_PASSWORD": "correct-horse-battery-staple",
}
ASKING = '''\
from rlvtg.judge import Judge, asking


async def asked(completions, *, url="", **_):
    """Asks a judge, which has nothing to say."""
    judge = Judge(url=url, model="judge", api_key_env="JUDGE_API_KEY", retries=0, cache=None)
    async with asking(judge, "asked") as ask:
        await ask("you are a judge", "[]", str)
    return [None] * len(completions)
'''


@dataclass
class Run:
    """Where it was made, its folder, all that it printed, and the headers that the judge was sent."""

    place: Path
    printed: str
    asked_with: list[str]

    @property
    def folder(self) -> Path:
        """The run's folder, from where it was made."""
        return Path("runs/tiny")


_made: list[Run] = []


def small_run(factory: pytest.TempPathFactory) -> Run:
    """The run, made when it is first asked for."""
    if not _made:
        _made.append(_train(factory))
    return _made[0]


def _train(factory: pytest.TempPathFactory) -> Run:
    place = factory.mktemp("small_run")
    (place / "rewards").mkdir()
    (place / "rewards" / "letters.py").write_text(OWN_REWARD)
    (place / "rewards" / "asked.py").write_text(ASKING)
    key = SECRETS["JUDGE_API_KEY"]
    with serving(lambda question: Status(401, f"invalid key Bearer {key}")) as judge:
        words = [
            *SMALL, "stages.cold_start.lora=null", "stages.rl.lora={r: 8, lora_alpha: 64}",
            "stages.rl.export=[adapter, merged]",
            "stages.rl.learning_rate=2e-2", "report_to=[tensorboard, wandb]",
            f"stages.rl.rewards.asked={{weight: 0, args: {{url: '{judge.url}'}}}}",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, *ACCELERATE, SCRIPT, "recipe=tiny", *words],
            cwd=place, env=environment(place, **SECRETS), capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        asked_with = [headers["Authorization"] for _, headers, _ in judge.requests]
    return Run(place, done.stdout + done.stderr, asked_with)
