"""rlvtg: RL post-training of video language models for temporal grounding."""

from rlvtg import cpu_only_torch as cpu_only_torch
