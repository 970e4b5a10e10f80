"""Answers that the proxy gives in the server's place."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from servers.proxying.message import Head

_NAMES = {
    500: "InternalError",
    503: "SlowDown",
    429: "TooManyRequests",
    403: "AccessDenied",
    404: "NoSuchKey",
}
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


def failure(status: int) -> bytes:
    """An error as S3 words it."""
    body = (
        f"{_XML}<Error><Code>{_NAMES.get(status, 'InternalError')}</Code><Message>injected</Message></Error>"
    )
    return _answer(f"{status} Injected", body)


def success(request: Head, body: bytes) -> bytes | None:
    """What the server would say had it done this request; `None` where only the server can know."""
    url = urlsplit(request.target)
    query = parse_qs(url.query, keep_blank_values=True)
    if request.method == "PUT":
        return _answer("200 OK", "", ('ETag: "00000000000000000000000000000000"',))
    if request.method == "DELETE":
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    if request.method == "POST" and "delete" in query:
        keys = re.findall(r"<Key>(.*?)</Key>", body.decode(errors="replace"))
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        return _answer("200 OK", f"{_XML}<DeleteResult>{deleted}</DeleteResult>")
    if request.method == "POST" and "uploadId" in query:
        bucket, _, key = url.path.lstrip("/").partition("/")
        return _answer(
            "200 OK",
            f"{_XML}<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>"
            '<ETag>"00000000000000000000000000000000-1"</ETag></CompleteMultipartUploadResult>',
        )
    return None


def can_be_made_up(request: Head) -> bool:
    """Whether `success` knows an answer."""
    return success(request, b"") is not None


def is_list(request: Head) -> bool:
    """Whether a request asks for the keys of a bucket."""
    return request.method == "GET" and "list-type=" in request.target


def _answer(status: str, body: str, headers: tuple[str, ...] = ()) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/xml",
        f"Content-Length: {len(body.encode())}",
        *headers,
        "",
        body,
    ]
    return "\r\n".join(lines).encode()
