"""Our functions equal the papers' own code on every recorded input on which that code is well defined."""

import math
from numbers import Real

import pytest

from tests.reference_cases import METHODS, cases, score

# How exactly the values were recorded: advantages with 6 decimals, one metric in float32, one rounded to 5 decimals.
COARSE = {"grpo_advantage": 1e-5, "paper_advantage_anchoring": 1e-5, "eval_grounding.eval": 1e-6, "et_bench": 1e-5}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def tolerance(reward):
    return next((value for name, value in COARSE.items() if reward.startswith(name)), 1e-9)


def agrees(got, want, within):
    """Equal, with numbers allowed to differ by `within` (relative, or absolute around 0 for coarse records)."""
    if isinstance(want, bool) or isinstance(got, bool) or want is None or got is None:
        return got == want and (got is None) == (want is None)
    if isinstance(want, Real) and isinstance(got, Real):
        absolute = within if within > 1e-9 else 1e-12
        return math.isclose(got, want, rel_tol=within, abs_tol=absolute)
    if isinstance(want, dict) and isinstance(got, dict):
        return got.keys() == want.keys() and all(agrees(got[key], want[key], within) for key in want)
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(got) == len(want) and all(agrees(a, b, within) for a, b in zip(got, want, strict=True))
    return got == want


def numbers(value):
    """The numbers in a value, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, Real) else []


@pytest.mark.parametrize(
    ("got", "want", "equal"),
    [
        (1.0, 1, True),
        (0.5, 0.5 + 1e-12, True),
        (0.5, 0.5 + 1e-8, False),
        (1, True, True),
        (None, 0.0, False),
        ([[1.0, 2.0]], [(1, 2)], True),
        ([1.0], [1.0, 2.0], False),
        ({"a": 1.0}, {"a": 1.0}, True),
        ({"a": 1.0}, {"b": 1.0}, False),
        (math.nan, 0.0, False),
        ("A", "A", True),
    ],
)
def test_agreement_sees_differences(got, want, equal):
    assert agrees(got, want, 1e-9) is equal


@EVERY_METHOD
def test_well_defined_cases_are_equal(method):
    rows = cases(method, "")
    assert len(rows) > 50
    faults = []
    for row in rows:
        got = score(method, row["reward"], row["completion"], row["kwargs"])
        if not agrees(got, row["value"], tolerance(row["reward"])):
            faults.append(f"{row['reward']} {row['completion']!r} {row['kwargs']}: got {got}, want {row['value']}")
    assert not faults, "\n".join([f"{len(faults)} of {len(rows)} differ", *faults[:20]])


@EVERY_METHOD
def test_where_the_reference_fails_we_give_finite_numbers(method):
    for row in cases(method, "defect"):
        got = score(method, row["reward"], row["completion"], row["kwargs"])
        assert all(map(math.isfinite, numbers(got))), f"{row['reward']} {row['kwargs']}: got {got}"


@EVERY_METHOD
def test_every_kind_of_row_can_be_scored(method):
    for row in cases(method, "", "defect", "reconstruction"):
        score(method, row["reward"], row["completion"], row["kwargs"])


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="'time_r2', want one of"):
        score("time_r2", "iou", "", {})
