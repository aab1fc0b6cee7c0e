"""Every part of a module gets its own mode back."""

import pytest
from torch import nn

from qat.training.modes import modes_kept


def test_each_part_keeps_its_own_mode_also_where_something_fails():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.ReLU()))
    module[1][0].eval()
    with pytest.raises(KeyError), modes_kept(module):
        module.eval()
        raise KeyError
    assert [part.training for part in module.modules()] == [True, True, True, False, True]
