"""Asks the decoder for its engine's state: the proof that a model answers, which Triton's own readiness is not."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import errors
from .connection import Address
from .exchange import outputs
from .request import DECODER


@dataclass(frozen=True)
class EngineState:
    """Sessions that hold memory, and sessions that wait for some."""

    sessions: int
    waiting: int


class EngineProbe:
    """Of one event loop, in which it is made."""

    def __init__(self, address: Address) -> None:
        self._address = address
        if address.credentials is None:
            self._channel = grpc.aio.insecure_channel(address.url, address.options)
        else:
            self._channel = grpc.aio.secure_channel(address.url, address.credentials, address.options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def state(self, timeout_seconds: float = 3.0) -> EngineState:
        """The engine's state now.

        Raises:
            Qwen3VLError: there is none.
        """
        request = service_pb2.ModelInferRequest(model_name=DECODER, id=uuid.uuid4().hex, raw_input_contents=[b"\x00"])
        request.inputs.add(name="stop", datatype="BOOL", shape=[1])
        try:
            call = self._stub.ModelStreamInfer(
                iter([request]), timeout=timeout_seconds, metadata=self._address.metadata
            )
            responses = [response async for response in call]
        except grpc.RpcError as error:
            raise errors.from_rpc(error, request.id, self._address.url, answering=False) from error
        for response in responses:
            if response.error_message:
                raise errors.from_message(response.error_message, request.id)
            if state := outputs(response.infer_response).get("usage"):
                counts = json.loads(state)
                return EngineState(counts["sessions"], counts["waiting"])
        raise errors.InternalError("the decoder ended the request without its state", request_id=request.id)

    async def close(self) -> None:
        await self._channel.close()
