"""Everything else is refused before Triton hears of it, and nothing dies."""

import gzip
import json

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.build.gate.doors import asked, call, fetch, string, tell
from tests.support import wire

pytestmark = pytest.mark.usefixtures("unharmed")

TEXT = ("text_input", "BYTES", [1], string(b"Hello"))
STOP = ("stop", "BOOL", [1], b"\x01")


@pytest.mark.parametrize(
    "method",
    [
        *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"),
        *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
        *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "NoSuchMethod"),
    ],
)
def test_grpc_calls_that_control_the_server(gate, method):
    request = service_pb2.RepositoryModelLoadRequest(model_name="decoder").SerializeToString()
    with pytest.raises(grpc.RpcError) as refused:
        call(gate.grpc, method, request if method.startswith("RepositoryModel") else b"")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_grpc_calls_about_other_models(gate, method):
    kind = getattr(service_pb2, f"{method}Request")
    for name in ("no_such_model", "../decoder", *([] if method == "ModelStatistics" else [""])):
        with pytest.raises(grpc.RpcError, match="closed to clients") as refused:
            call(gate.grpc, method, kind(name=name).SerializeToString())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as refused:
        call(gate.grpc, method, b"\xff")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("secret", ["triton-grpc-protocol-qwen3-vl-access", "qwen3-vl-access"])
def test_a_clients_own_secret_opens_nothing(gate, secret):
    with pytest.raises(grpc.RpcError) as refused:
        call(gate.grpc, "RepositoryIndex", metadata=((secret, "a-secret-of-the-server"),))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert fetch(gate.http, "/v2/repository/index", {}, headers={secret: "a-secret-of-the-server"})[0] == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/decoder/load"),
        ("POST", "/v2/repository/models/decoder/unload"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/logging"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/models/vision_encoder/generate"),
        ("POST", "/v2/models/video_preprocess/generate_stream"),
        ("POST", "/v2/models/vision_encoder/infer"),
        ("POST", "/v2/models/qwen3_vl/../decoder/generate"),
        ("POST", "/v2/models/qwen3_vl%2f..%2f..%2frepository/index"),
        ("GET", "/v2/models/no_such_model"),
        ("GET", "/v2/models/no_such_model/config"),
        ("GET", "/v2/models//stats"),
        ("GET", "/metrics"),
        ("DELETE", "/v2"),
    ],
)
def test_paths_that_clients_do_not_need(gate, method, path):
    status, body = fetch(gate.http, path, {} if method == "POST" else None, method=method)
    assert status == 403
    assert "closed to clients" in json.loads(body)["error"]


