import base64

from qat.report import write
from qat.report.files import PREDICTIONS_PNG

PNG = b"\x89PNG\r\n of some samples"


def test_what_a_run_drew_is_shown_and_kept(run_dir):
    (run_dir / PREDICTIONS_PNG).parent.mkdir(exist_ok=True)
    (run_dir / PREDICTIONS_PNG).write_bytes(PNG)
    for _ in range(2):  # qat-report writes the page again
        page = write(run_dir).read_text()
        assert '<section id="predictions">' in page and base64.b64encode(PNG).decode() in page
        assert (run_dir / PREDICTIONS_PNG).read_bytes() == PNG


def test_a_run_that_drew_nothing_has_no_such_section(run_dir):
    assert 'id="predictions"' not in write(run_dir).read_text()
    assert not (run_dir / PREDICTIONS_PNG).exists()
