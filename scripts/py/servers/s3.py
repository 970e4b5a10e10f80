"""A real S3 server (`s3s-fs`), its buckets, and a plain client (boto3) to look into them.

Keys, signatures, ranges, parts and checksums are those of S3. Objects are files below one directory, which is
what makes it quick to start and to wipe; that nobody else looks at those files keeps it an S3 server.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from servers.processes import LOOPBACK, ServerFailed, accepts, end, free_port, start_server, wait_for_server

REGION = "us-east-1"
ACCESS_KEY = "openduck-tests"
SECRET_KEY = "not-a-secret-of-anybody"


class S3Server:
    """One server process, with its files below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "objects"
        self.root.mkdir(parents=True)
        self.log = directory / "s3.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Starts the server: the first time on a free port, then always on the same."""
        attempts = 1 if self.port else 5
        for attempt in range(attempts):
            port = self.port or free_port()
            process = start_server(
                [
                    server_binary(),
                    *("--host", LOOPBACK, "--port", str(port)),
                    *("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY),
                    self.root,
                ],
                self.log,
                env={**os.environ, "RUST_LOG": "error"},
            )
            try:
                wait_for_server("the S3 server", process, self.log, functools.partial(accepts, port))
            except ServerFailed:
                end(process, signal.SIGKILL, 5)
                if attempt + 1 == attempts:
                    raise
                continue
            self.port, self._process = port, process
            return

    def stop(self) -> None:
        """Ends the server; its objects stay."""
        if self._process is not None:
            # An orderly end would wait for every connection.
            end(self._process, signal.SIGKILL, 5)
            self._process = None

    def parts_left(self) -> int:
        """How many parts lie there of multipart uploads, of all buckets, that were neither completed nor
        given up. This server does not list uploads, so it is its files that tell."""
        return sum(1 for _ in self.root.glob(".upload_id-*.part-*"))

    def new_bucket(self, name: str) -> Bucket:
        """Makes a bucket."""
        bucket = Bucket(name, self.endpoint)
        bucket.client().create_bucket(Bucket=name)
        return bucket


def server_binary() -> str:
    """Where `s3s-fs` is: OPENDUCK_S3_SERVER, or the PATH."""
    found = os.environ.get("OPENDUCK_S3_SERVER") or shutil.which("s3s-fs")
    if found is None:
        raise ServerFailed("set OPENDUCK_S3_SERVER to the s3s-fs binary, or let scripts/test do it")
    return found


@dataclass
class Bucket:
    """A bucket as the server itself shows it, past every proxy."""

    name: str
    endpoint: str

    @functools.cached_property
    def _direct(self) -> Any:
        return self.client()

    def client(self, endpoint: str | None = None, *, timeout_s: float = 30.0) -> Any:
        """A boto3 client, of another endpoint where one is named; it never tries twice."""
        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=timeout_s,
                read_timeout=timeout_s,
                max_pool_connections=16,
            ),
        )

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a program needs to be told to use this bucket's server, or a proxy in front of it."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def upload_url(self, key: str) -> str:
        """A URL that anybody may PUT an object to, for an hour."""
        url: str = self._direct.generate_presigned_url(
            "put_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=3600
        )
        return url

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every object's size."""
        return {row["Key"]: int(row["Size"]) for row in self._rows(prefix)}

    def total_bytes(self) -> int:
        """What all objects hold."""
        return sum(self.sizes().values())

    def read(self, key: str) -> bytes:
        body: bytes = self._direct.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def write(self, key: str, data: bytes) -> None:
        self._direct.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self._direct.delete_object(Bucket=self.name, Key=key)

    def flip_bit(self, key: str, offset: int) -> None:
        """Rot: one bit of a stored object changes."""
        data = bytearray(self.read(key))
        data[offset] ^= 0x10
        self.write(key, bytes(data))

    def wipe(self) -> None:
        """Deletes every object."""
        for key in self.sizes():
            self.delete(key)

    def _rows(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._direct.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        for page in pages:
            yield from page.get("Contents", [])