def test_foreign_hosts_and_pages(gate):
    assert fetch(gate.http, "/v2", headers={"Host": "rebound.example"})[0] == 421
    question = {"text_input": "Hello", "stream": False}
    for headers in ({"Origin": "https://page.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert fetch(gate.http, "/v2/models/qwen3_vl/generate", question, headers=headers)[0] == 403


@pytest.mark.parametrize(
    ("model", "name", "datatype", "shape"),
    [
        (model, name, datatype, shape)
        for model, name, datatype in (
            ("decoder", "token_ids", "INT32"),
            ("decoder", "features", "FP32"),
            ("vision_encoder", "patches", "UINT8"),
            ("qwen3_vl", "stream", "BOOL"),
            ("qwen3_vl", "text_input", "BYTES"),
        )
        for shape in ([2**62], [2**31, 2**31, 4], [3, 2**62], [0, 2**62], [-1], [1] * 40)
    ],
)
def test_shapes_that_overflow(gate, model, name, datatype, shape):
    (response,) = tell(gate.grpc, asked(model, (name, datatype, shape, b"")))
    assert response.error_message.startswith("invalid_argument: ")
    assert response.infer_response.id == "a-request-of-the-tests"


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (asked("decoder", TEXT), "the input stop"),
        (asked("decoder", STOP, TEXT), "the input stop"),
        (asked("decoder", STOP, STOP), "the input stop"),
        (asked("decoder", ("stop", "UINT8", [1], b"\x01")), "the input stop"),
        (asked("decoder", ("chunk_header", "BYTES", [1], string(b"{}"))), "the input stop"),
        (asked("video_preprocess", TEXT), "look"),
        (asked("video_preprocess", TEXT, look=False), "look"),
        (asked("video_preprocess", TEXT, ("stream", "FP32", [1], b"1234"), look=True), "look"),
        (asked("vision_encoder"), "closed to clients"),
        (asked("no_such_model"), "closed to clients"),
        (asked(""), "a name at least one"),
        (asked("qwen3_vl", ("text_input", "BYTES", [1], b"\xff\xff\xff\xffHello")), "each after its length"),
        (asked("qwen3_vl", ("text_input", "BYTES", [2], string(b"Hello"))), "the 2 strings"),
        (asked("qwen3_vl", ("text_input", "BYTES", [1], string(b"Hello") + b"x")), "the 1 strings"),
        (asked("qwen3_vl", ("stream", "BOOL", [1], b"")), "has 0 bytes"),
        (asked("qwen3_vl", ("stream", "TYPE_BOOL", [1], b"1")), "datatype"),
        (asked("qwen3_vl", *[TEXT] * 65), "at most 64"),
        (b"\xff" * 50, "not a ModelInferRequest"),
        (b"\x3a\xff\xff\xff\xff\x07", "ends within a field"),
        # A million inputs, of two bytes each.
        (b"\x2a\x00" * 1_000_000, "more than 260"),
        (service_pb2.ModelInferRequest(model_name="qwen3_vl", id="i" * 300), "the id has 300 characters"),
    ],
)
def test_requests_that_are_not_what_clients_ask(gate, refused, why):
    (response,) = tell(gate.grpc, refused)
    assert response.error_message.startswith("invalid_argument: ")
    assert why in response.error_message


PARAMETERS = {"classification": 1, "binary_data": True, "anything": "x"}


@pytest.mark.parametrize("model", ["qwen3_vl", "decoder", "video_preprocess"])
@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.usefixtures("unharmed")
def test_tensors_with_parameters(gate, model, name):
    """Triton 2.51 ends by an output of text that is asked for by `classification`."""
    stop = ("stop", "BOOL", [1], b"\0")
    request = asked(model, stop if model == "decoder" else ("text_input", "BYTES", [1], string(b"hi")))
    request.parameters["look"].bool_param = model == "video_preprocess"
    output = "chunk_header" if model == "video_preprocess" else "usage"
    kind = {int: "int64_param", bool: "bool_param", str: "string_param"}[type(PARAMETERS[name])]
    setattr(request.outputs.add(name=output).parameters[name], kind, PARAMETERS[name])
    (response,) = tell(gate.grpc, request)
    assert name in response.error_message
    assert "tensors without parameters are accepted" in response.error_message


@pytest.mark.parametrize("kind", ["inputs", "outputs", "request"])
def test_tensors_in_shared_memory(gate, kind):
    request = asked("qwen3_vl", TEXT)
    request.outputs.add(name="text_output")
    owner = request if kind == "request" else getattr(request, kind)[0]
    owner.parameters["shared_memory_region"].string_param = "triton_python_backend_shm_region_1"
    (response,) = tell(gate.grpc, request)
    assert "shared_memory_region" in response.error_message


def test_many_strings(gate):
    inputs = [(f"input {place}", "BYTES", [4096], string(b"") * 4096) for place in range(2)]
    assert "more than 4,096 strings" in tell(gate.grpc, asked("qwen3_vl", *inputs))[0].error_message


def test_many_values_beside_raw_contents(gate):
    request = service_pb2.ModelInferRequest(model_name="qwen3_vl")
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.extend([b""] * 70_000)
    assert "beside raw_input_contents" in tell(gate.grpc, request)[0].error_message


