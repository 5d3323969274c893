"""One table of several models on several test sets: what each was trained on, what it reaches where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """The metrics of one model on one test set; `trained_on` is "" if nobody knows."""

    model: str
    trained_on: str
    data: str
    metrics: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """The cell as one flat object of cross.json."""
        return {"model": self.model, "trained_on": self.trained_on, "test": self.data, **self.metrics}


def cross(cells: Sequence[Cell]) -> str:
    """The cells as a Markdown table: a row per model (with its train set), a group of columns per test set.

    A group has mIoU with its 95 % interval, one R1 per threshold and the share of parse failures; a model that was not
    tried on a test set has "-" there. Below stand the test sets' sizes and the protocol.
    """
    header, rows = _grid(cells)
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2), *rows]
    table = "\n".join("| " + " | ".join(_escaped(text) for text in line) + " |" for line in lines)
    return f"{table}\n\n{_legend(cells)}"


def plain(cells: Sequence[Cell]) -> str:
    """The same table with aligned columns, for a terminal."""
    header, rows = _grid(cells)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join([*map(str.ljust, line[:2], widths[:2]), *map(str.rjust, line[2:], widths[2:])]).rstrip()
        for line in (header, *rows)
    ]
    return "\n".join(lines) + f"\n\n{_legend(cells)}"


def _grid(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    tests = list(dict.fromkeys(cell.data for cell in cells))
    models = list(dict.fromkeys((cell.model, cell.trained_on) for cell in cells))
    by_place = {(cell.model, cell.data): cell.metrics for cell in cells}
    recalls = list(dict.fromkeys(key for cell in cells for key in cell.metrics if key.startswith("R1@")))
    columns = ["mIoU", *recalls, "parse failures"]
    header = ["model", "trained on", *(f"{test}: {column}" for test in tests for column in columns)]
    rows = []
    for model, trained_on in models:
        row = [model, trained_on or "?"]
        for test in tests:
            metrics = by_place.get((model, test))
            row += ["-"] * len(columns) if metrics is None else _numbers(metrics, recalls)
        rows.append(row)
    return header, rows


def _numbers(metrics: Mapping[str, Any], recalls: Sequence[str]) -> list[str]:
    interval = f"{metrics['mIoU']:.3f} [{metrics['mIoU_low']:.3f}, {metrics['mIoU_high']:.3f}]"
    shares = [metrics.get(key) for key in (*recalls, "parse_failure_rate")]
    return [interval, *("-" if share is None else f"{share:.3f}" for share in shares)]


def _legend(cells: Sequence[Cell]) -> str:
    sizes = {cell.data: f"{cell.data} {cell.metrics['n']} queries" for cell in cells}
    names = dict.fromkeys(str(cell.metrics["protocol"]["name"]) for cell in cells)
    return (
        f"Protocol {', '.join(names)}; {', '.join(sizes.values())}; mIoU with its 95 % bootstrap interval over videos."
    )


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
