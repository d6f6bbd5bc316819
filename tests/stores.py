"""A remote store in memory, for tests of what mirrors it: a test says what it holds, and what goes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from server.errors import LoadFailed
from server.remote.objects import RemoteFile


@dataclass
class PuppetStore:
    """Files by path. A file that is put again has another tag, as on S3."""

    content: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, RemoteFile] = field(default_factory=dict)
    down: str = ""
    """Why nothing works; "" where it does."""
    reads: list[str] = field(default_factory=list)
    """Paths of the files whose first bytes were read, in order."""
    on_read: Callable[[str], None] = lambda path: None
    puts: int = 0

    def put(self, path: str, content: bytes | str) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.puts += 1
        self.content[path] = data
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.files[path] = RemoteFile(path, len(data), f"{md5}/{self.puts}", md5)

    def remove(self, path: str) -> None:
        del self.content[path], self.files[path]

    def lie_about(self, path: str, **facts: str | int) -> None:
        """Say something else about a file than what is so."""
        self.files[path] = replace(self.files[path], **facts)

    def list(self) -> list[RemoteFile]:
        self._fail_when_down()
        return list(self.files.values())

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        self._fail_when_down()
        if start == 0:
            self.reads.append(file.path)
        self.on_read(file.path)
        return self.content[file.path][start:end]

    def look_again(self, file: RemoteFile) -> RemoteFile:
        self._fail_when_down()
        return self.files[file.path]

    def _fail_when_down(self) -> None:
        if self.down:
            raise LoadFailed(self.down)
