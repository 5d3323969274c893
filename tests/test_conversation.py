"""What turns and narration make of supervised rows."""

from typing import Any

import pytest

from rlvtg.data.conversation import conversations
from rlvtg.data.row import rows
from rlvtg.data.sample import Sample

EVENTS = {"a dog": (1.0, 2.5), "a cat": (4.0, 5.0), "a bird": (3.0, 9.0)}


def some_rows(videos: int = 1, **changes: Any) -> list[dict[str, Any]]:
    samples = [
        Sample(f"{video}#{query}", f"{video}.mp4", 10.0, query, (span,), **changes)
        for video in range(videos)
        for query, span in EVENTS.items()
    ]
    return rows(samples, "{video}When is {query}?", completion="{start:.0f} to {end:.0f}")


def said(row: dict[str, Any]) -> list[str]:
    """The texts of a row's prompt and completion, in order."""
    return [part["text"] for message in row["prompt"] + row["completion"] for part in message["content"][-1:]]


def test_a_row_of_one_query_stays_as_it_is() -> None:
    made = some_rows(2)
    assert conversations(made, turns="query", narrate=0.0, seed=0) == [{**row, "narration": []} for row in made]


def test_every_query_of_a_video_comes_first_once_and_the_others_follow_it() -> None:
    answers = {"When is a dog?": "1 to 2", "When is a cat?": "4 to 5", "When is a bird?": "3 to 9"}
    made = conversations(some_rows(2), turns="video", narrate=0.0, seed=0)
    assert [row["query"] for row in made] == [*EVENTS, *EVENTS]
    for row in made:
        questions, replies = said(row)[0::2], said(row)[1::2]
        assert questions[0] == f"When is {row['query']}?"
        assert sorted(questions) == sorted(answers)
        assert replies == [answers[question] for question in questions]
        assert [message["role"] for message in row["completion"]] == ["assistant", "user"] * 2 + ["assistant"]


def test_a_further_turn_has_neither_the_video_nor_the_system_message_again() -> None:
    sample = Sample("a", "a.mp4", 10.0, "a dog", ((1.0, 2.0),))
    other = Sample("b", "a.mp4", 10.0, "a cat", ((2.0, 3.0),))
    made = rows([sample, other], "Look: {video}\nWhen is {query}?", "Be exact.", "{start:.0f}")
    first, _ = conversations(made, turns="video", narrate=0.0, seed=0)
    assert [message["role"] for message in first["prompt"]] == ["system", "user"]
    assert first["completion"][1] == {
        "role": "user",
        "content": [{"type": "text", "text": "Look: "}, {"type": "text", "text": "\nWhen is a cat?"}],
    }


@pytest.mark.parametrize(
    ("narrate", "low", "high"), [(0.0, 0, 0), (0.25, 210, 290), (0.5, 450, 550), (1.0, 1000, 1000)]
)
def test_the_share_of_rows_that_tell_their_events_is_the_one_asked_for(narrate: float, low: int, high: int) -> None:
    told = conversations(some_rows() * 334, turns="query", narrate=narrate, seed=0)[:1000]
    assert low <= sum(bool(row["narration"]) for row in told) <= high


def test_a_narration_is_every_span_of_every_query_of_the_video() -> None:
    samples = [
        Sample("a", "v.mp4", 10.0, "a dog", ((1.0, 2.0), (4.0, 5.0))),
        Sample("b", "v.mp4", 10.0, "a cat", ((3.0, 8.0),)),
        Sample("c", "other.mp4", 10.0, "a bird", ((0.0, 1.0),)),
    ]
    made = rows(samples, "{video}{query}", completion="{start}")
    for row in conversations(made, turns="query", narrate=1.0, seed=0)[:2]:
        assert row["narration"] == [
            {"start": 1.0, "end": 2.0, "text": "a dog"},
            {"start": 4.0, "end": 5.0, "text": "a dog"},
            {"start": 3.0, "end": 8.0, "text": "a cat"},
        ]


def test_the_seed_decides_the_orders_and_the_draws() -> None:
    def made(seed: int) -> list[dict[str, Any]]:
        return conversations(some_rows(20), turns="video", narrate=0.5, seed=seed)

    assert made(1) == made(1)
    assert [said(row) for row in made(1)] != [said(row) for row in made(2)]
    assert [bool(row["narration"]) for row in made(1)] != [bool(row["narration"]) for row in made(2)]


def test_windows_of_one_file_are_clips_of_their_own() -> None:
    early = some_rows(video_start=0.0, video_end=10.0)
    late = some_rows(video_start=10.0, video_end=20.0)[:1]
    made = conversations(early + late, turns="video", narrate=1.0, seed=0)
    assert [len(row["completion"]) for row in made] == [5, 5, 5, 1]
    assert [len(row["narration"]) for row in made] == [3, 3, 3, 1]


def test_rows_are_made_anew_and_their_sources_are_left_alone() -> None:
    made = some_rows()
    conversations(made, turns="video", narrate=1.0, seed=0)
    assert made == some_rows()
