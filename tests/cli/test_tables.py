"""The renderer of all commands: tables where they fit, records where they do not, and ids that stay whole."""

from __future__ import annotations

import re

import pytest

from sync_worker.cli.tables import print_table

USER = "user:user_2abcDEFghiJKLmnoPQRstuVWXyz"
HEADINGS = ("subject", "name", "change", "why")
ROW = (USER, "Ada Lovelace", "grant", "missing in Clerk (ent-1, ent-2, an-entitlement-with-a-long-id)")


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Printed:
    return Printed(capsys, monkeypatch)


class Printed:
    """What is printed at a width; 0 is a pipe."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, width: int, *rows: tuple[object, ...], headings: tuple[str, ...] = HEADINGS) -> list[str]:
        self.monkeypatch.setenv("COLUMNS", str(width or ""))
        print_table(headings, rows, empty="nothing differs")
        return self.capsys.readouterr().out.splitlines()


def test_what_fits_is_a_table_at_any_width(printed: Printed) -> None:
    lines = printed(40, ("pro", 3), ("a longer plan", 12), headings=("plan", "users"))
    assert lines == ["plan           users", "pro            3", "a longer plan  12"]


@pytest.mark.parametrize("width", [30, 60, 119])
def test_below_120_columns_what_does_not_fit_is_one_record_for_each_row(printed: Printed, width: int) -> None:
    lines = printed(width, ROW, ROW)
    assert lines[:3] == [USER, "  name    Ada Lovelace", "  change  grant"]
    assert lines[3].startswith("  why     missing in")
    assert lines.count(USER) == 2
    assert max(len(line) for line in lines if USER not in line and "an-entitlement" not in line) <= width


@pytest.mark.parametrize("width", [120, 125])
def test_from_120_columns_on_cells_wrap_at_spaces(printed: Printed, width: int) -> None:
    lines = printed(width, ROW, (USER, "Ben", "revoke", "not published"))
    assert lines[0].split() == list(HEADINGS)
    assert [line.split()[0] for line in lines if line.startswith("user:")] == [USER, USER]
    assert max(map(len, lines)) <= width
    assert len({line.index("missing") for line in lines if "missing" in line} | {lines[0].index("why")}) == 1


@pytest.mark.parametrize("width", [1, 20, 40, 80, 120, 121, 200, 0])
def test_no_id_is_ever_broken_in_two(printed: Printed, width: int) -> None:
    words = [word for cell in ROW for word in str(cell).split()]
    text = " ".join(printed(width, ROW))
    assert [word for word in words if word not in text] == []


def test_a_pipe_gets_one_line_for_each_row(printed: Printed) -> None:
    assert len(printed(0, ROW, (*ROW[:3], "word " * 100))) == 3


def test_what_is_empty_is_said_in_a_sentence(printed: Printed) -> None:
    assert printed(80) == ["nothing differs"]


def test_a_column_without_content_is_left_out(printed: Printed) -> None:
    assert printed(200, (USER, "", "grant", None))[0].split() == ["subject", "change"]


def test_control_characters_never_reach_the_terminal(printed: Printed) -> None:
    assert "\x1b" not in "".join(printed(80, ("\x1b[31mred", "", "", "")))


def test_no_color_turns_colours_off(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    colour = re.compile(r"\x1b\[(\d+;)*3\dm")
    assert colour.search("".join(printed(200, ROW)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search("".join(printed(200, ROW)))
