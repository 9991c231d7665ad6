"""A check of data names all that is wrong with it at once, by the option or file that the user gave."""

from __future__ import annotations

from pathlib import Path

from reviews import review_rows, reviews_folder, write_reviews

from whichlora.data_check import inventory, main

PROBLEM = "1 of 30 rows cannot be used: "


def refusal(capsys, *given: str) -> str:
    """Return the error of a check that prints nothing else."""
    assert main(["check", *given, "--estimate", "false"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return str(output.err)


def test_all_faulty_files_are_named_at_once_by_what_was_given(tmp_path: Path, tiny_model: str, capsys, monkeypatch):
    reviews_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("train-de", "test-tr", "test-de"):
        rows = review_rows(name[-2:], name[:-3], 30)
        rows[4]["stars"] = "9"
        write_reviews(tmp_path / f"{name}.csv", rows)
    for given, named in (([], "task=reviews.yaml"), (["--data_dir", str(tmp_path)], f"data_dir={tmp_path}")):
        error = refusal(capsys, "reviews.yaml", "--model", tiny_model, *given)
        assert error.startswith(f"error: {named}: 3 problems: (1) {PROBLEM}train-de.csv line 6: ")
        assert f"; (2) {PROBLEM}test-de.csv line 6: " in error
        assert f"; (3) {PROBLEM}test-tr.csv line 6: " in error
    monkeypatch.setattr(inventory, "FAULTS", 2)
    error = refusal(capsys, "reviews.yaml", "--model", tiny_model)
    assert f"; (2) {PROBLEM}test-de.csv line 6: " in error
    assert error.endswith("; and 1 more\n")


def test_files_that_are_missing_or_unreadable_are_among_the_faulty_ones(tmp_path: Path, tiny_model: str, capsys):
    task = reviews_folder(tmp_path)
    rows = review_rows("de", "train", 30)
    rows[4]["stars"] = "9"
    write_reviews(tmp_path / "train-de.csv", rows)
    (tmp_path / "test-de.csv").unlink()
    (tmp_path / "train-tr.csv").write_text('a,"b\n')
    error = refusal(capsys, task, "--model", tiny_model)
    assert error.startswith(f"error: task={task}: 3 problems: (1) {PROBLEM}train-de.csv line 6: ")
    assert "; (2) has no test-de.csv for test in de; " in error
    assert "; (3) train-tr.csv " in error
