from qat.emitters.refused import in_one_sentence


def test_layers_with_the_same_problem_stand_together():
    refusals = [
        "Normalize 'a.norm' (from a): LiteRT has no integer normalization; use batch norm.",
        "Loop 'lstm' (from lstm): LiteRT has no loop; use a convolution.",
        "Normalize 'b.norm' (from b): LiteRT has no integer normalization; use batch norm.",
        "Normalize 'b.norm#2' (from b): LiteRT has no integer normalization; use batch norm.",
        "value 'x' has codes of 16 bits.",
        "value 'y' has codes of 16 bits.",
        "value 'z' has codes of 12 bits.",
    ]
    assert in_one_sentence("litert", refusals) == (
        "litert cannot run this network: Normalize 'a.norm' (from a): LiteRT has no integer normalization; use batch "
        "norm (and so b); Loop 'lstm' (from lstm): LiteRT has no loop; use a convolution; value 'x' has codes of 16 "
        "bits (and so y); value 'z' has codes of 12 bits."
    )
