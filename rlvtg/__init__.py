"""rlvtg: RL post-training of video language models for temporal grounding."""

from rlvtg import cpu_only_torch as cpu_only_torch
from rlvtg import trl_without_vllm as trl_without_vllm
