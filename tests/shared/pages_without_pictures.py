"""Pages of runs without their pictures, which take longer to draw than the small networks of tests take to train."""

import pytest

NAMES = (
    "training_curves", "bits_over_time", "sqnr_per_layer", "sqnr_over_time", "weight_histograms", "size_and_latency",
    "predictions",
)  # fmt: skip


@pytest.fixture
def pictures():
    """A test that asks for this has its pictures drawn."""


@pytest.fixture(autouse=True)
def pages_without_pictures(request, monkeypatch):
    """The page of a run says of every picture that there is none. Runs of a whole module or session draw theirs."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("qat.report.page.draw", lambda files: dict.fromkeys(NAMES))
