"""Pages of reports: numbers stand to the right, bars keep their proportions, and a narrow page cuts nothing."""

from __future__ import annotations

import re

import pytest

from lsx.reporting.html import Point, Series, bars, document, plot, table


@pytest.mark.parametrize(
    "text",
    ["12", "-3", "+20.0 %", "1.5e-06", "1,024", "0.9 to 1.1", "1.0, 2.0, 3.5 s", "954 MiB", "25 frames/s", "2x", "inf"],
)
def test_numbers_stand_to_the_right(text: str) -> None:
    assert f'<td class=n data-head="a">{text}</td>' in table(("a",), [(text,)])
    assert "class=n" not in table(("a",), [(text,)], numbers=False)


@pytest.mark.parametrize("text", ["30 s of sound to features", "16-frame chunk", "8.9 (Ada Lovelace)", "-o FOLDER", ""])
def test_words_that_begin_with_a_digit_stand_to_the_left(text: str) -> None:
    assert f'<td data-head="a">{text}</td>' in table(("a",), [(text,)])


def test_every_cell_says_its_column_and_many_columns_become_a_list_on_a_narrow_page() -> None:
    heads = ("graph", "<b>", "cosine", "SNR dB", "max error")
    made = table(heads, [("unet", "x", "1", "2", "3")])
    assert re.findall(r'data-head="([^"]*)"', made) == ["graph", "&lt;b&gt;", "cosine", "SNR dB", "max error"]
    assert "<table class=many>" in made
    assert "class=many" not in table(heads[:4], [("unet", "x", "1", "2")])
    narrow = document("t", []).split("@media (max-width: 40rem)")[1]
    assert ".many td::before { content: attr(data-head)" in narrow


def test_bars_are_as_long_as_their_values() -> None:
    made = bars("times", [("a <b>", 4.0, "4 s"), ("c", 1.0, "1 s")], colours=[5, 7])
    assert re.findall(r"--share: ([\d.]+); --colour: var\(--c(\d)\)", made) == [("1.0000", "5"), ("0.2500", "1")]
    assert '<span class="name">a &lt;b&gt;</span>' in made
    assert bars("none", []) == ""
    assert "--share: 0.0000" in bars("zeros", [("a", 0.0, "0 s")])


def test_nothing_is_wider_than_a_narrow_page() -> None:
    drawing = plot("p", [Series(name="", points=[Point(x=0, y=1), Point(x=1, y=2)])], x_title="x", y_title="y")
    page = document("t", [drawing, bars("b", [("a", 1.0, "1")])])
    assert "min-width: 600px" not in page
    width = float(re.search(r'viewBox="0 0 (\d+) ', drawing)[1])  # type: ignore[index]
    assert 12 * 388 / width > 9  # pixels of a letter, where the page is 420 wide
