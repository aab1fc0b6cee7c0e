"""TensorFlow Lite metadata: names of the edges and the labels of the classes, as its tools and tasks read them.

A flatbuffer of its own (`metadata_schema.fbs` of tflite-support, identifier M001) in the model's entry TFLITE_METADATA.
The labels are a text file in a zip archive behind the model, which readers of flatbuffers do not look at. Slots below
are the places of fields in the schema's tables.
"""

import io
import zipfile
from collections.abc import Callable, Sequence

import flatbuffers

#: The entry of the model's metadata.
NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
_IDENTIFIER = b"M001"
#: Of the oldest reader that knows labels along the last dimension of an output.
_MIN_PARSER_VERSION = "1.0.0"
_AXIS_LABELS = 2
#: Equal models give equal bytes: archives note a time, this is the first they can.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def metadata(inputs: Sequence[str], outputs: Sequence[str], labels: Sequence[str]) -> bytes:
    """The flatbuffer. labels: of the first output."""
    builder = flatbuffers.Builder(256)
    files = [_labels_file(builder)] if labels else []
    sides = [
        _vector(
            builder, [_tensor(builder, name, files if kind and place == 0 else []) for place, name in enumerate(names)]
        )
        for kind, names in enumerate((inputs, outputs))
    ]
    subgraph = _table(builder, 9, {2: sides[0], 3: sides[1]})
    strings = {0: "qat", 7: _MIN_PARSER_VERSION}
    entries = {place: builder.CreateString(text) for place, text in strings.items()}
    model = _table(builder, 8, entries | {3: _vector(builder, [subgraph])})
    builder.Finish(model, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def with_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """A model with its labels behind it, one a line."""
    if not labels:
        return model
    archive = io.BytesIO(model)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(zipfile.ZipInfo(LABELS_FILE, _EPOCH), "".join(f"{label}\n" for label in labels))
    return archive.getvalue()


def _labels_file(builder: flatbuffers.Builder) -> int:
    name = builder.CreateString(LABELS_FILE)
    description = builder.CreateString("names of the classes")
    return _table(builder, 5, {0: name, 1: description}, lambda: builder.PrependInt8Slot(2, _AXIS_LABELS, 0))


def _tensor(builder: flatbuffers.Builder, name: str, files: Sequence[int]) -> int:
    entries = {0: builder.CreateString(name)}
    if files:
        entries[6] = _vector(builder, files)
    return _table(builder, 7, entries)


def _table(
    builder: flatbuffers.Builder, slots: int, entries: dict[int, int], more: Callable[[], None] | None = None
) -> int:
    builder.StartObject(slots)
    for slot, offset in entries.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    if more is not None:
        more()
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
