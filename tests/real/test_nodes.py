import dataclasses

import pytest

from qat.errors import ProgramError
from qat.real.nodes import RealNode, Ref

ARGUMENTS = (("input", Ref("x")), ("weight", Ref("w")), ("bias", Ref("b")))
LAYER = RealNode("fc", "fc", "linear", ARGUMENTS, "float32", ("batch", 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"function": "aten.sin_.default"}, "computes 'aten.sin_.default', which a real program cannot hold"),
        ({"function": "reshape", "tokens": (-1,)}, "reads tokens, but is a reshape"),
        ({"dtype": "complex64"}, "makes 'complex64'"),
        ({"name": "a\n"}, "the name of a node"),
    ],
)
def test_a_node_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ProgramError, match=message):
        dataclasses.replace(LAYER, **settings)
