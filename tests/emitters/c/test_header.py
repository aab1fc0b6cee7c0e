"""The header says everything that a caller needs, and Python reads it back."""

import pytest

from qat.emitters.c.header import Interface, Port, header_text, read_header
from qat.errors import ExportError
from qat.integer.values import Grid, IndexRange, float32

INTERFACE = Interface(
    prefix="net",
    inputs=(
        Port('an "image" /* of \\ ü */', "image", (3, 8, 8), Grid(float32(1 / 3), 128, 0, 255), channels_last=True),
        Port("ids", "ids", (7,), IndexRange(70_000)),
    ),
    outputs=(
        Port("score", "score", (), Grid(2.0, -3, -128, 127)),
        Port("state", "state", (1,), Grid(float32(1e-7), 0, 0, 60_000), codes=True),
    ),
    arena_bytes=1024,
    constant_bytes=77,
    fingerprint=0x0012ABCD,
)


def test_what_is_written_is_read():
    assert read_header(header_text(INTERFACE, ("cat", "dog")), "net.h") == INTERFACE


def test_labels_are_strings_of_c():
    text = header_text(INTERFACE, ('a "b"', "what??!", "ß"))
    assert r'#define NET_LABELS {"a \"b\"", "what\?\?!", "\303\237"}' in text


@pytest.mark.parametrize(
    "text", ["", "#ifndef X_H\n", header_text(INTERFACE).replace("NET_IDS_MAX 69999", "NET_IDS_MAX x")]
)
def test_other_headers_are_refused(text):
    with pytest.raises(ExportError, match="x.h is no header of an exported program; export the program again"):
        read_header(text, "x.h")
