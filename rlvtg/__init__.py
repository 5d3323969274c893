"""rlvtg: RL post-training of video language models for temporal grounding."""

from rlvtg import torchvision_on_cpu as torchvision_on_cpu
