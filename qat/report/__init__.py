"""What a run did, for people: `report.html` with its pictures, and the comparison of a sweep's points.

matplotlib and jinja2 are imported when something is drawn, and only then.
"""

from qat.report.run import write
from qat.report.sweep import SweepRow, gather, write_sweep

__all__ = ["SweepRow", "gather", "write", "write_sweep"]
