"""What a query says, as far as selecting rows depends on it."""

# Whole words, without their punctuation: TencentARC/TimeLens@5d90c06 training/data/grounding.py.
_SOUND_WORDS = {"hear", "heard", "hears", "hearing", "sound", "sounded", "sounds", "sounding", "audio"}


def tidy(query: str) -> str:
    """A query without superfluous white space and without dots at its ends, as TimeLens writes it into prompts."""
    return " ".join(query.split()).strip(".").strip()


def is_about_sound(query: str) -> bool:
    """Whether a query has one of the words by which TimeLens drops events that frames do not show."""
    return not _SOUND_WORDS.isdisjoint(query.strip("?").lower().split())
