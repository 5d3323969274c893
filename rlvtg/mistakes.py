"""What the user of a command can mend: said in one line instead of a traceback, the same for every command."""

import sys
from collections.abc import Callable

from rlvtg.data.sample import DataError
from rlvtg.disk import DiskError
from rlvtg.evaluation.predictions import PredictionError
from rlvtg.evaluation.protocol import ProtocolError
from rlvtg.recipe import RecipeError, redacted
from rlvtg.reward import RewardError
from rlvtg.text.annotation import AnnotationError
from rlvtg.text.grammar import GrammarError
from rlvtg.video.decode import VideoError

MENDABLE = (
    RecipeError, RewardError, GrammarError, ProtocolError, DataError, AnnotationError, PredictionError, VideoError,
    DiskError,
)  # fmt: skip


def exit_status(command: Callable[[], int]) -> int:
    """What `command` returns, or 2 and `error: ...` on stderr for a mistake of its user; other errors pass through."""
    try:
        return command()
    except MENDABLE as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
