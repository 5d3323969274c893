"""Rows of the inverse tasks, and what `robust` must give them with any tagger."""

from rlvtg.reward import find
from tests.reference_cases import cases
from tests.reference_invert4tvg import stub

TASKS = ("verb_completion", "action_recognition", "video_description")
# The table with which the paper's own code was run in the recorded cases.
RECORDED = cases("invert4tvg", "")
STUB = stub(
    next(row["kwargs"]["stub"] for row in RECORDED if row["reward"] == "act"),
    next(row["kwargs"]["aux_tokens"] for row in RECORDED if row["reward"] == "act"),
)
TAGGERS = {"hanta": "hanta", "stub": STUB}


def reward(task, text, *, query="person closes the door", masked="person the door", verb="closes", **knobs):
    """The reward of one completion."""
    return find(task)([text], [query], [masked], [verb], **knobs)[0]
