"""The demo checkpoint's tokenizer: Qwen's splitting rules and added tokens over a byte-level BPE that knows the
world's words.

Every English word, with the space before it, and every Chinese word is one token; every digit is one (Qwen splits
them); any other text is still bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

from build.assemble.checkpoint_tokenizer import ADDED_TOKENS, untrained_tokenizer
from build.demo_checkpoint.world.wording import texts_to_cover

CHINESE_WORDS = [
    "红色",
    "绿色",
    "蓝色",
    "黄色",
    "紫色",
    "橙色",
    "圆形",
    "方形",
    "三角形",
    "星形",
    "数字",
    "单词",
    "什么",
    "时候",
    "出现",
    "看到",
    "显示",
    "位置",
    "画面",
    "哪里",
    "请用",
    "分秒",
    "回答",
    "之后",
    "后面",
    "之前",
    "前面",
    "哪个",
    "更靠左",
    "请列出",
    "请分",
    "章节",
    "总结",
    "视频",
    "发生",
    "没有",
    "都没有",
    "左上",
    "中上",
    "右上",
    "左下",
    "中下",
    "右下",
    "说了",
    "字幕",
    "提到",
]


def build_tokenizer() -> Tokenizer:
    """The same tokenizer every time: learned from a fixed list of words, each whole word in the end one token."""
    tokenizer = untrained_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(_training_words(), trainer)
    tokenizer.add_tokens(
        [AddedToken(name, special=special, normalized=False) for name, special in ADDED_TOKENS.items()]
    )
    return tokenizer


def _training_words() -> list[str]:
    texts = "\n".join(texts_to_cover())
    english = sorted(set(re.findall(r" ?[A-Za-z]+", texts)))
    characters = sorted(set(re.findall(r"[^\x00-\x7f]", texts)))
    # Characters come first and most often, so that no merge joins the end of one character to the start of the next.
    return [character for character in characters for _ in range(1000)] + english + CHINESE_WORDS


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return build_tokenizer()


@lru_cache(maxsize=200_000)
def encode(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=200_000)
def encode_spans(text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Token ids and the characters that each stands for."""
    encoded = tokenizer().encode(text, add_special_tokens=False)
    return tuple(encoded.ids), tuple(encoded.offsets)


@lru_cache(maxsize=64)
def special(name: str) -> int:
    token: int | None = tokenizer().token_to_id(name)
    if token is None:
        raise KeyError(f"{name} is no token of the vocabulary")
    return token
