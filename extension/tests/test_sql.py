"""All files in `sql/`, each with a server of its own."""

from pathlib import Path

import pytest
import sqllogic
from conftest import TOKEN, Server

FILES = sorted((Path(__file__).parent / "sql").glob("*.test"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "home")
    try:
        connections = {"main": server.connect(), "other": server.connect()}
        variables = {"endpoint": server.endpoint, "token": TOKEN, "tmp": str(tmp_path)}
        sqllogic.run(path, connections, variables)
    finally:
        server.stop()
