"""Shares of tasks: which task each group of an epoch is of."""

from collections import Counter

import numpy as np
import pytest

from rlvtg.data.mix import epoch_length, mixed

SHARES = {"tvg": 0.8, "vc": 0.15, "ar": 0.05}


def drawn(tasks: list[str], shares: dict[str, float], seed: int = 0, epoch: int = 0) -> list[int]:
    return mixed(tasks, shares)(epoch, np.random.default_rng([seed, epoch]))


def test_two_thousand_draws_have_the_shares() -> None:
    tasks = ["tvg"] * 1600 + ["vc"] * 700 + ["ar"] * 700
    rows = drawn(tasks, SHARES)
    assert len(rows) == epoch_length(1600, SHARES) == 2000
    counts = Counter(tasks[row] for row in rows)
    assert counts["tvg"] == 1600
    assert abs(counts["vc"] - 300) < 30 and abs(counts["ar"] - 100) < 30  # three standard deviations of about 9


def test_each_place_has_the_shares_and_not_only_the_epoch() -> None:
    """No stretch of an epoch is one task's: the first tenth of many epochs has the shares too."""
    tasks = ["tvg"] * 80 + ["vc"] * 10 + ["ar"] * 10
    order = mixed(tasks, SHARES)
    early = Counter(tasks[row] for epoch in range(300) for row in order(epoch, np.random.default_rng(epoch))[:10])
    assert early["tvg"] / 3000 == pytest.approx(0.8, abs=0.03)
    assert early["vc"] / 3000 == pytest.approx(0.15, abs=0.03)


def test_an_epoch_is_one_pass_over_the_first_task() -> None:
    tasks = ["vc"] * 5 + ["tvg"] * 40
    rows = drawn(tasks, {"tvg": 0.8, "vc": 0.2})
    assert sorted(row for row in rows if tasks[row] == "tvg") == list(range(5, 45))
    assert [row for row in rows if tasks[row] == "tvg"] != list(range(5, 45))


def test_rows_of_other_tasks_come_without_replacement_and_anew_when_used_up() -> None:
    tasks = ["tvg"] * 50 + ["vc"] * 7
    others = [row for row in drawn(tasks, {"tvg": 0.5, "vc": 0.5}) if row >= 50]
    assert len(others) == 50
    passes = [others[start : start + 7] for start in range(0, 50, 7)]
    assert all(sorted(some) == list(range(50, 57)) for some in passes[:-1])
    assert len(set(passes[-1])) == len(passes[-1]) == 1
    assert len({tuple(some) for some in passes[:-1]}) > 1


def test_an_epoch_follows_from_its_generator_alone() -> None:
    tasks = ["tvg"] * 20 + ["vc"] * 20
    shares = {"tvg": 0.5, "vc": 0.5}
    order = mixed(tasks, shares)
    order(0, np.random.default_rng([3, 0]))
    assert order(1, np.random.default_rng([3, 1])) == drawn(tasks, shares, seed=3, epoch=1)
    assert drawn(tasks, shares, 3, 0) != drawn(tasks, shares, 3, 1) != drawn(tasks, shares, 4, 1)


@pytest.mark.parametrize(
    ("count", "shares", "length"),
    [(8, {"a": 0.8, "b": 0.2}, 10), (3, {"a": 1.0}, 3), (2, {"a": 0.5, "b": 0.5}, 4), (1, {"a": 0.9, "b": 0.1}, 1),
     (3, {"a": 0.333, "b": 0.333, "c": 0.333}, 9)],
)  # fmt: skip
def test_every_epoch_has_as_many_rows(count: int, shares: dict[str, float], length: int) -> None:
    tasks = [task for task in shares for _ in range(count)]
    assert {len(drawn(tasks, shares, epoch=epoch)) for epoch in range(4)} == {epoch_length(count, shares)} == {length}
