"""`RuntimeTokenizer`: a tokenizer's table, executed by libvlart."""

from __future__ import annotations

import ctypes as c

import numpy as np

from vlart.runtime.library import Diag, check, libvlart


class RuntimeTokenizer:
    """table: the content of a bundle's tokenizer file. max_text_bytes: longest text that it accepts, in UTF-8.
    Raises RuntimeFailure."""

    def __init__(self, table: bytes, max_text_bytes: int = 4096):
        self.library = libvlart()
        self.table = np.frombuffer(table, np.uint8).copy()  # aligned
        assert self.table.ctypes.data % 8 == 0
        size, self.handle, diag = c.c_size_t(), c.c_void_p(), Diag()
        where = (self.table.ctypes.data, self.table.nbytes, max_text_bytes)
        check(self.library.vlart_tokenizer_required_bytes(*where, c.byref(diag), c.byref(size)), diag, "the table")
        self.arena = c.create_string_buffer(size.value)
        check(self.library.vlart_tokenizer_open(*where, self.arena, size, c.byref(diag), c.byref(self.handle)), diag,
              "the table")
        self.ids = np.zeros(max_text_bytes, np.int64)

    def encode(self, text: str | bytes) -> list[int]:
        """All ids of a text."""
        data, count = text.encode(errors="surrogatepass") if isinstance(text, str) else text, c.c_size_t()
        while True:
            diag = Diag()
            status = self.library.vlart_tokenizer_encode(self.handle, data, len(data), self.ids.ctypes.data,
                                                         self.ids.size, c.byref(count), c.byref(diag))
            if status == 0 or count.value <= self.ids.size:
                check(status, diag, "the text")
                return self.ids[: count.value].tolist()
            self.ids = np.zeros(count.value, np.int64)

    def fill(self, text: str | bytes, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids int64 [length], mask bool [length]), truncated or padded."""
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        ids, mask, diag = np.zeros(length, np.int64), np.zeros(length, np.uint8), Diag()
        check(self.library.vlart_tokenizer_fill(self.handle, data, len(data), ids.ctypes.data, mask.ctypes.data, length,
                                                c.byref(diag)), diag, "the text")
        return ids, mask.astype(bool)
