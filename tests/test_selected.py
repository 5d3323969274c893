"""Selections as a recipe states them, applied to rows, and files that say how hard rows are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvtg.data.difficulty import Reached, of_rows, read_difficulty
from rlvtg.data.sample import DataError
from rlvtg.data.selected import Choice, choose
from rlvtg.data.selection import gaussian_draw, spaced, weighted_draw
from rlvtg.recipe import Selection

# of the page of TimeLens: one range of durations
IOUS = [0, 0, 0, 0.03, 0.07, 0.12, 0.2, 0.33, 0.5, 0.77, 0.9, 1]


def rows_of(count: int, **columns: Any) -> list[dict[str, Any]]:
    row = {"video": "a.mp4", "duration": 20.0, "query": "a dog", "spans": [[1.0, 3.0]], **columns}
    return [{"id": f"r{k}", **row} for k in range(count)]


def chosen(ious: Sequence[float], *selections: Selection, **settings: Any) -> Choice:
    rows = rows_of(len(ious))
    known = {f"r{k}": Reached(f"r{k}", (float(iou),)) for k, iou in enumerate(ious)}
    return choose(rows, selections, lambda asked: [known[row["id"]] for row in asked], **settings)


def ids(choice: Choice) -> list[str]:
    return [row["id"] for row in choice.rows]


def test_nothing_is_asked_and_nothing_lost_without_a_selection() -> None:
    choice = choose(rows_of(3), [], lambda asked: pytest.fail("nobody needs to know"))
    assert ids(choice) == ["r0", "r1", "r2"] and choice.reached is None and choice.said == "3 of 3 rows"
    choice = chosen([0.2, 0.4], always=True)
    assert choice.said == "2 of 2 rows; mean IoU 0.300" and [one.mean for one in choice.reached or []] == [0.2, 0.4]


def test_the_window_of_time_r1_keeps_what_is_answered_but_not_too_well_in_the_order_of_the_file() -> None:
    choice = chosen([0.8, 0.0, 0.7, 0.1, 0.71, 0.3], Selection("window"))
    assert ids(choice) == ["r2", "r3", "r5"] and choice.probabilities is None
    assert choice.said == "3 of 6 rows (window 3); mean IoU 0.435 before, 0.367 after"
    assert ids(chosen([0.8, 0.0, 0.7, 0.1], Selection("window", low=0.1, high=1.0))) == ["r0", "r2"]


def test_a_bounded_window_keeps_rows_from_the_easiest_to_the_hardest() -> None:
    ious = [0.7, 0.05, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert spaced(ious, 3) == [0, 1, 5]  # the highest, the lowest, and of the two in the middle that of the even rank
    assert spaced(ious, 9) == list(range(8)) and spaced(ious, 1) == [0]
    assert len(chosen(ious, Selection("window", size=3)).rows) == 3


def test_the_pick_of_time_r1_is_a_draw_around_an_iou_from_rows_that_are_answered_at_all() -> None:
    draw = gaussian_draw([0.0, 0.3, 0.7], 2)
    weights = np.array([0.32465246735834974, 1.0, 0.1353352832366127])
    assert draw.probabilities == pytest.approx(weights / weights.sum()) and len(set(draw.drawn)) == 2
    ious = [0.0] * 50 + [0.3] * 50 + [1.0] * 50
    choice = chosen(ious, Selection("window", high=1.0), Selection("gaussian", size=40))
    assert choice.said.startswith("40 of 150 rows (window 100, gaussian 40); mean IoU 0.433 before, 0.")
    assert all(50 <= int(name[1:]) < 100 for name in ids(choice)[:30]) and len(set(ids(choice))) == 40
    assert choice.probabilities is not None and max(choice.probabilities) == pytest.approx(1 / 50, rel=0.01)
    assert ids(choice) == ids(chosen(ious, Selection("window", high=1.0), Selection("gaussian", size=40)))
    assert ids(choice) != ids(chosen(ious, Selection("window", high=1.0), Selection("gaussian", size=40), seed=1))


def test_a_draw_of_more_rows_than_there_are_takes_all_and_says_so() -> None:
    choice = chosen([0.1, 0.2, 0.3], Selection("gaussian", size=2500))
    assert sorted(ids(choice)) == ["r0", "r1", "r2"]
    assert choice.said.startswith("3 of 3 rows (gaussian 3 of 2500 wanted)")


def test_the_draw_of_timelens_is_by_duration_and_in_the_order_of_the_file() -> None:
    choice = chosen(IOUS, Selection("duration_gaussian", size=36))
    assert len(choice.rows) == 4 and ids(choice) == sorted(ids(choice), key=lambda name: int(name[1:]))
    want = dict(zip([f"r{k}" for k in range(12)], [0.0588] * 3 + [0.0603, 0.2414, 0.2282, 0.1831, 0.0910, 0.0193,
                                                                 0.00037, 2.9e-5, 3.1e-6], strict=True))  # fmt: skip
    for name, chance in zip(ids(choice), choice.probabilities or [], strict=True):
        assert chance == pytest.approx(want[name], rel=0.02)


def test_the_weights_of_timelens2_draw_hard_rows_first_and_none_twice() -> None:
    known = {f"r{k}": Reached(f"r{k}", (iou, iou)) for k, iou in enumerate([0.9] * 100 + [0.1] * 100)}
    choice = choose(rows_of(200), [Selection("weights", size=60)], lambda asked: [known[row["id"]] for row in asked])
    assert len(set(ids(choice))) == 60
    # (1 - 0.1)^2 / (1 - 0.9)^2 = 81 times the chance
    assert sum(int(name[1:]) >= 100 for name in ids(choice)) >= 55
    everything = choose(rows_of(200), [Selection("weights")], lambda asked: [known[row["id"]] for row in asked])
    assert sorted(ids(everything)) == sorted(f"r{k}" for k in range(200))
    assert ids(everything)[:60] == ids(choice)  # so many steps of a draw of all rows


def test_a_weighted_draw_is_one_row_after_the_other() -> None:
    first = [weighted_draw([8.0, 1.0, 1.0], 2, seed=seed).drawn for seed in range(1000)]
    assert np.mean([drawn[0] == 0 for drawn in first]) == pytest.approx(0.8, abs=0.04)
    assert np.mean([0 in drawn for drawn in first]) == pytest.approx(0.8 + 0.2 * 8 / 9, abs=0.02)
    assert weighted_draw([0.0, 1.0], 1).drawn == [1]
    with pytest.raises(DataError, match="fewer than 2 of 2 rows have any chance"):
        weighted_draw([0.0, 1.0])


def test_filters_that_need_no_answers_save_them() -> None:
    rows = rows_of(2) + rows_of(1, duration=900.0, id="long") + rows_of(1, query="a loud sound", id="loud")
    asked: list[int] = []

    def ask(some: Sequence[dict[str, Any]]) -> list[Reached]:
        asked.append(len(some))
        return [Reached(row["id"], (0.5,)) for row in some]

    choice = choose(rows, [Selection("fits"), Selection("window"), Selection("fits", sound=False)], ask)
    assert ids(choice) == ["r0", "r1"] and asked == [3]
    assert choice.said.startswith("2 of 4 rows (fits 3, window 3, fits 2)")
    assert ids(choose(rows, [Selection("fits", max_duration=1000.0, max_words=2)], ask)) == ["r0", "r1", "long"]


@pytest.mark.parametrize(
    ("selections", "said"),
    [
        ([Selection("window", low=0.5)], r"select\[0\]: window leaves none of 2 rows, whose IoUs are 0.000 to 0.100"),
        ([Selection("fits", min_duration=21.0)], r"select\[0\]: fits leaves none of 2 rows"),
        ([Selection("window"), Selection("gaussian", size=1, mean=0.9, std=0.001)],
         r"select\[1\]: gaussian: std=0.001 around IoU 0.9: fewer than 1 of 1 rows"),
    ],
)  # fmt: skip
def test_a_selection_that_leaves_nothing_is_an_error(selections: list[Selection], said: str) -> None:
    with pytest.raises(DataError, match=said):
        chosen([0.0, 0.1], *selections)


# --- files


def lines(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_kind_of_file_is_read_with_its_own_direction(tmp_path: Path) -> None:
    own = lines(tmp_path / "own.jsonl", {"easier": "higher"}, {"id": "a", "ious": [0.75, 0.25]})
    assert read_difficulty(own) == {"a": Reached("a", (0.75, 0.25))}
    assert read_difficulty(own)["a"].mean == 0.5 and read_difficulty(own)["a"].std == 0.25
    (tmp_path / "train.json").write_text(json.dumps([{"qid": "a", "difficulty": 30.0}, {"qid": "b", "difficulty": 0}]))
    assert read_difficulty(str(tmp_path / "train.json"), "time_r1") == {
        "a": Reached("a", (0.3,)),
        "b": Reached("b", (0.0,)),
    }
    hard = lines(tmp_path / "hard.jsonl", {"id": "a", "difficulty": 0.75})
    assert read_difficulty(hard, "tempsamp_r1") == {"a": Reached("a", (0.25,))}


@pytest.mark.parametrize(
    ("rows", "form", "said"),
    [
        ([{"id": "a", "ious": [0.5]}], "rlvtg", 'no line with "easier": "higher".*set the format: time_r1'),
        ([{"easier": "lower"}], "rlvtg", 'no line with "easier": "higher"'),
        ([{"easier": "higher"}, {"id": "a", "ious": [1.5]}], "rlvtg", r"line 2: row 'a' has the IoUs \[1.5\]"),
        ([{"easier": "higher"}, {"id": "a", "ious": []}], "rlvtg", r"row 'a' has the IoUs \[\]"),
        ([{"easier": "higher"}, *[{"id": "a", "ious": [0]}] * 2], "rlvtg", "line 3: id 'a' comes twice"),
        ([{"id": "a", "difficulty": 30.0}], "tempsamp_r1", r"row 'a' has the IoUs \[-29.0\].*read as tempsamp_r1"),
        ([{"difficulty": 0.5}], "tempsamp_r1", "field 'id' is missing"),
        ([{"id": "a", "difficulty": None}], "tempsamp_r1", "field 'difficulty': got None, expected a number"),
    ],
)  # fmt: skip
def test_what_a_file_has_wrong_is_named(tmp_path: Path, rows: list[Any], form: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_difficulty(lines(tmp_path / "a.jsonl", *rows), form)


def test_rows_that_a_file_lacks_are_counted_and_some_named() -> None:
    with pytest.raises(DataError, match=r"mine: has no difficulty of 4 of 5 rows \('r1', 'r2', 'r3', ...\)"):
        of_rows({"r0": Reached("r0", (0.5,))}, rows_of(5), "mine")
