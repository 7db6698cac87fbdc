"""How questions and answers are worded, in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from build.demo_checkpoint.world.world import THINGS, Thing

Language = Literal["en", "zh"]

CHINESE = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "purple": "紫色",
    "orange": "橙色",
    "circle": "圆形",
    "square": "方形",
    "triangle": "三角形",
    "star": "星形",
}
CHINESE_NUMBER = "数字"
_PLACES: dict[Language, tuple[str, ...]] = {
    "en": ("top left", "top middle", "top right", "bottom left", "bottom middle", "bottom right"),
    "zh": ("左上", "中上", "右上", "左下", "中下", "右下"),
}

# The phrasings of each kind of question. {x} and {y} are things, {t} is a time.
QUESTIONS: dict[str, dict[Language, tuple[str, ...]]] = {
    "when": {
        "en": ("When does {x} appear?", "When can {x} be seen?", "From when to when is {x} shown?"),
        "zh": ("{x}什么时候出现？", "什么时候能看到{x}？", "{x}从什么时候到什么时候显示？"),
    },
    "when in minutes": {
        "en": ("When does {x} appear? Answer as mm:ss.", "From when to when is {x} shown? Answer as mm:ss."),
        "zh": ("{x}什么时候出现？请用分秒回答。", "什么时候能看到{x}？请用分秒回答。"),
    },
    "what at": {
        "en": (
            "What is shown at {t} seconds?",
            "What can be seen at {t} seconds?",
            "At {t} seconds, what is on the screen?",
        ),
        "zh": ("{t}秒时显示什么？", "第{t}秒能看到什么？", "在{t}秒，画面上有什么？"),
    },
    "where": {
        "en": ("Where is {x}?", "In which place is {x} shown?"),
        "zh": ("{x}在哪里？", "{x}显示在什么位置？"),
    },
    "which number": {
        "en": ("Which number is shown?", "What number can be seen?"),
        "zh": ("显示的数字是什么？", "能看到什么数字？"),
    },
    "which word": {
        "en": ("Which word is shown?", "What word can be seen?"),
        "zh": ("显示的单词是什么？", "能看到什么单词？"),
    },
    "how many": {
        "en": ("How many times does {x} appear?", "How often is {x} shown?"),
        "zh": ("{x}出现几次？", "{x}显示了几次？"),
    },
    "after": {
        "en": ("What appears right after {x}?", "What comes next after {x}?"),
        "zh": ("{x}之后出现什么？", "{x}后面出现什么？"),
    },
    "before": {
        "en": ("What appears right before {x}?", "What comes just before {x}?"),
        "zh": ("{x}之前出现什么？", "{x}前面出现什么？"),
    },
    "left": {
        "en": ("Which is further left, {x} or {y}?",),
        "zh": ("{x}和{y}哪个更靠左？",),
    },
    "summary": {
        "en": (
            "List the chapters.",
            "Summarise the video in chapters.",
            "What happens in the video?",
            "What happens in this video, and when?",
        ),
        "zh": ("请列出章节。", "请分章节总结视频。", "视频里发生了什么？"),
    },
    "said at": {
        "en": ("What is said at {t} seconds?", "What does the subtitle say at {t} seconds?"),
        "zh": ("{t}秒时说了什么？", "第{t}秒的字幕是什么？"),
    },
    "said when": {
        "en": ("When is {x} mentioned?", "When does the subtitle mention {x}?"),
        "zh": ("什么时候提到{x}？", "字幕什么时候提到{x}？"),
    },
    "it when": {
        "en": ("When does it appear?", "When can it be seen?"),
        "zh": ("它什么时候出现？", "什么时候能看到它？"),
    },
    "it where": {"en": ("Where is it?",), "zh": ("它在哪里？",)},
}

AND: dict[Language, str] = {"en": " and ", "zh": "和"}
COMMA: dict[Language, str] = {"en": ", ", "zh": "，"}
COLON: dict[Language, str] = {"en": ":", "zh": "："}
NOT_SHOWN: dict[Language, str] = {"en": "It does not appear.", "zh": "没有出现。"}
NOTHING_SHOWN: dict[Language, str] = {"en": "Nothing.", "zh": "什么都没有。"}


def name(thing: Thing, language: Language) -> str:
    if language == "en":
        return f"the {thing.colour} {thing.name}" if thing.kind == "shape" else f"the {thing.kind} {thing.name}"
    if thing.kind == "shape":
        return CHINESE[thing.colour] + CHINESE[thing.name]
    return f"{CHINESE_NUMBER}{thing.name}" if thing.kind == "number" else f"单词 {thing.name}"


def sentence(text: str, language: Language) -> str:
    return text[0].upper() + text[1:] + "." if language == "en" else text + "。"


def listing(things: Sequence[Thing], language: Language) -> str:
    names = [name(thing, language) for thing in things]
    if not names:
        return NOTHING_SHOWN[language]
    return sentence(AND[language].join(names), language)


def place(cell: int, language: Language) -> str:
    where = _PLACES[language][cell]
    return f"At the {where}." if language == "en" else f"在{where}。"


def times(count: int, language: Language) -> str:
    if language == "zh":
        return f"{count}次。"
    return "1 time." if count == 1 else f"{count} times."


def at(time: str, language: Language) -> str:
    return f"At {time} seconds." if language == "en" else f"在{time}秒。"


def interval(first: str, last: str, language: Language) -> str:
    """From one timestamp to another, seconds as they are written in the prompt."""
    return f"From {first} to {last} seconds." if language == "en" else f"从{first}秒到{last}秒。"


def interval_in_minutes(first: str, last: str, language: Language) -> str:
    """From one time to another, as mm:ss."""
    return f"From {first} to {last}." if language == "en" else f"从{first}到{last}。"


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def chapter(first: str, last: str, things: Sequence[Thing], language: Language) -> str:
    """The things, then when they are shown: which chapter is next, the end of the one before says."""
    names = COMMA[language].join(name(thing, language) for thing in things)
    shown = (sentence(names, language) if names else NOTHING_SHOWN[language])[:-1]
    if language == "en":
        return f"{shown}{COLON[language]} {first} seconds to {last} seconds"
    return f"{shown}{COLON[language]}从{first}秒到{last}秒"


def texts_to_cover() -> list[str]:
    """Sentences that hold every word of every question and answer, in every place it can have: for the tokenizer."""
    texts = ["system\nuser\nassistant\n", "<1.2 seconds>Subtitle:", " nothing nothing", "什么都没有"]
    for language in ("en", "zh"):
        for phrasings in QUESTIONS.values():
            texts += phrasings[language]
        texts += [NOT_SHOWN[language], NOTHING_SHOWN[language], times(1, language), times(2, language)]
        texts += [place(cell, language) for cell in range(6)]
        texts += [
            at("1.2", language),
            interval("1.2", "3.4", language),
            interval_in_minutes("01:02", "03:04", language),
        ]
        for thing in THINGS:
            texts += [listing([thing, thing], language), chapter("1.2", "3.4", [thing, thing], language)]
    return texts
