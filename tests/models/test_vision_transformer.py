import pytest
import torch

from qat.errors import ConfigurationError
from qat.models import VisionTransformer
from qat.models.vision_transformer import Attention

SMALL = {"image_size": 8, "patch_size": 4, "width": 8, "heads": 2, "depth": 1, "hidden": 8}


def test_the_size_is_the_one_documented():
    assert sum(parameter.numel() for parameter in VisionTransformer().parameters()) == 810_890


def test_a_batch_becomes_logits():
    assert VisionTransformer(**SMALL, num_classes=7).eval()(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


def test_each_token_is_one_patch_of_the_image():
    network = VisionTransformer(**SMALL)
    images = torch.zeros(1, 3, 8, 8)
    images[:, :, 4:, :4] = 1.0  # the third patch, row by row
    tokens = (network.patches(images) - network.patches(torch.zeros_like(images))).flatten(2).transpose(1, 2)
    assert tokens.abs().sum(2).bool().tolist() == [[False, False, True, False]]


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, reference = Attention(8, heads=2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        layers = (ours.query, ours.key, ours.value)
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    reference.out_proj = ours.projection
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(x), reference(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"patch_size": 5}, "model.network.image_size 32 is no multiple of model.network.patch_size 5"),
        ({"heads": 3}, "model.network.width 128 is no multiple of model.network.heads 3"),
        ({"heads": 0}, "model.network.heads 0"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(settings, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        VisionTransformer(**settings)
