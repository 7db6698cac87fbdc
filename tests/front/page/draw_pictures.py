"""Takes the pictures of the page that the documentation shows, from a running page.

make webui      # in another terminal
.venv/bin/python tests/front/page/draw_pictures.py http://127.0.0.1:7860
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "client" / "pictures"
VIDEO = ROOT / "client" / "examples" / "scenes.mp4"
COLORS = 128
ANSWER_MILLISECONDS = 120_000


def draw(browser: Browser, url: str, name: str, size: tuple[int, int], language: str, scheme: str) -> None:
    """Asks about the sample video and writes what is seen, in few colours."""
    question = "单词 SUN什么时候出现？" if language == "zh-CN" else "When does the word SUN appear?"
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        locale=language,
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(url)
    page.set_input_files("#choose", VIDEO)
    expect(page.locator("#strip")).to_be_visible(timeout=ANSWER_MILLISECONDS)
    page.fill("#question", question)
    page.keyboard.press("Enter")
    expect(page.locator("#send")).to_be_visible(timeout=ANSWER_MILLISECONDS)
    page.locator(".frame").nth(2).click()
    # The player's controls go by themselves.
    page.mouse.move(5, 5)
    page.wait_for_timeout(5000)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)
    context.close()


def main() -> None:
    (url,) = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        draw(browser, url, "page.png", (1280, 800), "en-US", "light")
        draw(browser, url, "dark.png", (1280, 800), "en-US", "dark")
        draw(browser, url, "phone.png", (390, 844), "zh-CN", "light")
        browser.close()


if __name__ == "__main__":
    main()
