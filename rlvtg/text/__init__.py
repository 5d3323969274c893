"""text: completion -> think, answer, spans."""
