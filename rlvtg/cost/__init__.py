"""What a model costs, in numbers, bytes and operations, from shapes alone: no weights, no torch."""
