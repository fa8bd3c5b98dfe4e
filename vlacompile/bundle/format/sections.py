"""Files of sections: header, section table, payload. The writer and reader below the plan and the
frames file; damage is refused here with the name of the file and the byte."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NoReturn

from vlacompile.bundle.format import layout
from vlacompile.errors import BundleError


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
    """Reads what SectionWriter wrote. Raises BundleError on any damage."""

    def __init__(self, path: Path, magic: bytes):
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {path.name}", where=str(path), why=str(error.strerror),
                              fix="give the path of a bundle directory made by `vlacompile build`") from error
        self._check_header(magic)
        self.sections = {}
        for i in range(self.header["section_count"]):
            row = layout.SECTION.unpack(self.data, layout.HEADER.size + i * layout.SECTION.size)
            if row["offset"] + row["bytes"] > len(self.data) or row["stride"] * row["count"] != row["bytes"]:
                self.refuse(f"section {row['id']} lies outside of the file")
            record = layout.SECTIONS.get(row["id"], ("", None, 0))[1]
            if record is not None and row["stride"] < record.size:
                self.refuse(f"records of section {row['id']} have {row['stride']} bytes, not {record.size}")
            self.sections[row["id"]] = row

    def refuse(self, why: str) -> NoReturn:
        raise BundleError(f"{self.path.name} is damaged", where=str(self.path), why=why,
                          fix="build the bundle again, or copy it again and compare manifest.json")

    def _check_header(self, magic: bytes) -> None:
        if len(self.data) < layout.HEADER.size or self.data[:8] != magic:
            self.refuse(f"it does not begin with {magic.decode()}")
        self.header = layout.HEADER.unpack(self.data)
        if zlib.crc32(self.data[: layout.HEADER.size - 4]) != self.header["header_crc32"]:
            self.refuse("the checksum of its header is wrong")
        if self.header["version_major"] != layout.FORMAT_MAJOR:
            raise BundleError(f"{self.path.name} has format {self.header['version_major']}", where=str(self.path),
                              why=f"this version reads format {layout.FORMAT_MAJOR}",
                              fix="build the bundle with this version of vlacompile")
        if self.header["file_bytes"] != len(self.data):
            self.refuse(f"it has {len(self.data)} of {self.header['file_bytes']} bytes")
        if zlib.crc32(self.data[layout.HEADER.size:]) != self.header["payload_crc32"]:
            self.refuse("the checksum of its content is wrong")

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
        end = raw.find(b"\0", offset)
        if end < 0:
            self.refuse(f"a string at {offset} of {len(raw)} bytes has no end")
        return raw[offset:end].decode()
