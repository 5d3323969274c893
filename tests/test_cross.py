"""The table of models and test sets."""

from typing import Any

from rlvtg.evaluation.cross import Cell, cross, plain


def metrics(miou: float, **changes: Any) -> dict[str, Any]:
    return {
        "n": 100, "mIoU": miou, "mIoU_low": miou - 0.1, "mIoU_high": miou + 0.1, "R1@0.5": miou / 2,
        "parse_failure_rate": 0.0, "protocol": {"name": "rlvtg"}, **changes,
    }  # fmt: skip


CELLS = [
    Cell("base", "", "charades", metrics(0.25)),
    Cell("runs/a/rl/merged", "charades_train.json", "charades", metrics(0.5)),
    Cell("runs/a/rl/merged", "charades_train.json", "activity|net", metrics(0.75, n=7)),
]


def test_a_row_is_a_model_with_its_train_set_and_a_group_of_columns_is_a_test_set() -> None:
    lines = cross(CELLS).split("\n")
    names = ["mIoU", "R1@0.5", "parse failures"]
    groups = [f"{test}: {name}" for test in ("charades", "activity\\|net") for name in names]
    assert lines[0] == f"| model | trained on | {' | '.join(groups)} |"
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| base | ? | 0.250 [0.150, 0.350] | 0.125 | 0.000 | - | - | - |"
    assert lines[3] == (
        "| runs/a/rl/merged | charades_train.json | 0.500 [0.400, 0.600] | 0.250 | 0.000 "
        "| 0.750 [0.650, 0.850] | 0.375 | 0.000 |"
    )
    assert lines[5].startswith("Protocol rlvtg; charades 100 queries, activity|net 7 queries; mIoU with its 95 %")


def test_the_table_of_the_terminal_is_aligned() -> None:
    header, *rows = plain(CELLS).split("\n\n")[0].split("\n")
    assert [row.split()[0] for row in rows] == ["base", "runs/a/rl/merged"]
    assert len({row.index("?") if "?" in row else row.index("charades_train") for row in rows}) == 1
    assert all(len(row) == len(header) for row in rows)


def test_a_record_is_flat() -> None:
    record = CELLS[2].record()
    assert (record["model"], record["trained_on"], record["test"]) == (
        "runs/a/rl/merged", "charades_train.json", "activity|net",
    )  # fmt: skip
    assert record["mIoU"] == 0.75 and record["protocol"] == {"name": "rlvtg"}
