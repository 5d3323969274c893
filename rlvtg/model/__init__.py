"""model: clip + prompt -> inputs, with the positions that hold the time."""
