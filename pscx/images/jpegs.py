"""Detects damaged scans of JPEG files, which decoders replace silently."""

from __future__ import annotations

import io
import re

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # inside a scan: the one that ends it
RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")
SEQUENTIAL = (0xC0, 0xC1)  # frames that Huffman codes line after line
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
LAST = 32  # bytes of a scan that are passed on one by one
PADDING = b"\xff\x00" * 8  # 64 bits of 1: what a decoder looks ahead; no code is all ones


class ScanReader(io.RawIOBase):
    """A JPEG file that records how much of its scan the decoder reads.

    A decoder stops to read when it has all lines. So a scan of which bytes are left over held other codes, and one
    that a decoder wants more of than there is lacks some. That holds for files whose lines are in one Huffman-coded
    scan; of others (progressive ones) only the order of the markers is looked at.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data, self._position = data, 0
        self._start, self._single = _first_scan(data)
        ending = MARKER.search(data, self._start)
        self._marker = data[ending.start() + 1] if ending else None
        self._end = len(data[: ending.start() if ending else len(data)].rstrip(b"\xff"))  # markers may have a fill
        self._after = 0  # bytes of the padding and of what follows the scan that were read

    @property
    def fault(self) -> str:
        """The fault of the scan, after the picture was decoded; empty if there is none."""
        if not self._start:
            return ""
        if not _in_order(self._data[self._start : self._end]):
            return "its restart markers are not in order"
        if not self._single:
            return "" if self._data.find(b"\xff\xd9", self._start) >= 0 else "it has no end"
        if self._marker != END_OF_IMAGE:
            return "it has no end" if self._marker is None else "there is a marker inside its scan"
        if self._position < self._end:
            return f"{self._end - self._position} bytes of its scan are left over"
        return "its scan ends too early" if self._after > len(PADDING) else ""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position + self._after

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To a place in the file; the padding does not count."""
        if whence == io.SEEK_CUR:
            offset += self.tell()
        elif whence == io.SEEK_END:
            offset += len(self._data)
        self._position, self._after = offset, 0
        return offset

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer near the end of the scan."""
        if not self._single or self._position > self._end:
            return self._plain(size)
        slow = max(self._start, self._end - LAST)
        if self._position < slow:
            return self._plain(min(size, slow - self._position) if size >= 0 else slow - self._position)
        if self._position < self._end:
            return self._plain(1)
        return self._behind(size)

    def _plain(self, size: int) -> bytes:
        stop = len(self._data) if size < 0 else self._position + size
        part = self._data[self._position : stop]
        self._position += len(part)
        return part

    def _behind(self, size: int) -> bytes:
        """The padding, then what follows the scan."""
        if not self._after:
            self._after = len(PADDING)
            return PADDING
        start = self._end + self._after - len(PADDING)
        part = self._data[start : len(self._data) if size < 0 else start + size]
        self._after += len(part)
        return part


def _first_scan(data: bytes) -> tuple[int, bool]:
    """Where the codes of the first scan begin, or 0, and whether it is sequential and holds all components."""
    position, frame, components = 2, 0, 0
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        content = data[position + 4 : position + 2 + length]
        if marker in FRAMES:
            frame, components = marker, content[5] if len(content) > 5 else 0
        if marker == START_OF_SCAN:
            single = frame in SEQUENTIAL and bool(content) and content[0] == components
            return position + 2 + length, single
        position += 2 + length
    return 0, False


def _in_order(scan: bytes) -> bool:
    """Whether restart markers count from 0 to 7, again and again."""
    numbers = [found[0][1] & 7 for found in RESTARTS.finditer(scan)]
    return all(number == place % 8 for place, number in enumerate(numbers))
