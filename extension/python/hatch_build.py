"""Puts the extension into the wheel: the files in OPENDUCK_EXTENSION_DIR, or else new ones.

A wheel with machine code in it is for one platform, so it says so in its name; it is for any Python, since
only DuckDB loads that code.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAMES = ("openduck.duckdb_extension", "od.duckdb_extension")


class ExtensionHook(BuildHookInterface):
    """See the module's text."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            raise NotImplementedError("the extension is a part of the wheel: install without --editable")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        for name in NAMES:
            build_data["force_include"][str(self._directory() / name)] = f"openduck/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._built is not None:
            self._built.cleanup()

    _built: tempfile.TemporaryDirectory[str] | None = None

    def _directory(self) -> Path:
        given = os.environ.get("OPENDUCK_EXTENSION_DIR")
        if self._built is None and not given:
            self._built = tempfile.TemporaryDirectory(prefix="openduck-extension-")
            self._build(Path(self._built.name))
        directory = Path(given or self._built.name).resolve()  # type: ignore[union-attr]
        missing = [name for name in NAMES if not (directory / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{directory} lacks {' and '.join(missing)}; scripts/build-extension makes them"
            )
        return directory

    def _build(self, directory: Path) -> None:
        script = Path(self.root).parent.parent / "scripts" / "build-extension"
        if not script.is_file():
            raise FileNotFoundError(
                "the extension can't be built outside of OpenDuck's repository: "
                "set OPENDUCK_EXTENSION_DIR to a directory with its files"
            )
        self.app.display_info(f"building the extension with {script}")
        subprocess.run([script, directory], check=True)
