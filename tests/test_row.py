from dataclasses import replace
from typing import Any

import pytest

from rlvtg.data.row import COLUMNS, first_of_each_task, rows
from rlvtg.data.sample import DataError, Sample

DOG = Sample("a", "v/a.mp4", 10.0, "a dog", ((1.0, 2.5), (4.0, 5.0)))


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


VIDEO = {"type": "video"}


def test_a_row_has_the_fields_of_its_sample_and_a_prompt() -> None:
    assert rows([DOG], "{video}When is {query}?") == [
        {
            "id": "a",
            "video": "v/a.mp4",
            "duration": 10.0,
            "query": "a dog",
            "spans": [[1.0, 2.5], [4.0, 5.0]],
            "task": "grounding",
            "video_start": None,
            "video_end": None,
            "answer": None,
            "options": None,
            "verb": None,
            "masked_query": None,
            "prompt": [{"role": "user", "content": [VIDEO, text("When is a dog?")]}],
        }
    ]


def test_the_columns_are_known_without_any_row() -> None:
    assert tuple(rows([DOG], "{video}{query}")[0]) == COLUMNS
    assert tuple(rows([DOG], "{video}{query}", completion="{start}")[0]) == (*COLUMNS, "completion")


@pytest.mark.parametrize(
    ("template", "content"),
    [
        ("{video}\n{query}", [VIDEO, text("\na dog")]),
        ("Find {query} in {video}\n", [text("Find a dog in "), VIDEO]),
        ("{duration:.1f} s: {video} {query} {query}", [text("10.0 s: "), VIDEO, text(" a dog a dog")]),
        ("{{x}} {video}{query}", [text("{x} "), VIDEO, text("a dog")]),
    ],
)
def test_the_video_stands_where_the_template_puts_it(template: str, content: list[dict[str, str]]) -> None:
    assert rows([DOG], template)[0]["prompt"] == [{"role": "user", "content": content}]


def asked(prompt: str, **fields: Any) -> str:
    """The text behind the video of a row's prompt."""
    return rows([replace(DOG, **fields)], prompt)[0]["prompt"][0]["content"][-1]["text"]


def test_a_prompt_may_hide_the_verb_or_offer_options() -> None:
    assert asked("{video}Complete: {masked_query}", query="a dog jumps", masked_query="a dog") == "Complete: a dog"
    assert asked("{video}Tell all.") == "Tell all."
    assert asked("{video}Which?\n{options}", options=("a dog", "a {cat}")) == "Which?\n(A) a dog\n(B) a {cat}"


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (("A. a dog", "B. a cat"), "(A) a dog\n(B) a cat"),
        (("(A) a dog", "(B)a cat"), "(A) a dog\n(B) a cat"),
        (("A. Lincoln", "G. Grant"), "(A) A. Lincoln\n(B) G. Grant"),
        (("B. a cat", "A. a dog"), "(A) B. a cat\n(B) A. a dog"),
    ],
)
def test_options_that_bring_their_letters_are_not_lettered_twice(options: tuple[str, ...], written: str) -> None:
    assert asked("{video}{options}", options=options) == written


@pytest.mark.parametrize(
    ("prompt", "fields", "message"),
    [
        ("{video}{options}", {}, "row 'a' has no options, which the prompt shows as {options}"),
        ("{video}{options}", {"options": ()}, "row 'a' has no options"),
        ("{video}{masked_query}", {}, "row 'a' has no masked_query, which the prompt shows as {masked_query}"),
        ("{video}{options}", {"options": ("x",) * 27}, "row 'a' has 27 options; there are 26 letters"),
    ],
)
def test_a_row_that_lacks_what_its_prompt_shows_is_named(prompt: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows([replace(DOG, id="b", options=("x",), masked_query="a dog"), replace(DOG, **fields)], prompt)


def test_the_first_row_of_each_task_is_found() -> None:
    tasks = ["qa", "tvg", "qa", "caption"]
    made = [{"id": number, "task": task} for number, task in enumerate(tasks)]
    assert [row["id"] for row in first_of_each_task(made)] == [0, 1, 3]
    assert first_of_each_task([{"id": 7}]) == [{"id": 7}]


def test_a_system_message_comes_first() -> None:
    prompt = rows([DOG], "{video}{query}", system="Be {exact}.")[0]["prompt"]
    assert prompt[0] == {"role": "system", "content": [text("Be {exact}.")]}
    assert [message["role"] for message in prompt] == ["system", "user"]


def test_braces_in_a_query_are_only_text() -> None:
    odd = replace(DOG, query="{video} {0} {{x}} }")
    row = rows([odd], "{video}{query}", completion="{query}: {start}")[0]
    assert row["prompt"][0]["content"] == [VIDEO, text("{video} {0} {{x}} }")]
    assert row["completion"][0]["content"] == [text("{video} {0} {{x}} }: 1.0")]


def test_a_completion_template_is_filled_from_the_first_span() -> None:
    row = rows([DOG], "{video}{query}", completion="<answer>{start:02.0f} to {end:.2f}</answer> of {duration:.0f}")[0]
    assert row["completion"] == [{"role": "assistant", "content": [text("<answer>01 to 2.50</answer> of 10")]}]


def test_a_samples_own_completion_wins() -> None:
    own = replace(DOG, id="b", completion="own {start}")
    made = rows([DOG, own], "{video}{query}", completion="{start}")
    assert [row["completion"][0]["content"] for row in made] == [[text("1.0")], [text("own {start}")]]
    assert rows([own], "{video}{query}", supervised=True)[0]["completion"][0]["content"] == [text("own {start}")]


def test_completions_are_left_out_of_rows_that_are_not_supervised() -> None:
    own = replace(DOG, id="b", completion="own")
    assert all("completion" not in row for row in rows([own, DOG], "{video}{query}"))


def test_a_row_without_any_completion_is_named() -> None:
    own = replace(DOG, id="b", completion="own")
    with pytest.raises(DataError, match="row 'a' has no completion"):
        rows([own, DOG], "{video}{query}", supervised=True)
    with pytest.raises(DataError, match="row 'a' has no span"):
        rows([replace(DOG, spans=())], "{video}{query}", completion="{start}")


@pytest.mark.parametrize(
    ("prompt", "completion", "message"),
    [
        ("{query}", None, r"\{video\} exactly once"),
        ("{video}{video}{query}", None, r"\{video\} exactly once"),
        ("{video}{qeury}", None, r"\{qeury\}; allowed are .*did you mean \{query\}"),
        ("{video}{query.__class__}", None, "allowed are"),
        ("{video}{query!r}", None, "not supported"),
        ("{video}{query:{duration}}", None, "not supported"),
        ("{video}{query", None, "malformed"),
        ("{video}{query:d}", None, r"cannot format \{query:d\}"),
        ("{video}{query}", "{stop}", r"completion template has \{stop\}"),
        ("{video}{query}", "{video}", "completion template"),
        ("{video}{query}", "{start:02d}", r"cannot format \{start:02d\}"),
    ],
)
def test_a_wrong_template_is_an_error(prompt: str, completion: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows([DOG], prompt, completion=completion)
