"""How Time-R1 selects examples by how well a model already does on them: not at all, or too well, teaches little.

Everything here takes the IoU in [0, 1] that the model reaches on a row. Time-R1's files call 100 times that number
`difficulty`, which is therefore higher for an easier row. Source: arXiv 2503.13377; xiaomi-research/time-r1@7f2b594
src/utils/process_data.py.
"""

from math import exp


def gaussian_weight(iou: float, mu: float = 0.3, sigma: float = 0.2) -> float:
    """exp(-(iou - mu)^2 / (2 sigma^2)), in (0, 1]: how likely a row is to be drawn, before the weights are normalised.

    `sigma` is the standard deviation. Time-R1 draws its 2,500 rows from those with IoU > 0. ValueError unless
    `sigma` > 0.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be > 0, got {sigma!r}")
    return exp(-((iou - mu) ** 2) / (2 * sigma**2))


def in_window(iou: float, low: float = 0.0, high: float = 0.7) -> bool:
    """Whether low < iou <= high: the rows that Time-R1 keeps between epochs."""
    return low < iou <= high
