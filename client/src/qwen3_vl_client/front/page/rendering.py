"""Answers as HTML: Markdown without raw HTML, and every time of the video a link that the page seeks to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

_TIME = re.compile(
    # A length of time is no place in the video.
    r"(?<!for )(?<!lasts )(?<!every )(?<!within )(?<!\d)(?<![\d:.])"
    r"(?:(?:(?P<hours>\d{1,2}):)?(?P<minutes>\d{1,2}):(?P<seconds>[0-5]\d(?:\.\d+)?)(?![\d:])"
    r"|(?P<number>\d+(?:\.\d+)?)\s?(?:seconds?\b|secs?\b|s\b|秒)"
    # "1.7-15.8: a dog", "from 3 to 5 s"
    r"|(?P<first>\d+(?:\.\d+)?)(?=\s?(?:[-–~]|to|到|至)\s?\d+(?:\.\d+)?(?::|\s?s(?:ec(?:ond)?s?)?\b|\s?秒))"
    r"|(?<=[-–~])(?P<last>\d+(?:\.\d+)?)(?=:(?!\d)))"
)


def to_html(text: str, seconds: float) -> str:
    """`text` as HTML; times up to `seconds`, the end of the video, become `<a class="time" data-seconds="83.5">`."""
    # A time in angle brackets, as the prompt writes it, would be read as HTML.
    plain = re.sub(r"<(\d+(?:\.\d+)? seconds)>", r"\1", text)
    return str(_MARKDOWN.render(plain, {"seconds": seconds}))


def _link_times(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "inline" and token.children:
            token.children = [linked for child in token.children for linked in _linked(child, state.env["seconds"])]


def _linked(token: Token, end: float) -> Iterator[Token]:
    if token.type != "text":
        yield token
        return
    cursor = 0
    for match in _TIME.finditer(token.content):
        seconds = _seconds(match)
        if seconds > end:
            continue
        yield _text(token.content[cursor : match.start()])
        link = Token("html_inline", "", 0)
        shown = escapeHtml(match[0])
        link.content = f'<a class="time" href="#t={seconds:g}" data-seconds="{seconds:g}">{shown}</a>'
        yield link
        cursor = match.end()
    yield _text(token.content[cursor:])


def _seconds(match: re.Match[str]) -> float:
    if number := match["number"] or match["first"] or match["last"]:
        return float(number)
    return int(match["hours"] or 0) * 3600 + int(match["minutes"]) * 60 + float(match["seconds"])


def _text(content: str) -> Token:
    token = Token("text", "", 0)
    token.content = content
    return token


_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
# Images and links of other sites would be the work of what is shown in a video.
_MARKDOWN.disable(["image", "link", "autolink"])
_MARKDOWN.core.ruler.push("times", _link_times)
