"""`multipart/form-data` with one file, read piece by piece as it arrives: the file is never kept beside its storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ...errors import InvalidRequest
from ...uploads import check_name

_MAX_FIELD_BYTES = 4096
_MAX_PARTS = 16


@dataclass
class _Part:
    name: str = ""
    filename: str | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    value: bytearray = field(default_factory=bytearray)


class FileForm:
    """A form whose part `file` is a file. Iterate over `pieces` for its content; what the other parts say is complete
    in `fields` when the iteration ends, for they may come before the file or after it.

    Raises (in the constructor and while iterating):
        InvalidRequest: the body is no such form.
    """

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidRequest(
                f"the content type is {content_type!r}; multipart/form-data with a boundary is accepted"
            )
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._body = body
        self._part = _Part()
        self._parts = 0
        self._ended = False
        self._header_name = b""
        self._header_value = b""
        self._pieces: list[bytes] = []
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._header_field,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"the form cannot be read: {error}") from None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file's content, as it arrives."""
        async for received in self._body:
            try:
                self._parser.write(received)
            except FormParserError as error:
                raise InvalidRequest(f"the form cannot be read: {error}") from None
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece
            if self._ended:
                # What follows belongs to no part.
                break
        if not self._ended:
            raise InvalidRequest("the form ends before its last boundary")
        if self.filename is None:
            raise InvalidRequest("the form has no part 'file' with a file name")

    def _begin_part(self) -> None:
        self._part = _Part()
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InvalidRequest(f"the form has more than {_MAX_PARTS} parts")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._part.headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        self._part.name = _text(options.get(b"name", b""))
        if self._part.name == "file":
            if b"filename" not in options:
                raise InvalidRequest("the part 'file' has no file name; a file is accepted")
            if self.filename is not None:
                raise InvalidRequest("the form has more than one part 'file'; one is accepted")
            self.filename = self._part.filename = _text(options[b"filename"])
            check_name(self.filename)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is not None:
            self._pieces.append(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > _MAX_FIELD_BYTES:
            raise InvalidRequest(f"the part {self._part.name!r} is longer than {_MAX_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._part.filename is None:
            self.fields[self._part.name] = _text(bytes(self._part.value))

    def _end(self) -> None:
        self._ended = True


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"the form has the name or value {value!r}, which is not UTF-8") from None