def test_contents_that_are_not_the_shapes(gate):
    request = service_pb2.ModelInferRequest(model_name="qwen3_vl")
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    assert "no contents" in tell(gate.grpc, request)[0].error_message
    tensor.contents.bytes_contents.append(b"Hello")
    assert not tell(gate.grpc, request)[0].error_message
    tensor.contents.int_contents.append(1)
    assert "int_contents" in tell(gate.grpc, request)[0].error_message
    del tensor.contents.int_contents[:]
    request.raw_input_contents.append(string(b"Hello"))
    assert "beside raw_input_contents" in tell(gate.grpc, request)[0].error_message


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages(gate, algorithm):
    with (
        grpc.insecure_channel(gate.grpc, compression=algorithm) as channel,
        pytest.raises(grpc.RpcError, match="disabled"),
    ):
        list(channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter([bytes(2**20)])))


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"[" * 100_000, 400, "deep"),
        (b'{"a":' * 100_000, 400, "deep"),
        (b'{"text_input": [' + b"[]," * 100_000 + b"0]}", 400, "brackets and commas"),
        (b'""' * 4_000_000, 400, "strings"),
        (b'"' + b'\\"' * 500_000, 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b'{"text_input": "a", "text_input": "b"}', 400, "stands twice"),
        (b'{"text_input": NaN}', 400, "no number"),
        (b"\xff\xfe{\x00}\x00", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b" " * (9 * 2**20), 413, "8,388,608"),
    ],
)
def test_bodies_that_are_no_question(gate, body, status, why):
    answered, text = fetch(gate.http, "/v2/models/qwen3_vl/generate", body)
    assert answered == status
    assert why in json.loads(text)["error"]


LISTED = "a string is accepted, or a list of strings"
ONE = "a string is accepted, or a list of one"
TRUTH = "true or false is accepted, or a list of one"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"text_input": 5}, f"'text_input' is 5; {ONE}"),
        ({"text_input": None}, f"'text_input' is null; {ONE}"),
        ({"text_input": {"a": 1}}, f"'text_input' is {{\"a\": 1}}; {ONE}"),
        ({"text_input": ["a", "b"]}, f'\'text_input\' is ["a", "b"]; {ONE}'),
        ({"text_input": []}, f"'text_input' is []; {ONE}"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, f"; {ONE}"),
        ({"stream": "yes"}, f"'stream' is \"yes\"; {TRUTH}"),
        ({"stream": 1}, f"'stream' is 1; {TRUTH}"),
        ({"video_uri": ["a.mp4", 5]}, f"'video_uri' is [\"a.mp4\", 5]; {LISTED}"),
        ({"video": [[["a"]]]}, f"'video' is [[[\"a\"]]]; {LISTED}"),
        ({"video": ["a" * 5000, 1]}, "aaa…"),
        ({"id": 5}, "'id' is 5; a string is accepted"),
        ({"parameters": 5}, "'parameters' is 5; an object is accepted"),
        ({"parameters": {"stream": "yes"}}, f"'stream' is \"yes\"; {TRUTH}"),
    ],
)
def test_values_that_are_not_what_an_input_takes(gate, values, why):
    for kind in ("generate", "generate_stream"):
        status, text = fetch(gate.http, f"/v2/models/qwen3_vl/{kind}", {"text_input": "Hello", **values})
        assert status == 400
        assert why in json.loads(text)["error"]
        assert len(text) < 500


@pytest.mark.parametrize("body", [{}, {"stop": 1}, {"stop": True, "id": 3}, {"stop": True, "chunk_header": "{}"}])
def test_bodies_for_stage_3_that_are_no_stop(gate, body):
    status, text = fetch(gate.http, "/v2/models/decoder/generate_stream", body)
    assert (status, "with stop" in text) == (400, True)


def test_compressed_bodies(gate):
    body = gzip.compress(bytes(2**20))
    status, text = fetch(gate.http, "/v2/models/qwen3_vl/generate", body, headers={"Content-Encoding": "gzip"})
    assert (status, "compressed" in text) == (415, True)


def test_a_stream_goes_on_after_a_refusal(gate):
    messages = [asked("vision_encoder"), asked("decoder", ("stop", "BOOL", [1], b"\x00"))]
    with grpc.insecure_channel(gate.grpc) as channel:
        responses = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(
            iter([message.SerializeToString() for message in messages]), timeout=60
        )
        answers = [service_pb2.ModelStreamInferResponse.FromString(response) for response in responses]
    assert answers[0].error_message
    assert not answers[-1].error_message
    assert wire.engine_state(gate.grpc)["sessions"] == 0
