"""training: the stages of a recipe, on top of TRL."""

from trl import import_utils

# Wherever vLLM is installed TRL imports it, seconds of every start, for rollouts that are not used here: see
# rlvtg/rollout/engine.py for those that are.
import_utils.is_vllm_available = lambda *args, **kwargs: False
