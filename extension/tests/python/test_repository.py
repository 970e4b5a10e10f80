"""The signed repository: DuckDB's own way from an empty home to a loaded extension, and what it refuses."""

from __future__ import annotations

import gzip
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conftest import Plain, Refused
from servers.served import Served

ALLOW = "SET allow_extension_repositories = 'allowed'"
VERSION, PLATFORM = "v2.0.0", "linux_amd64"


def create(prefix: str, key: str | None) -> str:
    using = "" if key is None else f" USING PUBLIC KEY '{key}'"
    return f"CREATE EXTENSION REPOSITORY ducks WITH PREFIX '{prefix}'{using}"


LOADED = "SELECT loaded FROM duckdb_extensions() WHERE extension_name = 'openduck'"


@pytest.fixture(scope="module")
def key(served: Served) -> dict[str, str]:
    """A key of the served home; its public half."""
    made: dict[str, str] = json.loads(served.command("keys", "create", "--json"))
    return made


@pytest.fixture(scope="module")
def published(served: Served, key: dict[str, str], files: list[Path]) -> Path:
    """The home's repository, with the extension in it."""
    told = json.loads(served.command("extension", "publish", *map(str, files), "--json"))
    assert [(one["name"], one["duckdb"], one["platform"]) for one in told["published"]] == [
        ("openduck", VERSION, PLATFORM),
        ("od", VERSION, PLATFORM),
    ]
    return Path(told["repository"])


def test_plain_duckdb_installs_from_the_gateway(
    served: Served, key: dict[str, str], published: Path, plain: Plain
) -> None:
    prefix = f"{served.endpoint}/extension"
    [row] = plain.run(ALLOW, create(prefix, key["public_key"]))
    assert row == ["ducks", prefix, [key["fingerprint"]]]
    plain.run(ALLOW, "INSTALL openduck FROM ducks", "INSTALL od FROM ducks")
    # Another process: nothing but LOAD is needed, not even the leave for repositories.
    assert plain.run("LOAD openduck FROM ducks", LOADED) == [[True]]
    assert plain.run("LOAD od FROM ducks", "SELECT 42") == [[42]]
    plain.run(ALLOW, "FORCE INSTALL openduck FROM ducks")


def test_what_was_installed_attaches(
    served: Served, key: dict[str, str], published: Path, plain: Plain
) -> None:
    served.command("query", "CREATE OR REPLACE TABLE seen AS SELECT 42 AS answer", "-d", "mydb")
    plain.run(ALLOW, create(f"{served.endpoint}/extension", key["public_key"]), "INSTALL openduck FROM ducks")
    rows = plain.run(
        "LOAD openduck FROM ducks",
        "ATTACH 'openduck:mydb' AS cloud",
        "FROM cloud.seen",
        OPENDUCK_ENDPOINT=served.endpoint,
        OPENDUCK_TOKEN=served.token,
    )
    assert rows == [[42]]


def test_the_directory_is_a_repository_too(key: dict[str, str], published: Path, plain: Plain) -> None:
    # DuckDB reads the key there by itself.
    [row] = plain.run(ALLOW, create(str(published), None))
    assert row[2] == [key["fingerprint"]]
    plain.run(ALLOW, "INSTALL openduck FROM ducks")
    assert plain.run("LOAD openduck FROM ducks", LOADED) == [[True]]


def test_another_key_is_refused(served: Served, published: Path, plain: Plain, tmp_path: Path) -> None:
    other = json.loads(served.command("keys", "create", "--key", str(tmp_path / "other.pem"), "--json"))
    plain.run(ALLOW, create(f"{served.endpoint}/extension", other["public_key"]))
    with pytest.raises(Refused, match="signature"):
        plain.run(ALLOW, "INSTALL openduck FROM ducks")


@pytest.mark.parametrize("offset", [0, 5000, -500, -1])
def test_a_changed_byte_is_refused(
    key: dict[str, str], published: Path, plain: Plain, tmp_path: Path, offset: int
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(published, changed)
    file = changed / VERSION / PLATFORM / "openduck.duckdb_extension.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[offset] ^= 1
    file.write_bytes(gzip.compress(content, compresslevel=1))
    plain.run(ALLOW, create(str(changed), key["public_key"]))
    with pytest.raises(Refused, match="signature"):
        plain.run(ALLOW, "INSTALL openduck FROM ducks")


def test_a_file_changed_after_its_installation_is_refused(
    served: Served, key: dict[str, str], published: Path, plain: Plain
) -> None:
    plain.run(ALLOW, create(str(published), key["public_key"]), "INSTALL openduck FROM ducks")
    [installed] = plain.home.rglob("openduck.duckdb_extension")
    content = bytearray(installed.read_bytes())
    content[5000] ^= 1
    installed.write_bytes(content)
    with pytest.raises(Refused, match="signature"):
        plain.run("LOAD openduck FROM ducks")


def test_another_version_is_not_there(served: Served, published: Path) -> None:
    for version, platform in (("v1.5.5", PLATFORM), (VERSION, "osx_arm64")):
        url = f"{served.endpoint}/extension/{version}/{platform}/openduck.duckdb_extension.gz"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=5)
        assert refused.value.code == 404
        assert f"{VERSION}/{PLATFORM}" in refused.value.read().decode()


def test_a_key_is_never_written_over(served: Served, key: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="there is a key"):
        served.command("keys", "create")
    assert json.loads(served.command("keys", "show", "--json")) == key
    assert served.command("keys", "show").strip() == key["public_key"]
