import os
import signal
import subprocess
import sys

import pytest

from qat.errors import ExportError
from qat.files import write_whole, written_folder, written_together, written_whole

WAITING = """
import sys, time
from pathlib import Path
from qat.files import written_whole
with written_whole(Path(sys.argv[1]), b"new" * 10):
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_file_has_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "file.bin"
    with written_whole(path, b"content") as temporary:
        assert temporary.read_bytes() == b"content"
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["file.bin"]


def test_an_error_in_the_block_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), written_whole(path, b"new"):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_killed_process_leaves_no_half_file_under_the_final_name(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    process = subprocess.Popen([sys.executable, "-c", WAITING, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("place", ["file/model.onnx", "folder", "a" * 300])
def test_where_nothing_can_be_written_the_path_and_a_remedy_are_named(tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError, match=r"cannot be written \(.*\); choose another path"):
        with written_whole(tmp_path / place, b"content"):
            pass
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "new" / "a.txt", b"one")
    write_whole(tmp_path / "new" / "a.txt", b"two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two"


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ExportError, match=r"a.txt cannot be written \(Is a directory\)"):
        write_whole(tmp_path / "a.txt", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="pipe is no file and is not replaced by one"):
        write_whole(tmp_path / "pipe", b"content")
    with pytest.raises(ExportError, match="is no file"), written_together({tmp_path / "pipe": [b"content"]}):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def together(folder, content):
    return {folder / "model": [content], folder / "model.data": [content, memoryview(b"more")]}


def test_files_that_belong_together_get_their_names_together(tmp_path):
    with written_together(together(tmp_path / "new", b"1")) as folder:
        assert (folder / "model.data").read_bytes() == b"1more"
        assert os.listdir(tmp_path / "new") == [folder.name]
    assert sorted(os.listdir(tmp_path / "new")) == ["model", "model.data"]
    assert (tmp_path / "new" / "model").stat().st_mode & 0o777 == 0o644


def test_files_of_before_stay_when_the_block_or_the_last_step_fails(tmp_path, monkeypatch):
    with written_together(together(tmp_path, b"old")):
        pass
    with pytest.raises(KeyboardInterrupt), written_together(together(tmp_path, b"new")):
        raise KeyboardInterrupt
    replace = os.replace

    def full(source, target):
        if os.fspath(target) == str(tmp_path / "model") and source.name == "model":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ExportError, match=r"model cannot be written \(No space left on device\)"):
        with written_together(together(tmp_path, b"new")):
            pass
    assert sorted(os.listdir(tmp_path)) == ["model", "model.data"]
    assert (tmp_path / "model").read_bytes() == b"old" and (tmp_path / "model.data").read_bytes() == b"oldmore"


def test_a_folder_takes_the_place_of_one_like_it_and_of_nothing_else(tmp_path):
    def write(content, path=tmp_path / "page"):
        with written_folder(path, ("index.html", "model")) as folder:
            (folder / "index.html").write_text(content)
            if content == "fails":
                raise KeyboardInterrupt

    write("old")
    (tmp_path / "page" / "model").write_text("of an earlier export")
    write("new")
    assert os.listdir(tmp_path / "page") == ["index.html"]
    (tmp_path / "page" / "thesis.txt").write_text("precious")
    with pytest.raises(ExportError, match=r"page holds 'thesis.txt', which no export wrote, so it is not replaced"):
        write("other")
    with pytest.raises(ExportError, match=r"thesis.txt is no folder and is not replaced by one"):
        write("other", tmp_path / "page" / "thesis.txt")
    with pytest.raises(KeyboardInterrupt):
        write("fails", tmp_path / "second")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["index.html", "page", "thesis.txt"]
    assert (tmp_path / "page" / "index.html").read_text() == "new"
