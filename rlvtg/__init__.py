"""rlvtg: RL post-training of video language models for temporal grounding."""

from rlvtg import torchvision_on_cpu as torchvision_on_cpu
from rlvtg import trl_without_vllm as trl_without_vllm
