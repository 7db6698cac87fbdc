"""Answers as HTML: times are links, nothing else is."""

from __future__ import annotations

import re

import pytest

from qwen3_vl_client.front.page.rendering import to_html


def times(text: str, seconds: float = 4000.0) -> list[float]:
    return [float(found) for found in re.findall(r'data-seconds="([^"]*)"', to_html(text, seconds))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("At 1:05 and 01:02:03.", [65, 3723]),
        ("**0:05** and (0:07–0:09)", [5, 7, 9]),
        ("<2.5 seconds> a dog", [2.5]),
        ("from 3 to 5 seconds", [3, 5]),
        ("1.7-15.8: a dog", [1.7, 15.8]),
        ("第3秒，3.5秒", [3, 3.5]),
        ("| a |\n|-|\n| 0:03 |", [3]),
        ("It lasts for 5 seconds.", []),
        ("the ratio 16:9, the version 1:2:3:4", []),
        ("`0:03`", []),
        ("at 2:00:00, after the end", []),
    ],
)
def test_times_are_links(text: str, expected: list[float]) -> None:
    assert times(text) == expected


def test_nothing_else_leads_out_or_runs() -> None:
    html = to_html("<script>x</script> <b onclick=x> [a](javascript:x) [b](http://b.example) ![c](http://c.example)", 9)
    assert re.findall(r"<(\w+)", html) == ["p"]


def test_markdown() -> None:
    assert to_html("# A\n\n- b\n- *c*", 9) == "<h1>A</h1>\n<ul>\n<li>b</li>\n<li><em>c</em></li>\n</ul>\n"
