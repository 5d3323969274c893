"""training: the stages of a recipe, on top of TRL."""

import trl.import_utils as installed

# Wherever vLLM is installed TRL imports it, seconds of every start, for rollouts that are not used here: see
# rlvtg/rollout/engine.py for those that are.
installed.is_vllm_available = lambda *args, **kwargs: False
