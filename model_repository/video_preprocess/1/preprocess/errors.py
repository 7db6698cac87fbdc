"""What a request can fail with: messages for the caller, led by a gRPC status code in lower case."""


class RequestError(Exception):
    """Ends a request with a message that is meant for its caller."""

    code = "internal"

    def __str__(self) -> str:
        return f"{self.code}: {super().__str__()}"


class InvalidArgumentError(RequestError):
    code = "invalid_argument"


class NotFoundError(RequestError):
    code = "not_found"


class ResourceExhaustedError(RequestError):
    code = "resource_exhausted"


class UnavailableError(RequestError):
    code = "unavailable"


class DeadlineExceededError(RequestError):
    code = "deadline_exceeded"


def shown(value: object) -> str:
    """A caller's value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
