"""rlvtg: RL post-training of video language models for temporal grounding."""
