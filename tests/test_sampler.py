"""The order in which a GRPO stage goes through its prompts."""

import numpy as np
from trl.trainer.utils import RepeatSampler

from rlvtg.recipe import GrpoStage, Task
from rlvtg.training.sampler import GroupSampler, order_of, shuffled, videos_together


def in_order(rows):
    return lambda epoch, generator: list(rows)


def test_the_form_is_that_of_trls_own_sampler():
    ours = GroupSampler(in_order(range(7)), prompts=3, num_generations=2, repeats=4, seed=0)
    theirs = RepeatSampler(range(7), mini_repeat_count=2, batch_size=3, repeat_count=4, shuffle=False)
    assert list(ours) == list(theirs)
    assert len(ours) == len(list(ours)) == 48


def test_an_epoch_brings_every_row_once_in_an_order_of_its_own():
    sampler = GroupSampler(shuffled(20), prompts=1, num_generations=1, repeats=1, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_an_epoch_has_the_same_order_whether_or_not_the_ones_before_it_were_run():
    run_through = GroupSampler(shuffled(20), prompts=2, num_generations=2, repeats=2, seed=3)
    for epoch in range(3):
        run_through.set_epoch(epoch)
        last = list(run_through)
    resumed = GroupSampler(shuffled(20), prompts=2, num_generations=2, repeats=2, seed=3)
    resumed.set_epoch(2)
    assert list(resumed) == last
    other = GroupSampler(shuffled(20), prompts=2, num_generations=2, repeats=2, seed=4)
    other.set_epoch(2)
    assert list(other) != last


def test_rows_about_one_video_follow_each_other_up_to_a_number():
    videos = ["a"] * 5 + ["b"] * 2 + ["c"] * 3
    order = videos_together(videos, 2)
    seen = [tuple(order(epoch, np.random.default_rng(epoch))) for epoch in range(5)]
    for rows in seen:
        assert sorted(rows) == list(range(10))
        runs, row = 0, 0
        while row < 10:
            both = row < 9 and videos[rows[row]] == videos[rows[row + 1]]
            row += 2 if both else 1
            runs += 1
        assert runs <= 6  # 2 + 2 + 1 of a, 2 of b, 2 + 1 of c
    assert len(set(seen)) == 5


def test_one_row_of_a_video_at_a_time_is_a_plain_shuffle_of_all():
    order = videos_together(["a", "a", "b", "b"], 1)
    seen = {tuple(order(epoch, np.random.default_rng(epoch))) for epoch in range(400)}
    assert len(seen) == 24


def test_a_stage_with_shares_goes_by_them_and_one_without_brings_every_row_once():
    rows = [{"task": task, "video": task, "video_start": None, "video_end": None} for task in "aaaabbbbbbbb"]
    stage = GrpoStage(kind="grpo", tasks={"a": Task(share=0.8), "b": Task(share=0.2)})
    drawn = order_of(stage, rows)(0, np.random.default_rng(0))
    assert sorted(row for row in drawn if row < 4) == [0, 1, 2, 3] and len(drawn) == 5
    stage = GrpoStage(kind="grpo", tasks={"a": Task(), "b": Task()})
    assert sorted(order_of(stage, rows)(0, np.random.default_rng(0))) == list(range(12))
