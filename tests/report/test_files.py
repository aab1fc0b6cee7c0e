import pytest

from qat.errors import ReportError
from qat.report.files import write_or_remove, write_whole


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "new" / "a.txt", b"one")
    write_whole(tmp_path / "new" / "a.txt", b"two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two"


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ReportError, match=r"a.txt cannot be written \(Is a directory\)"):
        write_whole(tmp_path / "a.txt", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_nothing_to_write_removes_what_was_there(tmp_path):
    write_or_remove(tmp_path / "a.png", b"old")
    write_or_remove(tmp_path / "a.png", None)
    write_or_remove(tmp_path / "a.png", None)
    assert list(tmp_path.iterdir()) == []
