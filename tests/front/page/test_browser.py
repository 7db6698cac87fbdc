"""A real Chromium drives the page before the real server; only where words matter is an answer scripted."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from qwen3_vl_client.front.page.rendering import to_html
from tests.support import wire
from tests.support.serving import Server

ANSWER = "Rain at 0:02, and from 5.0-6.5: a **dog**."


def drop(page: Page, *files: Path) -> None:
    """As a user drops them from the desktop."""
    contents = [{"name": file.name, "data": list(file.read_bytes())} for file in files]
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const { name, data } of files) transfer.items.add(new File([new Uint8Array(data)], name));
            return transfer;
        }""",
        contents,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def becomes_true(page: Page, expression: str) -> None:
    """Like `wait_for_function`, whose `eval` the page's own policy forbids."""
    deadline = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def answered(page: Page) -> None:
    expect(page.get_by_role("button", name="Ask")).to_be_visible(timeout=60_000)


def set_longest_answer(page: Page, tokens: int) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Longest answer").fill(str(tokens))
    page.get_by_role("button", name="Done").click()


def script(page: Page, *lines: dict[str, Any], path: str = "/ask") -> list[dict[str, Any]]:
    """Answers what is posted there with the lines; gives the list that the questions are put into."""
    asked: list[dict[str, Any]] = []

    def answer(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(body="".join(json.dumps(line) + "\n" for line in lines))

    page.route(f"**{path}", answer)
    return asked


def complete(text: str) -> dict[str, Any]:
    usage = {"completion_tokens": 12, "prompt_tokens": 345}
    return {
        "kind": "answer",
        "text": text,
        "html": to_html(text, 8),
        "finish_reason": "stop",
        "usage": usage,
        "seconds": 1.25,
    }


def test_dropped_video_is_played_looked_at_and_asked_about(page: Page, folder: Path) -> None:
    drop(page, folder / "clip.mp4")
    expect(page.locator("#strip")).to_be_visible()
    frames = page.locator(".frame")
    expect(page.locator("#caption")).to_contain_text("moments are looked at")
    assert frames.count() >= 4
    becomes_true(page, "document.querySelector('.frame img')?.naturalHeight === 96")
    becomes_true(page, "document.getElementById('player').duration === 8")
    frames.nth(2).click()
    expected = float(frames.nth(2).get_attribute("data-seconds") or "nan")
    becomes_true(page, f"Math.abs(document.getElementById('player').currentTime - {expected}) < 0.05")

    set_longest_answer(page, 40)
    seen: list[str] = []
    page.expose_function("seen", lambda text: seen.append(text))
    page.evaluate(
        "new MutationObserver(() => seen(document.querySelector('.assistant .body')?.textContent ?? ''))"
        ".observe(document.getElementById('turns'), {subtree: true, childList: true, characterData: true})"
    )
    ask(page, "What happens?")
    answered(page)
    expect(page.locator(".assistant .note").first).to_contain_text("40 tokens in")
    assert len({len(text) for text in seen}) > 2, "the answer was written step by step"


def test_time_in_an_answer_moves_the_player(page: Page, folder: Path) -> None:
    script(page, {"kind": "text", "text": "Rain", "html": "<p>Rain</p>"}, complete(ANSWER))
    drop(page, folder / "clip.mp4")
    expect(page.locator("#strip")).to_be_visible()
    ask(page, "When?")
    answered(page)
    for link, seconds in (("0:02", 2), ("6.5", 6.5)):
        page.get_by_role("link", name=link).click()
        becomes_true(page, f"Math.abs(document.getElementById('player').currentTime - {seconds}) < 0.05")


def test_follow_up_has_the_conversation(page: Page, folder: Path) -> None:
    asked = script(page, complete(ANSWER))
    drop(page, folder / "clip.mp4", folder / "photo.png", folder / "clip.srt")
    expect(page.locator("#files li")).to_have_count(3)
    ask(page, "When?")
    answered(page)
    ask(page, "Which dog?")
    answered(page)
    first, second = asked
    assert len(first["files"]) == 3
    assert second["files"] == first["files"]
    assert [turn["text"] for turn in second["turns"]] == ["When?", ANSWER, "Which dog?"]


def test_stop_in_the_middle_ends_the_request(page: Page, server: Server) -> None:
    wire.wait_idle(server.grpc_url)
    set_longest_answer(page, 20_000)
    ask(page, "Tell me everything.")
    expect(page.locator(".assistant .body")).not_to_be_empty()
    assert wire.engine_state(server.grpc_url)["sessions"] == 1
    page.get_by_role("button", name="Stop").click()
    answered(page)
    expect(page.locator(".assistant .note")).to_have_text("stopped")
    wire.wait_idle(server.grpc_url, seconds=10)
    kept = page.locator(".assistant .body").inner_text()
    time.sleep(0.3)
    assert page.locator(".assistant .body").inner_text() == kept


def test_template_is_edited_and_kept(page: Page) -> None:
    page.get_by_role("button", name="Find an event").click()
    question = page.get_by_label("Your question")
    expect(question).to_have_value(re.compile("^When does … happen"))
    page.keyboard.type("the goal")
    expect(question).to_have_value(re.compile("^When does the goal happen"))
    page.get_by_role("button", name="Edit…").click()
    page.get_by_label("Name").first.fill("Goals")
    page.get_by_label("Question", exact=True).first.fill("Which goals?")
    page.get_by_role("button", name="Done").click()
    page.reload()
    page.get_by_role("button", name="Goals").click()
    expect(question).to_have_value("Which goals?")


def test_chaptered_summary_is_exported_in_every_form(page: Page, folder: Path) -> None:
    page.get_by_role("button", name="Chaptered summary").click()
    drop(page, folder / "clip.mp4")
    expect(page.locator("#strip")).to_be_visible()
    page.get_by_role("button", name="Ask").click()
    answered(page)
    assert page.locator(".assistant a.time").count() >= 1
    exported = {}
    for name in ("Markdown", "JSON", "Chapters (WebVTT)", "Chapters (SRT)"):
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=name).click()
        exported[download.value.suggested_filename] = Path(download.value.path()).read_text()
    assert list(exported) == ["clip.md", "clip.json", "clip.vtt", "clip.srt"]
    assert exported["clip.md"].startswith("# clip.mp4\n\n## Summarise this video")
    chapters = json.loads(exported["clip.json"])["summary"]["chapters"]
    assert chapters[0]["start"] < chapters[-1]["end"] <= 8
    assert exported["clip.vtt"].startswith("WEBVTT\n\n00:00:0")
    assert exported["clip.srt"].startswith("1\n00:00:0")


