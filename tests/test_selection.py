import numpy as np
import pytest

from rlvtg.data.query import is_about_sound, tidy
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.selection import draw_by_duration, drawn_rows, fits, rollout_weights

IOUS = [0, 0, 0, 0.03, 0.07, 0.12, 0.2, 0.33, 0.5, 0.77, 0.9, 1]


def test_rows_near_the_mean_are_likelier_and_crowded_bins_count_less():
    (draw,) = draw_by_duration(IOUS, [20.0] * 12, target=36)
    # as methods that follow TimeLens report them
    want = [0.0588] * 3 + [0.0603, 0.2414, 0.2282, 0.1831, 0.0910, 0.0193, 0.00037, 2.9e-5, 3.1e-6]
    assert draw.probabilities == pytest.approx(want, rel=0.02)
    assert draw.probabilities.sum() == pytest.approx(1.0)
    (plain,) = draw_by_duration(IOUS, [20.0] * 12, target=36, level_bins=False)
    assert plain.probabilities[4] == pytest.approx(plain.probabilities[3])
    assert plain.probabilities[0] > 2 * draw.probabilities[0]


def test_every_range_of_durations_gives_the_same_number_or_all_it_has():
    durations = [30.0] * 10 + [30.1] * 2 + [240.0] * 9 + [240.1, 5000.0]
    draws = draw_by_duration([0.1] * 23, durations, target=27)
    assert [(draw.rows[0], len(draw.rows), len(draw.drawn)) for draw in draws] == [
        (0, 10, 3),
        (10, 2, 2),
        (12, 9, 3),
        (21, 2, 2),
    ]
    rows = drawn_rows(draws)
    assert rows == sorted(set(rows)) and len(rows) == 10


def test_the_seed_decides_what_is_drawn():
    ious = np.linspace(0, 1, 200).tolist()

    def rows(seed):
        return drawn_rows(draw_by_duration(ious, [10.0] * 200, target=90, mean=0.5, seed=seed))

    assert rows(42) == rows(42) != rows(43)


@pytest.mark.parametrize(
    ("iou", "duration", "std", "message"),
    [
        (-0.1, 10.0, 0.2, "row 1 has IoU -0.1"),
        (np.nan, 10.0, 0.2, "row 1 has IoU nan"),
        (0.5, np.nan, 0.2, "row 1 has IoU 0.5 and duration nan"),
        (0.9, 10.0, 1e-3, "leaves fewer than 2 of 2 rows any chance"),
    ],
)
def test_what_nothing_can_be_drawn_from_is_an_error(iou, duration, std, message):
    with pytest.raises(DataError, match=message):
        draw_by_duration([0.05, iou], [10.0, duration], std=std)


def test_rollout_weights_are_powers_of_spread_and_failure():
    rewards = [[1.0, 0.0], [0.5, 0.5], [0.2, 0.6], [0.9], []]
    assert rollout_weights(rewards) == pytest.approx([0.25, 0.25, 0.36, 1, 1], rel=1e-6)
    assert rollout_weights(rewards, std_power=1.0, mean_power=0.0) == pytest.approx([0.5, 1e-8, 0.2, 1e-8, 1e-8])
    assert rollout_weights(rewards, [0, 1, 1.5, -1, 0.5], mean_power=1.0) == pytest.approx([1, 1e-8, 1e-8, 1, 0.5])
    assert rollout_weights([[1.0] * 8], std_power=2.0) > 0
    with pytest.raises(DataError, match="got 1 means for 2 rows"):
        rollout_weights([[1.0], [1.0]], [0.5])


@pytest.mark.parametrize(
    ("duration", "query", "spans", "kept"),
    [
        (5.0, "a dog", ((1.0, 2.0),), True),
        (4.9, "a dog", ((1.0, 2.0),), False),
        (500.0, "a dog", ((0.0, 500.0),), True),
        (500.1, "a dog", ((1.0, 2.0),), False),
        (60.0, " ".join(["dog"] * 200), ((1.0, 2.0),), True),
        (60.0, " ".join(["dog"] * 201), ((1.0, 2.0),), False),
        (60.0, "a dog", ((50.0, 61.0), (2.0, 2.0)), True),
        (60.0, "a dog", ((50.0, 61.0), (3.0, 2.0), (-1.0, 2.0)), False),
    ],
)
def test_rows_that_do_not_fit_are_left_out(duration, query, spans, kept):
    assert fits(Sample("1", "v.mp4", duration, query, spans)) is kept


def test_queries_are_tidied_and_those_about_sound_are_found():
    assert [tidy(text) for text in ["A man  runs. ", " x .", "a. b.", "...", " .a\n\tb.. "]] == [
        "A man runs",
        "x",
        "a. b",
        "",
        "a b",
    ]
    sound = ["What is the sound?", "sounds of rain", "He HEARD it", "soundly sleeping", "a sound.", "audio"]
    assert [is_about_sound(text) for text in sound] == [True, True, True, False, False, True]
