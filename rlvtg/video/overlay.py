"""Frames that carry their own time: a number drawn into the bottom right corner of each.

Source: NumPro (arXiv 2411.10332), which draws the number of the frame; drawn seconds are a variant that TimeLens
(arXiv 2512.14698) compares with stamps between the frames.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Of the frame's height. NumPro's best size is 40 pixels on frames of 336.
HEIGHT = 40 / 336
SMALLEST = 8
"""Pixels; smaller digits cannot be told apart."""


def numbered(frames: np.ndarray, timestamps: Sequence[float], template: str) -> np.ndarray:
    """A copy of `frames` (N, H, W, 3) uint8 RGB, each with its number in red on its bottom right corner.

    `template` is a format of the frame's time in seconds, `{:.1f}`, or of its place in the clip, `{index}`. The text is
    made smaller where it would be wider than the frame.
    """
    drawn = np.empty_like(frames)
    for index, (frame, seconds) in enumerate(zip(frames, timestamps, strict=True)):
        image = Image.fromarray(frame)
        _draw(image, template.format(float(seconds), index=index))
        drawn[index] = np.asarray(image)
    return drawn


def _draw(image: Image.Image, text: str) -> None:
    pen = ImageDraw.Draw(image)
    size = max(SMALLEST, round(image.height * HEIGHT))
    font = ImageFont.load_default(size)
    width = pen.textlength(text, font=font)
    if width > image.width:
        font = ImageFont.load_default(max(1, int(size * image.width / width)))
    # "rs": the right end of the baseline, below which digits have nothing
    pen.text((image.width - 1, image.height - 2), text, fill=(255, 0, 0), font=font, anchor="rs")
