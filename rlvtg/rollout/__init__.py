"""rollout: P prompts -> P x G completions."""
