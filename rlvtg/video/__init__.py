"""video: file -> clip (frames and the true times at which they are shown)."""
