from qat.report.files import write_or_remove


def test_nothing_to_write_removes_what_was_there(tmp_path):
    write_or_remove(tmp_path / "a.png", b"old")
    write_or_remove(tmp_path / "a.png", None)
    write_or_remove(tmp_path / "a.png", None)
    assert list(tmp_path.iterdir()) == []
