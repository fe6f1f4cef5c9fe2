"""Problems as text and as data."""

from headrace.pipeline.problems import CODES, PROBLEMS_MAX, Problem, RefusedDefinitionError, shown


def test_a_problem_is_one_line() -> None:
    """`file:line:column: code text; hint`."""
    assert str(Problem("p.yaml", 3, 7, "E1101", "unknown key `x`", "did you mean `y`?")) == (
        "p.yaml:3:7: E1101 unknown key `x`; did you mean `y`?"
    )
    assert str(Problem("p.yaml", 3, 7, "E1101", "unknown key `x`")) == "p.yaml:3:7: E1101 unknown key `x`"


def test_problems_are_sorted_by_place_said_once_and_at_most_fifty() -> None:
    """Columns are numbers: 9 comes before 10."""
    found = [Problem("p", 1, column, "E1101", "x") for column in (10, 9, 9)]
    assert [problem.column for problem in RefusedDefinitionError(found).found] == [9, 10]
    many = RefusedDefinitionError(Problem("p", line, 1, "E1101", "x") for line in range(1, 99))
    assert len(many.problems) == PROBLEMS_MAX


def test_codes_are_e_and_four_digits() -> None:
    """A number is allotted once: adding one in the middle is fine, reusing one is not."""
    assert all(code[0] == "E" and code[1:].isdigit() and len(code) == 5 for code in CODES)


def test_values_are_shown_short_escaped_and_on_one_line() -> None:
    """A file cannot write to the terminal of who checks it."""
    values: tuple[object, ...] = (None, True, 12, 1e3, {}, [])
    assert [shown(value) for value in values] == [
        "null",
        "true",
        "12",
        "1000.0",
        "a map",
        "a list",
    ]
    assert shown("a\nb\x1b[0m") == '"a\\nb\\x1b[0m"'
    assert len(shown("x" * 10_000)) < 70
