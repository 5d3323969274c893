"""training: the stages of a recipe, on top of TRL."""
