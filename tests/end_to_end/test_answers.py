"""One request at a time through the real server: the kinds of requests, and the ways to ask."""

import json
import subprocess

import pytest

from tests.support import wire

GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "return_token_ids": True}


def test_text_alone(server):
    answer = wire.ask(server.grpc_url, wire.question("Hello", sampling=GREEDY))
    assert answer.finish_reason == "length"
    assert answer.usage["completion_tokens"] == len(answer.token_ids) == 12
    assert answer.usage["video_tokens"] == 0


def test_streamed_pieces_are_the_whole_answer(server, clip):
    streamed = wire.ask(server.grpc_url, wire.question("What?", video=[clip], sampling=GREEDY))
    whole = wire.ask(server.grpc_url, wire.question("What?", video=[clip], sampling=GREEDY, stream=False))
    assert streamed.text == whole.text
    assert streamed.token_ids == whole.token_ids
    assert streamed.responses > 2
    assert whole.responses == 1


def test_usage_tells_what_was_looked_at(server, clip):
    # Words before the video that no other prompt begins with: nothing of it is held.
    content = [{"type": "text", "text": "Count:"}, {"type": "video", "video": 0}, {"type": "text", "text": "What?"}]
    asked = wire.question(messages=[{"role": "user", "content": content}], video=[clip], sampling=GREEDY)
    first, second = wire.ask(server.grpc_url, asked), wire.ask(server.grpc_url, asked)
    usage = first.usage
    (medium,) = usage["media"]
    frames, rows, columns = medium["grid"]
    assert medium["kind"] == "video"
    assert usage["video_tokens"] == frames * rows * columns // 4
    assert usage["prompt_tokens"] > usage["video_tokens"]
    assert len(medium["timestamps"]) == frames
    assert medium["timestamps"] == sorted(medium["timestamps"])
    seconds = usage["seconds"]
    assert seconds["total"] >= seconds["first_token"] > 0
    assert set(seconds) >= {"preprocess", "encode", "decoder"}
    # The second time all but the last token is held: nothing is decoded or encoded.
    assert second.usage["cached_tokens"] == usage["prompt_tokens"] - 1
    assert "encode" not in second.usage["seconds"]
    assert second.token_ids == first.token_ids


def test_media_change_the_answer(server, clip, picture):
    def tokens(**media):
        return wire.ask(server.grpc_url, wire.question("What?", sampling=GREEDY, **media)).token_ids

    seen = [tokens(video=[clip]), tokens(image=[picture]), tokens(video=[clip], image=[picture]), tokens()]
    assert len({tuple(each) for each in seen}) == 4


def test_messages_in_several_turns_refer_to_attachments(server, clip, picture):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": "And this?"}]},
        {"role": "assistant", "content": "A picture."},
        {"role": "user", "content": [{"type": "video", "video": 0}, {"type": "text", "text": "Now?"}]},
    ]
    answer = wire.ask(server.grpc_url, wire.question(messages=messages, video=[clip], image=[picture], sampling=GREEDY))
    assert [medium["kind"] for medium in answer.usage["media"]] == ["image", "video"]


def test_a_path_below_the_media_root_is_read(server, media_root, clip):
    by_path = wire.ask(server.grpc_url, wire.question("What?", video_uri=["clips/clip.mp4"], sampling=GREEDY))
    sent = wire.ask(server.grpc_url, wire.question("What?", video=[clip], sampling=GREEDY))
    assert by_path.token_ids == sent.token_ids


def test_a_seed_repeats_a_sampled_answer(server):
    def sample(seed):
        sampling = {**GREEDY, "temperature": 1.5, "seed": seed}
        return wire.ask(server.grpc_url, wire.question("Tell me", sampling=sampling)).token_ids

    assert sample(1) == sample(1)
    assert len({tuple(sample(seed)) for seed in range(4)}) > 1


def test_a_stop_string_ends_the_answer_before_it(server):
    whole = wire.ask(server.grpc_url, wire.question("Tell me", sampling=GREEDY)).text
    stop = whole[len(whole) // 2 :][:2]
    cut = wire.ask(server.grpc_url, wire.question("Tell me", sampling={**GREEDY, "stop": stop}))
    assert cut.finish_reason == "stop"
    assert cut.text == whole[: whole.index(stop)]


def test_progress_is_sent_when_asked_for(server, clip):
    silent = wire.ask(server.grpc_url, wire.question("What?", video=[clip], sampling=GREEDY))
    told = wire.ask(
        server.grpc_url, wire.question("What?", video=[clip], sampling=GREEDY), parameters={"progress": True}
    )
    assert silent.progress == []
    assert told.text == silent.text
    assert {step["phase"] for step in told.progress} <= {"sampling", "waiting", "prefill"}
    last = told.progress[-1]
    assert last["phase"] == "prefill"
    assert last["prefilled_tokens"] <= last["prompt_tokens"] == told.usage["prompt_tokens"]


@pytest.mark.parametrize("endpoint", ["generate_stream", "generate"])
def test_http_answers_with_curl(server, media_root, endpoint):
    body = {
        "text_input": "What?",
        "video_uri": "clips/clip.mp4",
        "sampling_parameters": json.dumps(GREEDY),
        "stream": endpoint == "generate_stream",
    }
    url = f"{server.http_url}/v2/models/qwen3_vl/{endpoint}"
    printed = subprocess.run(
        ["curl", "-sN", "--max-time", "60", url, "-d", json.dumps(body)], capture_output=True, text=True, check=True
    ).stdout
    events = [json.loads(line.removeprefix("data: ")) for line in printed.splitlines() if line.strip()]
    by_grpc = wire.ask(server.grpc_url, wire.question("What?", video_uri=["clips/clip.mp4"], sampling=GREEDY))
    assert "".join(event["text_output"] for event in events) == by_grpc.text
    assert events[-1]["finish_reason"] == "length"
    assert (len(events) > 1) == (endpoint == "generate_stream")
