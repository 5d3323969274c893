"""data: annotation file -> Sample -> row (paths, never pixels)."""
