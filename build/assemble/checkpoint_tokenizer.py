"""The tokenizer and chat template of the random checkpoints: small, but Qwen's in every rule.

Byte-level BPE as in Qwen2 and Qwen3 (NFC, the same splitting expression, digits one by one), trained on the text below,
with Qwen's added tokens under their own names and in their own order behind the learned vocabulary.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# Name and whether it is "special" (left out of decoded text), in the order in which Qwen numbers them.
ADDED_TOKENS: dict[str, bool] = {
    "<|endoftext|>": True,
    "<|im_start|>": True,
    "<|im_end|>": True,
    "<|object_ref_start|>": True,
    "<|object_ref_end|>": True,
    "<|box_start|>": True,
    "<|box_end|>": True,
    "<|quad_start|>": True,
    "<|quad_end|>": True,
    "<|vision_start|>": True,
    "<|vision_end|>": True,
    "<|vision_pad|>": True,
    "<|image_pad|>": True,
    "<|video_pad|>": True,
    "<tool_call>": False,
    "</tool_call>": False,
    "<|fim_prefix|>": False,
    "<|fim_middle|>": False,
    "<|fim_suffix|>": False,
    "<|fim_pad|>": False,
    "<|repo_name|>": False,
    "<|file_sep|>": False,
    "<tool_response>": False,
    "</tool_response>": False,
    "<think>": False,
    "</think>": False,
}

# transformers' Qwen2Tokenizer splits by the same expression: both must cut a text alike.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LEARNED_TOKENS = 640

CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content -%}
        {%- for part in content if 'text' in part -%}
            {{- part.text -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<|im_start|>user\\n' -}}
        {%- if message.content is string -%}
            {{- message.content -}}
        {%- else -%}
            {%- for part in message.content -%}
                {%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
                    {%- set seen.images = seen.images + 1 -%}
                    {{- 'Picture %d: ' % seen.images if add_vision_id -}}
                    {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
                {%- elif part.type == 'video' or 'video' in part -%}
                    {%- set seen.videos = seen.videos + 1 -%}
                    {{- 'Video %d: ' % seen.videos if add_vision_id -}}
                    {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
                {%- elif 'text' in part -%}
                    {{- part.text -}}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
        {{- '<|im_end|>\\n' -}}
    {%- elif message.role == 'assistant' or (message.role == 'system' and loop.first) -%}
        {{- '<|im_start|>' + message.role + '\\n' + text_of(message.content) + '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

TRAINING_TEXT = """\
system user assistant seconds second video image picture frame question answer
You are a helpful assistant. You look at a video and say what happens, and at which second it happens.
Describe the video. Describe this image in one sentence. What is in the picture? What happens in the video?
When does the red square appear? When does the green circle leave the frame? The red square appears at 12.5 seconds.
The person opens the door at 3.0 seconds, walks across the room, sits down on the chair and reads a book until 47.5
seconds.
A small dog runs along the beach. A white car turns left at the corner, stops at the light, then drives on to the
bridge.
First, the camera shows the street; then it moves to the window. After that the light changes from yellow to blue.
How many people are there in the scene? There are three people in the scene: two women at the table and a man near
the wall.
What color is the ball? The ball is orange. It rolls from the left side to the right side and falls behind the box.
Please count how often the hand is raised, and list the times. The hand is raised four times, at 1.5, 8.0, 20.5 and
33.0 seconds.
Is there any text on the screen? Yes, the sign says "Open from nine to five". No, there is no text on the screen.
In the beginning the sky is dark, and in the end the sun is shining over the mountains, the river and the trees.
She isn't sure whether they've seen it; he doesn't think so, but I'm certain we'll find it, and you'd better look
again.
The cook cuts the onions, puts them into the pan, adds water and salt, and stirs for ten minutes before serving the
soup.
Two teams are playing football on the field. The player in the black shirt passes the ball, and the goalkeeper
catches it.
Between the first and the last frame nothing changes: the room stays empty, the clock on the wall shows the same
time.
The train arrives at the station, the doors open, passengers get off and others get on, and then the train departs
again.
你好。请描述这个视频。视频里发生了什么？什么时候出现红色的方块？红色的方块在第十二秒出现。
这张图片里有什么？图片里有一只小狗在海边奔跑。一辆白色的汽车在路口向左转，然后停在红灯前面。
画面中有几个人？画面中有三个人：两个女人坐在桌子旁边，一个男人站在墙边。他们在看同一个屏幕。
首先，镜头对着街道；然后移动到窗户；最后灯光从黄色变成蓝色。时间是几点？时间是上午九点。
厨师把洋葱切好，放进锅里，加水和盐，搅拌十分钟。火车到站，车门打开，乘客下车，其他人上车。
开始的时候天空是黑暗的，最后太阳照在山上、河上和树上。请回答问题，并说出事情发生的时间。
"""


def untrained_tokenizer() -> Tokenizer:
    """Qwen's byte-level BPE without merges: normalisation, splitting, decoding."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return tokenizer


def build_tokenizer() -> Tokenizer:
    """Train the byte-level BPE on the embedded text and append Qwen's added tokens: the same tokenizer every time."""
    tokenizer = untrained_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT.splitlines(keepends=True), trainer)
    tokenizer.add_tokens(
        [AddedToken(name, special=special, normalized=False) for name, special in ADDED_TOKENS.items()]
    )
    return tokenizer


def write_tokenizer(folder: Path, *, model_max_length: int) -> Tokenizer:
    """Write tokenizer.json, vocab.json, merges.txt, tokenizer_config.json and chat_template.json into `folder`."""
    tokenizer = build_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(name)): {
                "content": name,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": special,
            }
            for name, special in ADDED_TOKENS.items()
        },
        "additional_special_tokens": [name for name, special in ADDED_TOKENS.items() if special][1:],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": model_max_length,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    for name, content in {
        "tokenizer_config.json": config,
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return tokenizer