def test_video_that_does_not_fit_is_read_part_by_part(page: Page, folder: Path) -> None:
    chapter = {"start": 2.0, "end": 8.0, "title": "Rain", "key_points": []}
    asked = script(
        page,
        {"kind": "parts", "total": 2},
        {"kind": "part", "index": 0, "chapters": [chapter]},
        {"kind": "merged", "done": 1, "total": 1},
        {"kind": "summary", "text": "# Rain", "html": to_html("# Rain", 8), "formats": {}},
        path="/summarize",
    )
    drop(page, folder / "clip.mp4")
    expect(page.locator("#strip")).to_be_visible()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Context length").fill("300")
    page.get_by_label("Frames per second").fill("10")
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#caption")).to_contain_text("it will be read part by part")
    ask(page, "When does it rain?")
    answered(page)
    expect(page.get_by_role("heading", name="Rain")).to_be_visible()
    assert (asked[0]["about"], asked[0]["options"]["context_length"]) == ("When does it rain?", 300)


def test_broken_file_says_what_to_do(page: Page, folder: Path) -> None:
    drop(page, folder / "broken.mp4")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("broken.mp4: This file cannot be read. Choose another one, or convert it")
    expect(alert).to_contain_text("broken.mp4 is not a readable video")
    expect(page.locator("#files li")).to_have_count(0)


def test_format_that_no_browser_plays_still_shows_pictures(page: Page, folder: Path) -> None:
    drop(page, folder / "clip.avi")
    expect(page.locator("#strip")).to_be_visible()
    expect(page.locator("#unplayable")).to_be_visible()
    page.locator(".frame").last.click()
    becomes_true(page, "document.getElementById('still').naturalHeight === 96")


def test_error_of_the_server_says_what_to_do(page: Page) -> None:
    script(page, {"kind": "error", "code": "resource_exhausted", "message": "256 requests wait"})
    ask(page, "?")
    expect(page.get_by_role("alert")).to_contain_text("The server is full. Wait a moment")
    expect(page.get_by_role("alert")).to_contain_text("256 requests wait")


def test_two_users_see_their_own_files(page: Page, browser: Browser, page_url: str, folder: Path) -> None:
    drop(page, folder / "clip.mp4")
    expect(page.locator("#files li")).to_have_count(1)
    content = page.locator("#player").get_attribute("src") or ""
    other = browser.new_context()
    try:
        assert other.request.get(page_url).ok
        assert other.request.get(page_url + "/files").json() == []
        assert other.request.get(page_url + content).status == 404
        assert page.request.get(page_url + content).ok
    finally:
        other.close()


def test_chinese(page: Page) -> None:
    page.get_by_role("button", name="中文").click()
    expect(page).to_have_title("问视频")
    expect(page.get_by_role("button", name="提问")).to_be_visible()
    page.get_by_role("button", name="会议纪要").click()
    expect(page.locator("#question")).to_have_value(re.compile("会议"))
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("button", name="设置").click()
    expect(page.get_by_label("温度")).to_have_value("0.7")
    assert not re.search(r"[A-Za-z]{12,}", page.locator("body").inner_text())


def test_phone(page: Page, folder: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    script(page, complete("It rains. " * 40 + ANSWER))
    drop(page, folder / "clip.mp4")
    expect(page.locator("#strip")).to_be_visible()
    ask(page, "When?")
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    link = page.get_by_role("link", name="0:02")
    link.scroll_into_view_if_needed()
    expect(page.locator("#player")).to_be_in_viewport()
    link.click()
    becomes_true(page, "Math.abs(document.getElementById('player').currentTime - 2) < 0.05")
    page.get_by_role("button", name="Settings").click()
    assert page.locator("#settings").evaluate("dialog => dialog.scrollWidth <= 390")


def test_keyboard_alone(page: Page, folder: Path) -> None:
    script(page, complete(ANSWER))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("When?")
    page.keyboard.press("Enter")
    answered(page)
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")
    page.get_by_role("button", name="Export").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Markdown")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="JSON")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Export")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_text_stands_out(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, select, img')].filter((element) =>
            !(element.textContent.trim() || element.labels?.length || element.hasAttribute('alt') ||
              element.getAttribute('aria-label'))).map((element) => element.outerHTML)"""
    )
    assert nameless == []
    contrast = page.evaluate(
        """() => {
            const light = (color) => {
                const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
                    const share = part / 255;
                    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            const backdrop = (element) => {
                const color = getComputedStyle(element).backgroundColor;
                return color === 'rgba(0, 0, 0, 0)' ? backdrop(element.parentElement) : color;
            };
            return [...document.querySelectorAll('h1, .quiet:enabled, .drop span, .empty p, .primary, .chip')].map(
                (element) => {
                    const [a, b] = [light(getComputedStyle(element).color), light(backdrop(element))];
                    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                });
        }"""
    )
    assert min(contrast) >= 4.5
