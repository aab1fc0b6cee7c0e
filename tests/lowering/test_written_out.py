"""Functions of torch that hold several computations: the same codes in all three ways to run them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.inject.einsum import einsum

LINEAR = {"linear": nn.Linear(8, 8)}


def response_norm(net, x):
    """Global response normalization (arXiv:2301.00808)."""
    norms = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
    return net.scale * (x * (norms / (norms.mean(1, keepdim=True) + 1e-6))) + x


BODIES = {
    "normalize": (lambda net, x: F.normalize(x + 0.1, dim=1), 512, {}),
    "vector_norm": (lambda net, x: torch.linalg.vector_norm(x, dim=1), 64, {}),
    "norm_of_ones": (lambda net, x: x.norm(1, -1), 64, {}),
    "divided_by_norm": (lambda net, x: (y := x + 0.1) / y.norm(dim=-1, keepdim=True), 512, {}),
    "response_norm": (response_norm, 512, {}),
    "cosine_similarity": (lambda net, x: torch.cosine_similarity(x + 0.1, x.roll(1, 1) + 0.1, 1), 64, {}),
    "pairwise_distance": (lambda net, x: F.pairwise_distance(x, x.roll(1, 1)), 64, {}),
    "variance": (lambda net, x: x.var((2, 3)), 8, {}),
    "standard_score": (lambda net, x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 0.1), 512, {}),
    "local_response_norm": (lambda net, x: F.local_response_norm(x, 3, alpha=0.1), 512, {}),
    "lp_pool": (lambda net, x: F.lp_pool2d(x, 2, 2), 128, {}),
    "logsumexp": (lambda net, x: x.logsumexp(1), 64, {}),
    "log_softmax": (lambda net, x: 0.01 * x.log_softmax(1), 512, {}),
    "softmin": (lambda net, x: F.softmin(x, 1), 512, {}),
    "glu": (lambda net, x: F.glu(x, 1), 256, {}),
    "quotient": (lambda net, x: x / (x.roll(1, 1) + 1), 512, {}),
    "quotient_of_a_constant": (lambda net, x: net.scale / (x.mean((2, 3), keepdim=True) + 1), 8, {}),
    "divided_by_a_constant": (lambda net, x: x / net.scale, 512, {}),
    "addcmul": (lambda net, x: torch.addcmul(x, x, x.roll(1, 1), value=0.5), 512, {}),
    "lerp": (lambda net, x: torch.lerp(x, x.roll(1, 1), 0.25), 512, {}),
    "addmm": (
        lambda net, x: torch.addmm(x[:, 0, 0], x[:, 1, 0], net.parts["linear"].weight, beta=0.5, alpha=2), 8, LINEAR,
    ),
    "added_in_place": (lambda net, x: x.roll(1, 1).add_(x, alpha=0.5).lerp_(x, 0.25), 512, {}),
    "baddbmm": (lambda net, x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5), 64, {}),
    "outer_sum": (lambda net, x: x.mean((2, 3))[:, :, None] + x.amax((2, 3))[:, None, :], 64, {}),
    "times_a_mask": (lambda net, x: x * (x > 0.2), 512, {}),
    "times_a_mask_of_reals": (lambda net, x: x * (x > 0.2).float(), 512, {}),
    "clamp_by_values": (lambda net, x: x.clamp(max=x.mean(1, keepdim=True)), 512, {}),
    "clamp_by_a_constant": (lambda net, x: x.clamp(min=net.scale * 0.1), 512, {}),
    "one_of_two_numbers": (lambda net, x: torch.where(x > 0.2, 1.0, 0.5), 512, {}),
    "remainder": (lambda net, x: x % 0.5, 512, {}),
    "diagonal": (lambda net, x: x.diagonal(1, 2, 3), 56, {}),
    "select_scatter": (lambda net, x: x.select_scatter(x[:, 0], 1, 2), 512, {}),
    "slice_scatter": (lambda net, x: x.slice_scatter(x[:, :2], 1, 3, 5), 512, {}),
    "aminmax": (lambda net, x: torch.cat(torch.aminmax(x, dim=1, keepdim=True), 1), 128, {}),
    "einsum_with_a_weight": (
        lambda net, x: torch.einsum("bchw,oc->bohw", x, net.parts["linear"].weight), 512, LINEAR,
    ),
    "einsum_of_values": (lambda net, x: torch.einsum("bchw,bdhw->bcd", x, x), 64, {}),
    "einsum_outer": (lambda net, x: torch.einsum("bi,bj->bij", x.mean((2, 3)), x.amax((2, 3))), 64, {}),
    "constant_times_value": (lambda net, x: net.parts["linear"].weight @ x.flatten(2), 512, LINEAR),
    "times_a_vector": (lambda net, x: torch.matmul(x, net.parts["linear"].bias), 64, LINEAR),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_is_written_out_lowers_to_the_same_codes(name, assert_agreement):
    assert_agreement(*BODIES[name], "w8a8")


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 4, 5)]),
        ("bhqk,bkhd->bqhd", [(2, 4, 3, 6), (2, 6, 4, 5)]),
        ("bld,dk->blk", [(2, 4, 5), (5, 3)]),
        ("dk,bld->blk", [(5, 3), (2, 4, 5)]),
        ("bhid,hde->bhie", [(2, 3, 4, 5), (3, 5, 6)]),
        ("bi,bj->bij", [(2, 3), (2, 4)]),
        ("bij->bji", [(2, 3, 4)]),
        ("bij->bi", [(2, 3, 4)]),
        ("...ij,...jk->...ik", [(2, 3, 4, 5), (2, 3, 5, 6)]),
        ("bij, bjk, bkl -> bil", [(2, 3, 4), (2, 4, 5), (2, 5, 6)]),
        ("abc,acd", [(2, 3, 4), (2, 4, 5)]),
        ("btc,bc->bt", [(2, 3, 4), (2, 4)]),
        ("bc,c->b", [(2, 4), (4,)]),
        ("...d,d->...d", [(2, 3, 4), (4,)]),
        ("bijc,bijc->bc", [(2, 3, 4, 5), (2, 3, 4, 5)]),
    ],
)
def test_einsum_is_what_torch_computes(equation, shapes):
    generator = torch.Generator().manual_seed(0)
    # small whole numbers have exact sums in any order
    operands = [torch.randint(-4, 5, shape, generator=generator).float() for shape in shapes]
    assert torch.equal(einsum(equation, *operands), torch.einsum(equation, *operands))


def test_einsum_leaves_diagonals_and_lists_of_indices_to_torch():
    x = torch.randn(2, 3, 3)
    assert einsum("bii->b", x) is NotImplemented
    assert einsum(x, [0, 1, 2], [0, 2, 1]) is NotImplemented


def test_compiled_code_follows_what_is_written_out():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            x = torch.einsum("bi,oi->bo", self.first(x), self.second.weight)
            return torch.where(x > 0.1, x, 0.5) * x.std(-1, keepdim=True)

    torch.manual_seed(0)
    network, x = Network(), torch.randn(16, 6)
    qat.prepare(network, x[:2])
    network(x)
    compiled = torch.compile(network, fullgraph=True, backend="eager")  # another order of calls is an error
    assert torch.allclose(compiled(x), network(x), rtol=0, atol=1e-5)
