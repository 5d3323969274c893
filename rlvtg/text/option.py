"""The letter of the option that an answer to a multiple-choice question names."""

from string import ascii_letters, ascii_uppercase


def option_letter(answer: str) -> str | None:
    """The letter that `answer` begins with, as a capital: `B`, `b`, `(B)`, `B. the dog`, `B) the dog`, `B: the dog`.

    None for a letter that is part of a word or has a word behind it, as in `A dog`.
    """
    answer = answer.strip()
    if answer.startswith("("):
        letter, closed, _ = answer[1:].partition(")")
        letter = letter.strip() if closed else ""
    else:
        letter = answer[:1] if answer[1:2] in ("", ".", ")", ":") else ""
    return letter.upper() if len(letter) == 1 and letter in ascii_letters else None


_LEAD_INS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
)


def first_capital(answer: str) -> str:
    """The first capital A to G after some lead-ins are taken out, or "", as VideoChat-R1 and Time-R1 read an answer.

    Any capital counts: `Best answer: A` reads B, `I think it is DOG` reads D, `a` reads nothing.
    Source: `extract_characters_regex`, OpenGVLab/VideoChat-R1@73b2ea9 grpo_tasks.py; the same in
    xiaomi-research/time-r1@7f2b594 finetune.py.
    """
    for lead_in in _LEAD_INS:
        answer = answer.replace(lead_in, "")
    return next((letter for letter in answer if letter in "ABCDEFG"), "")


def last_bracketed_letter(text: str) -> str | None:
    """The last capital letter in parentheses, as in `(B)`, anywhere in a text; None if there is none.

    How Time-R1's evaluation reads a choice, xiaomi-research/time-r1@7f2b594 evaluate.py.
    """
    for start in range(len(text) - 3, -1, -1):
        if text[start] == "(" and text[start + 2] == ")" and text[start + 1] in ascii_uppercase:
            return text[start + 1]
    return None
