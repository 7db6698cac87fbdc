"""The doors of a server on the command line: where it listens, and what stands between clients and Triton."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
from collections.abc import Iterator
from typing import Any

from build.serve.gate.settings import GateSettings
from build.serve.gate_keeper import GateOptions
from build.serve.server.prerequisites import PrerequisiteError
from build.serve.server.triton import Endpoints

_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002, "health": 8003}
_BOUNDS: dict[str, type[int] | type[float]] = {
    field.name: int if field.name.startswith("max_") else float
    for field in dataclasses.fields(GateSettings)
    if field.name.startswith("max_") or field.name.endswith("_seconds")
}


def add_doors(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `read_endpoints` and `read_gate` read."""
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    for name, port in _PORTS.items():
        parser.add_argument(f"--{name}-port", type=int, default=port)
    parser.add_argument(
        "--public-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that HTTP clients call this machine by; several may be given. Addresses are accepted anyway",
    )
    parser.add_argument(
        "--gate-bound",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a bound on what clients may send or hold: {', '.join(_BOUNDS)}",
    )
    parser.add_argument(
        "--no-gate",
        action="store_true",
        help="no gate: Triton's own ports are the clients', but for control. Where everybody is trusted",
    )


def read_endpoints(arguments: argparse.Namespace) -> Endpoints:
    """The address and ports to listen on."""
    return Endpoints(arguments.host, *(getattr(arguments, f"{name}_port") for name in _PORTS))


def read_gate(arguments: argparse.Namespace) -> GateOptions | None:
    """The gate that is wanted, if one is. Raises PrerequisiteError for a bound that is none."""
    if arguments.no_gate:
        return None
    bounds: dict[str, Any] = {}
    for setting in arguments.gate_bound:
        name, _, value = setting.partition("=")
        try:
            bounds[name] = _BOUNDS[name](value)
        except (KeyError, ValueError):
            raise PrerequisiteError(
                f"--gate-bound is {setting!r}; NAME=NUMBER is accepted, where NAME is {', '.join(_BOUNDS)}"
            ) from None
    options = GateOptions(tuple(arguments.public_host), bounds)
    try:
        GateSettings("", 0, 0, "", "", access="to be drawn", **bounds)
    except ValueError as error:
        raise PrerequisiteError(str(error)) from error
    return options


def warnings(endpoints: Endpoints, gate: GateOptions | None) -> Iterator[str]:
    """Warnings to the operator about a server that others can reach."""
    try:
        local = ipaddress.ip_address(endpoints.host).is_loopback
    except ValueError:
        local = endpoints.host == "localhost"
    if local:
        return
    yield (
        f"warning: {endpoints.host} is reachable by others, who need no key: they may ask ({endpoints.grpc}, "
        f"{endpoints.http}), read metrics ({endpoints.metrics}) and readiness ({endpoints.health}). For networks that "
        "are not trusted, see SECURITY.md"
    )
    if gate is None:
        yield "warning: without the gate they may call each stage, and Triton 2.51 can be crashed by what they send"
