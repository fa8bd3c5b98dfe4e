"""Files of sections: header, section table, payload. The writer and reader below the plan and the frames file."""

from __future__ import annotations

import ctypes as c
import shlex
import struct
import zlib
from pathlib import Path
from typing import NoReturn

from vlart.bundle.format import layout
from vlart.errors import BundleError
from vlart.files.regular import read_below
from vlart.runtime.library import Diag, libvlart

MOST_BYTES = 1 << 32  # of a file that is read whole


class SectionWriter:
    """Collects records by section name; strings are shared."""

    def __init__(self, magic: bytes, names: tuple[str, ...]):
        self.magic = magic
        self.records: dict[str, list[bytes]] = {name: [] for name in names}
        self._strings: dict[str, int] = {}
        self._string_bytes = bytearray()
        self._blob = bytearray()

    def string(self, text: str) -> int:
        if text not in self._strings:
            self._strings[text] = len(self._string_bytes)
            self._string_bytes += text.encode() + b"\0"
        return self._strings[text]

    def add(self, section: str, **values) -> int:
        """Append a record; returns its index."""
        record = layout.SECTIONS[layout.SECTION_ID[section]][1]
        self.records[section].append(record.pack(**values))
        return len(self.records[section]) - 1

    def scalars(self, section: str, values) -> tuple[int, int]:
        """Append to `indices` or `floats`; returns (begin, count)."""
        code = {"indices": "<I", "floats": "<f"}[section]
        begin = len(self.records[section])
        self.records[section] += [struct.pack(code, v) for v in values]
        return begin, len(self.records[section]) - begin

    def blob(self, data: bytes) -> int:
        """Append raw bytes at the next multiple of ALIGN; returns the offset in the section."""
        self._blob += b"\0" * (layout.align_up(len(self._blob)) - len(self._blob))
        offset = len(self._blob)
        self._blob += data
        return offset

    def to_bytes(self) -> bytes:
        body = {name: b"".join(rows) for name, rows in self.records.items()}
        body["strings"] = bytes(self._string_bytes)
        if "blob" in body:
            body["blob"] = bytes(self._blob)
        offset = layout.align_up(layout.HEADER.size + layout.SECTION.size * len(body))
        table, payload, base = [], bytearray(), offset
        for name, data in body.items():
            sid = layout.SECTION_ID[name]
            record, raw_stride = layout.SECTIONS[sid][1:]
            stride = record.size if record else raw_stride
            payload += b"\0" * (layout.align_up(len(payload)) - len(payload))
            table.append(layout.SECTION.pack(id=sid, stride=stride, count=len(data) // stride,
                                             offset=base + len(payload), bytes=len(data)))
            payload += data
        rest = b"".join(table)
        rest += b"\0" * (offset - layout.HEADER.size - len(rest)) + bytes(payload)
        header = layout.HEADER.pack(
            magic=struct.unpack("<2I", self.magic), version_major=layout.FORMAT_MAJOR,
            version_minor=layout.FORMAT_MINOR, file_bytes=layout.HEADER.size + len(rest), section_count=len(table),
            payload_crc32=zlib.crc32(rest), header_crc32=0)
        return header[:-4] + struct.pack("<I", zlib.crc32(header[:-4])) + rest


class SectionReader:
    """Reads what SectionWriter wrote, after libvlart has checked it: there is one reader that judges files, and what it
    lets pass can be taken apart here without looking again. Raises BundleError where it refuses."""

    def __init__(self, path: Path, magic: bytes, content: bytes | None = None):
        """content: of the file, where it has been read and checked already."""
        self.path = path
        self.data = self._checked(magic) if content is None else content
        self.header = layout.HEADER.unpack(self.data)
        rows = [layout.SECTION.unpack(self.data, layout.HEADER.size + i * layout.SECTION.size)
                for i in range(self.header["section_count"])]
        self.sections = {row["id"]: row for row in rows}

    def _checked(self, magic: bytes) -> bytes:
        try:
            data = read_below(self.path.parent, self.path.name, MOST_BYTES)
        except OSError as error:
            folder = self.path.parent
            if isinstance(error, FileNotFoundError) and _has_weights(folder):
                raise BundleError(f"{folder.name} is a checkpoint, not a bundle", where=str(folder),
                                  why=f"it has weights and settings, and no {self.path.name}",
                                  fix=f"build it first: vlacompile build {shlex.quote(str(folder))}") from error
            raise BundleError(f"cannot read {self.path.name}", where=str(self.path), why=str(error.strerror),
                              fix="give the path of a bundle directory made by `vlacompile build`") from error
        if not data.startswith(magic):
            self.refuse(f"it does not begin with {magic.decode()}")
        library, diag, size = libvlart(), Diag(), c.c_size_t()
        name = self.path.name.encode(errors="replace")
        status = library.vlart_content_required_bytes(data, len(data), name, c.byref(diag), c.byref(size))
        if status == 0:
            arena = c.create_string_buffer(size.value)
            status = library.vlart_content_check(data, len(data), name, arena, size.value, c.byref(diag))
        if status != 0:
            text = {f: getattr(diag, f).decode(errors="replace") for f in ("what", "where", "why", "fix")}
            raise BundleError(f"{self.path.name}: {text['what']}", where=f"{self.path.parent}/{text['where']}",
                              why=text["why"], fix=text["fix"])
        return data

    def refuse(self, why: str) -> NoReturn:
        raise BundleError(f"{self.path.name} is damaged", where=str(self.path), why=why,
                          fix="build the bundle again, or copy it again and compare manifest.json")

    def raw(self, section: str) -> bytes:
        row = self.sections[layout.SECTION_ID[section]]
        return self.data[row["offset"]: row["offset"] + row["bytes"]]

    def rows(self, section: str) -> list[dict]:
        """The records of a section; none where an earlier minor version did not know it."""
        sid = layout.SECTION_ID[section]
        if sid not in self.sections:
            return []
        row, record = self.sections[sid], layout.SECTIONS[sid][1]
        return [record.unpack(self.data, row["offset"] + i * row["stride"]) for i in range(row["count"])]

    def scalars(self, section: str) -> tuple:
        raw = self.raw(section)
        return struct.unpack(f"<{len(raw) // 4}{'I' if section == 'indices' else 'f'}", raw)

    def string(self, offset: int) -> str:
        raw = self.raw("strings")
        return raw[offset: raw.index(b"\0", offset)].decode()


def _has_weights(folder: Path) -> bool:
    """Whether a directory without a bundle's files is what a training wrote."""
    return (folder / "config.json").is_file() or any(folder.glob("*.safetensors"))
