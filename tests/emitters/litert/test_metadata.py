import io
import zipfile

from flatbuffers import encode, number_types, packer, table

from qat.emitters.litert.metadata import metadata, with_labels


def field(found, slot):
    """A table or string behind slot `slot` of a flatbuffer's table; None where it is not there."""
    offset = found.Offset(4 + 2 * slot)
    return found.Indirect(found.Pos + offset) if offset else None


def text(found, slot):
    return found.String(found.Pos + found.Offset(4 + 2 * slot)).decode()


def entries(found, slot):
    offset = found.Offset(4 + 2 * slot)
    start = found.Vector(offset)
    return [table.Table(found.Bytes, found.Indirect(start + 4 * place)) for place in range(found.VectorLen(offset))]


def root(content):
    assert content[4:8] == b"M001"
    return table.Table(content, encode.Get(packer.uoffset, content, 0))


def test_names_of_edges_and_labels_are_where_readers_of_the_schema_look():
    model = root(metadata(["image"], ["logits", "other"], ["cat", "dog"]))
    assert text(model, 0) == "qat" and text(model, 7) == "1.0.0"
    (subgraph,) = entries(model, 3)
    assert [text(each, 0) for each in entries(subgraph, 2)] == ["image"]
    outputs = entries(subgraph, 3)
    assert [text(each, 0) for each in outputs] == ["logits", "other"]
    (labels,) = entries(outputs[0], 6)
    assert text(labels, 0) == "labels.txt"
    assert labels.Get(number_types.Int8Flags, labels.Pos + labels.Offset(8)) == 2  # TENSOR_AXIS_LABELS
    assert not outputs[1].Offset(4 + 2 * 6)


def test_without_labels_there_is_no_file_of_them():
    (subgraph,) = entries(root(metadata(["x"], ["y"], [])), 3)
    assert not entries(subgraph, 3)[0].Offset(4 + 2 * 6)
    assert with_labels(b"model", []) == b"model"


def test_labels_are_an_archive_behind_the_model():
    content = with_labels(b"model" * 100, ["cat", "naïve dog"])
    assert content.startswith(b"model" * 100)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode() == "cat\nnaïve dog\n"
    assert content == with_labels(b"model" * 100, ["cat", "naïve dog"])
