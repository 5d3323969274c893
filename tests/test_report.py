import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rlvtg.evaluation.report import (
    PREDICTED,
    STAGES,
    TRUE,
    curves,
    filmstrip,
    histogram,
    learning_curves,
    smoothed,
    spread,
    table,
)

RED, GREEN = (255, 0, 0), (0, 255, 0)


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def where(picture: NDArray[np.uint8], colour: str | tuple[int, int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels of exactly this colour."""
    if isinstance(colour, str):
        colour = (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
    rows, columns = np.nonzero((picture == np.array(colour, np.uint8)).all(axis=-1))
    return rows, columns


def bar_ends(picture: NDArray[np.uint8], colour: str) -> list[tuple[int, int]]:
    """First and last column of every bar of this colour, from the pixel row that holds most of it."""
    rows, columns = where(picture, colour)
    line = np.sort(columns[rows == np.bincount(rows).argmax()])
    runs = np.split(line, np.nonzero(np.diff(line) > 1)[0] + 1)
    return [(int(run[0]), int(run[-1])) for run in runs if len(run) > 20]


def draw(
    path: Path, true: list[list[float]], predicted: list[list[float]], frames: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    frames = np.zeros((10, 28, 28, 3), np.uint8) if frames is None else frames
    filmstrip(frames, np.linspace(0, 20, len(frames), endpoint=False), 20.0, true, predicted, "a dog jumps", path)
    return pixels(path)


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, float]:
    """Column of second 0 and columns per second, measured on a bar over the whole of a 20 s video."""
    picture = draw(tmp_path_factory.mktemp("scale") / "whole.png", [[0, 20]], [])
    ((first, last),) = bar_ends(picture, TRUE)
    return first, (last + 1 - first) / 20


def test_bars_lie_at_the_seconds_of_their_spans(tmp_path: Path, scale: tuple[float, float]) -> None:
    zero, per_second = scale
    picture = draw(tmp_path / "film.png", [[2, 6], [12, 13.5]], [[5.5, 11.25]])
    for colour, spans in ((TRUE, [[2, 6], [12, 13.5]]), (PREDICTED, [[5.5, 11.25]])):
        ends = bar_ends(picture, colour)
        seconds = [[(first - zero) / per_second, (last + 1 - zero) / per_second] for first, last in ends]
        assert np.array(seconds) == pytest.approx(np.array(spans), abs=0.03)


def test_the_true_bar_is_above_the_predicted_bar_and_both_are_below_the_frames(tmp_path: Path) -> None:
    picture = draw(tmp_path / "film.png", [[2, 6]], [[2, 6]], np.full((4, 28, 28, 3), RED, np.uint8))
    frames, true, predicted = (where(picture, colour)[0] for colour in (RED, TRUE, PREDICTED))
    assert frames.max() < true.min() and true.max() < predicted.min()


def test_frames_stand_in_the_order_of_time_and_are_enlarged_without_blur(tmp_path: Path) -> None:
    frames = np.zeros((2, 28, 28, 3), np.uint8)
    frames[0], frames[1] = RED, GREEN
    filmstrip(frames, np.array([7.0, 3.0]), 10.0, [[1, 2]], [], "late frame first", tmp_path / "film.png")
    picture = pixels(tmp_path / "film.png")
    (green_rows, green), (_, red) = where(picture, GREEN), where(picture, RED)
    assert green.max() < red.min()
    assert np.ptp(green) > 150 and np.ptp(green_rows) > 150
    row = picture[green_rows[len(green_rows) // 2]]
    assert {tuple(pixel) for pixel in row.tolist()} <= {RED, GREEN, (255, 255, 255)}


def test_a_frame_is_tied_to_its_second_on_the_axis_of_the_bars(tmp_path: Path, scale: tuple[float, float]) -> None:
    frames = np.full((2, 28, 28, 3), RED, np.uint8)
    filmstrip(frames, np.array([5.0, 15.0]), 20.0, [[0, 20]], [], "ties are upright", tmp_path / "film.png")
    picture = pixels(tmp_path / "film.png")
    frames_end, bar_begins = where(picture, RED)[0].max(), where(picture, TRUE)[0].min()
    columns = np.nonzero((picture[bar_begins - 20] < 240).any(axis=-1))[0]
    zero, per_second = scale
    assert frames_end < bar_begins - 20
    assert {round((column - zero) / per_second, 0) for column in columns} == {5, 15}


@pytest.mark.parametrize("count", [1, 12, 40])
def test_at_most_twelve_frames_are_shown_the_first_and_the_last_among_them(tmp_path: Path, count: int) -> None:
    frames = np.zeros((count, 28, 28, 3), np.uint8)
    frames[:, :, :, 0] = 100 + np.arange(count)[:, None, None]
    picture = draw(tmp_path / "film.png", [[1, 2]], [], frames)
    shown = [i for i in range(count) if len(where(picture, (100 + i, 0, 0))[0]) > 1000]
    assert len(shown) == min(count, 12)
    assert (shown[0], shown[-1]) == (0, count - 1)


def test_portrait_and_landscape_frames_keep_their_shape(tmp_path: Path) -> None:
    for height, width in ((56, 28), (28, 56), (600, 400)):
        picture = draw(tmp_path / "film.png", [[1, 2]], [], np.full((3, height, width, 3), RED, np.uint8))
        rows, columns = where(picture, RED)
        first_frame = columns[columns < columns.min() + 250]
        assert (np.ptp(rows) + 1) / (np.ptp(first_frame) + 1) == pytest.approx(height / width, rel=0.05)
        assert picture.shape[0] < 600


def test_an_answer_without_a_span_has_no_bar_but_says_so_beside_it(tmp_path: Path, scale: tuple[float, float]) -> None:
    without, with_span = draw(tmp_path / "a.png", [[2, 6]], []), draw(tmp_path / "b.png", [[2, 6]], [[2, 6]])
    assert bar_ends(without, PREDICTED) == []
    last = int(scale[0] + 20 * scale[1])
    row = int(np.median(where(with_span, PREDICTED)[0]))
    beside = without[row - 10 : row + 10, last + 15 :]
    assert (beside < 100).any() and not np.array_equal(beside, with_span[row - 10 : row + 10, last + 15 :])


def test_a_span_past_the_end_is_cut_at_the_edge_with_an_arrow_beyond_it(
    tmp_path: Path, scale: tuple[float, float]
) -> None:
    zero, per_second = scale
    edge = zero + 20 * per_second
    inside, past = draw(tmp_path / "a.png", [[2, 6]], [[15, 20]]), draw(tmp_path / "b.png", [[2, 6]], [[15, 41]])
    assert where(inside, PREDICTED)[1].max() < edge
    assert edge < where(past, PREDICTED)[1].max() < edge + 20
    assert bar_ends(past, PREDICTED)[0][0] == bar_ends(inside, PREDICTED)[0][0]


@pytest.mark.parametrize("span", [[25, 41], [1e9, math.inf]])
def test_a_span_that_is_not_in_the_video_has_only_the_arrow(
    tmp_path: Path, scale: tuple[float, float], span: list[float]
) -> None:
    zero, per_second = scale
    picture = draw(tmp_path / "film.png", [[2, 6]], [span])
    columns = where(picture, PREDICTED)[1]
    assert bar_ends(picture, PREDICTED) == []
    assert not ((columns > zero) & (columns < zero + 20 * per_second - 8)).any()
    assert (columns > zero + 20 * per_second).any()


def test_a_reversed_span_is_an_empty_box(tmp_path: Path, scale: tuple[float, float]) -> None:
    picture = draw(tmp_path / "film.png", [[2, 6]], [[12, 8]])
    zero, per_second = scale
    box = picture[:, int(zero + 8.2 * per_second) : int(zero + 11.8 * per_second)]
    rows = np.unique(where(box, PREDICTED)[0])
    assert 0 < len(rows) < 6 and np.ptp(rows) > 15


def test_only_the_first_predicted_span_is_in_full_colour(tmp_path: Path) -> None:
    assert len(bar_ends(draw(tmp_path / "film.png", [[2, 6]], [[2, 6], [8, 12]]), PREDICTED)) == 1
    assert len(bar_ends(draw(tmp_path / "film.png", [[2, 6], [8, 12]], [])[:, 200:], TRUE)) == 2


def test_a_title_with_dollars_and_of_any_length_is_plain_text(tmp_path: Path) -> None:
    filmstrip(
        np.zeros((3, 8, 8, 3), np.uint8),
        np.arange(3.0),
        3.0,
        [[0, 1]],
        [],
        "$x_{ costs $y$ " * 50,
        tmp_path / "film.png",
    )
    assert not (pixels(tmp_path / "film.png")[:, -30:] < 200).any()


def test_frames_of_another_type_or_number_and_a_video_without_length_are_errors(tmp_path: Path) -> None:
    grey = np.zeros((3, 8, 8), np.uint8)
    normalised: Any = np.zeros((3, 8, 8, 3))
    for frames, got in ((grey, r"\(3, 8, 8\) and type uint8"), (normalised, r"\(3, 8, 8, 3\) and type float64")):
        with pytest.raises(ValueError, match=got):
            filmstrip(frames, np.arange(3.0), 3.0, [[0, 1]], [], "", tmp_path / "film.png")
    with pytest.raises(ValueError, match="video of 0.0 seconds"):
        filmstrip(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1), 0.0, [[0, 1]], [], "", tmp_path / "film.png")
    with pytest.raises(ValueError, match="2 timestamps for 3 frames"):
        filmstrip(np.zeros((3, 8, 8, 3), np.uint8), np.arange(2.0), 3.0, [[0, 1]], [], "", tmp_path / "film.png")


def test_curves_of_a_log_keep_what_a_reader_wants_in_reading_order() -> None:
    log = [
        {"loss": 2.0, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 0.1, "step": 1},
        {"loss": 1.0, "grad_norm": math.nan, "step": 2},
        {"eval_mIoU": 0.4, "eval_runtime": 3.0, "step": 2},
        {"train_loss": 1.5, "train_runtime": 9.0, "step": 2},
    ]
    rl = [
        {"loss": 0.1, "reward": 1.0, "rewards/tiou/mean": 0.5, "clip_ratio/low_min": 0.1, "step": 1},
        {"loss": 0.1, "reward": 1.0, "rewards/tiou/mean": None, "step": 2},
    ]
    got = curves({"sft": log, "rl": rl})
    assert list(got) == ["loss (sft)", "loss (rl)", "reward", "rewards/tiou/mean", "eval_mIoU", "grad_norm"]
    assert [list(stages) for stages in got.values()] == [["sft"], ["rl"], ["rl"], ["rl"], ["sft"], ["sft"]]
    assert [values.tolist() for values in got["rewards/tiou/mean"]["rl"]] == [[1], [0.5]]
    assert [values.tolist() for values in got["loss (sft)"]["sft"]] == [[1, 2], [2, 1]]
    assert [values.tolist() for values in got["grad_norm"]["sft"]] == [[1], [1]]


GUARD_RAILS = (
    "rewards/tiou/mean", "rewards/tiou/std", "reward_std", "frac_reward_zero_std", "zero_variance/before",
    "zero_variance/after", "zero_variance/resamples", "completions/unparsed", "completions/clipped_ratio",
    "completions/mean_length", "completions/length_drift", "spans/length", "spans/length_ratio", "spans/length_drift",
    "spans/start", "spans/end", "spans/number", "spans/outside", "expert/reward_mean", "on_policy/reward",
    "on_policy/rewards/tiou/mean", "on_policy/completions/mean_length", "on_policy/completions/clipped_ratio",
)  # fmt: skip


def test_all_that_shows_a_reward_being_hacked_has_a_curve() -> None:
    history = [{name: 0.5, "step": 1} | {name: 0.6} for name in GUARD_RAILS]
    assert set(curves({"rl": history})) == set(GUARD_RAILS)


def test_smoothing_keeps_constants_and_the_middle_of_lines_and_calms_noise() -> None:
    assert smoothed(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))
    line = np.linspace(0.0, 99.0, 100)
    assert smoothed(line)[3:-3] == pytest.approx(line[3:-3])
    noise = np.random.default_rng(0).normal(size=300)
    assert smoothed(noise).shape == (300,) and smoothed(noise).std() < 0.4 * noise.std()
    assert smoothed(noise[:29]).tolist() == noise[:29].tolist()


def test_a_rising_log_is_a_rising_line_in_the_colour_of_its_stage(tmp_path: Path) -> None:
    learning_curves({"rl": [{"reward": i / 60, "step": i} for i in range(60)]}, tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")[60:]
    rows, columns = where(picture, STAGES[0])
    assert np.ptp(columns) > 200 and np.ptp(rows) > 80
    assert np.corrcoef(rows, columns)[0, 1] < -0.99


def test_two_stages_share_a_panel_in_two_colours_but_have_a_loss_panel_each(tmp_path: Path) -> None:
    stages = {
        "sft": [{"loss": 2.0, "entropy": 2.0 + 0.01 * i, "step": i} for i in range(20)],
        "rl": [{"loss": 0.1, "entropy": 1.0 + 0.01 * i, "step": i} for i in range(20)],
    }
    learning_curves(stages, tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert picture.shape[1] == 960
    panels = [picture[60:, :320], picture[60:, 320:640], picture[60:, 640:]]
    assert [[len(where(panel, STAGES[i])[0]) > 50 for i in (0, 1)] for panel in panels] == [
        [True, False],
        [False, True],
        [True, True],
    ]
    sft, rl = (where(panels[2], STAGES[i])[0] for i in (0, 1))
    assert sft.max() < rl.min()


def test_a_stage_with_nothing_to_draw_is_not_in_the_legend(tmp_path: Path) -> None:
    log = [{"reward": i / 60, "step": i} for i in range(60)]
    learning_curves({"rl": log}, tmp_path / "one.png")
    learning_curves({"empty": [], "rl": log}, tmp_path / "two.png")
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png"))


def test_histories_with_nothing_to_draw_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['sft'\] with nothing to draw in them; drawn are loss, reward"):
        learning_curves({"sft": [{"epoch": 1.0, "step": 1}]}, tmp_path / "curves.png")


def test_a_table_is_aligned_and_has_three_decimals() -> None:
    got = table(
        {
            "before SFT": {
                "n": 245,
                "mIoU": 0.0,
                "mIoU_low": 0.0,
                "mIoU_high": 0.0,
                "R1@0.5": 0.0,
                "parse_failure_rate": 1.0,
            },
            "best constant": {"n": 245, "mIoU": 0.31349, "R1@0.5": 0.25},
        }
    )
    assert got.split("\n") == [
        "                mIoU   95 % interval  R1@0.5  parse failures    n",
        "before SFT     0.000  0.000 to 0.000   0.000           1.000  245",
        "best constant  0.313               -   0.250               -  245",
    ]


def test_an_empty_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="no results"):
        table({})


def test_a_table_names_missing_and_dropped_queries_where_there_are_some_and_nothing_else() -> None:
    row = {"n": 4, "mIoU": 0.5, "mF1": 0.25, "parse_failure_rate": 0.5, "missing": 1, "dropped": 0, "protocol": {}}
    assert table({"a": row, "b": {**row, "missing": 0}}).split("\n") == [
        "    mIoU  95 % interval    mF1  parse failures  missing  n",
        "a  0.500              -  0.250           0.500        1  4",
        "b  0.500              -  0.250           0.500        0  4",
    ]


def test_a_histogram_has_a_bar_where_the_queries_are(tmp_path: Path) -> None:
    histogram([0.01] * 5 + [None] * 9, tmp_path / "low.png")
    histogram([0.99] * 5, tmp_path / "high.png")
    low, high = (where(pixels(tmp_path / f"{name}.png"), PREDICTED)[1] for name in ("low", "high"))
    assert len(low) > 100 and low.max() < high.min()


@pytest.mark.parametrize(
    ("ious", "count", "chosen"),
    [
        ([0.1, 0.9, 0.5, None, 0.3], 3, [1, 4, 3]),
        ([0.1, 0.9], 6, [1, 0]),
        ([0.1, 0.9], 1, [1]),
        ([0.1, 0.9], 0, []),
        ([], 3, []),
    ],
)
def test_answers_are_chosen_from_the_best_to_the_worst(ious: list[float | None], count: int, chosen: list[int]) -> None:
    assert spread(ious, count) == chosen
