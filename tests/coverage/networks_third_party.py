"""Networks of Hugging Face `transformers`, small and with random weights, as users bring them.

Each function makes one network and what makes its inputs, which are keyword arguments; dimension 0 is the batch.
Nothing is rewritten, only configurations are small: widths of 32, two layers, images of 32 pixels, 16 tokens.
"""

from collections.abc import Callable

import torch
import transformers
from torch import Tensor, nn

#: Size of a batch -> its inputs by argument.
Inputs = Callable[[int], dict[str, Tensor]]

_SEQUENCE = 16
_VOCABULARY = 64


def _pixels(size: int = 32) -> Inputs:
    return lambda batch: {"pixel_values": torch.randn(batch, 3, size, size)}


def _values(name: str, *shape: int) -> Inputs:
    return lambda batch: {name: torch.randn(batch, *shape)}


def _tokens(batch: int) -> dict[str, Tensor]:
    """Token ids (batch, 16)."""
    return {"input_ids": torch.randint(3, _VOCABULARY, (batch, _SEQUENCE))}


def _padded_tokens(batch: int) -> dict[str, Tensor]:
    """Token ids, with an attention mask that leaves out the end of every second sequence."""
    tokens = _tokens(batch)
    attention = torch.ones_like(tokens["input_ids"])
    attention[1::2, -4:] = 0
    return {**tokens, "attention_mask": attention}


def resnet() -> tuple[nn.Module, Inputs]:
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], num_labels=5)
    return transformers.ResNetForImageClassification(config), _pixels()


def regnet() -> tuple[nn.Module, Inputs]:
    config = transformers.RegNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8, num_labels=5
    )
    return transformers.RegNetForImageClassification(config), _pixels()


def mobilenet_v1() -> tuple[nn.Module, Inputs]:
    config = transformers.MobileNetV1Config(
        image_size=32, depth_multiplier=0.25, num_labels=5, classifier_dropout_prob=0.0
    )
    return transformers.MobileNetV1ForImageClassification(config), _pixels()


def mobilenet_v2() -> tuple[nn.Module, Inputs]:
    config = transformers.MobileNetV2Config(
        image_size=32, depth_multiplier=0.25, num_labels=5, classifier_dropout_prob=0.0
    )
    return transformers.MobileNetV2ForImageClassification(config), _pixels()


def efficientnet() -> tuple[nn.Module, Inputs]:
    config = transformers.EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320, num_labels=5, dropout_rate=0.0
    )
    return transformers.EfficientNetForImageClassification(config), _pixels()


def convnext() -> tuple[nn.Module, Inputs]:
    config = transformers.ConvNextConfig(
        image_size=32, hidden_sizes=[16, 32], depths=[1, 2], num_stages=2, num_labels=5
    )
    return transformers.ConvNextForImageClassification(config), _pixels()


def convnext_v2() -> tuple[nn.Module, Inputs]:
    config = transformers.ConvNextV2Config(
        image_size=32, hidden_sizes=[16, 32], depths=[1, 2], num_stages=2, num_labels=5
    )
    return transformers.ConvNextV2ForImageClassification(config), _pixels()


def _encoder(**more) -> dict:
    """Sizes of a transformer encoder, in the names most configurations use; weights of a size that suits its width."""
    return {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "initializer_range": 0.1, **more,
    }  # fmt: skip


def vit() -> tuple[nn.Module, Inputs]:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**_encoder(image_size=32, patch_size=8, num_labels=5))
    ), _pixels()


def deit() -> tuple[nn.Module, Inputs]:
    return transformers.DeiTForImageClassification(
        transformers.DeiTConfig(**_encoder(image_size=32, patch_size=8, num_labels=5))
    ), _pixels()


def beit() -> tuple[nn.Module, Inputs]:
    config = transformers.BeitConfig(
        **_encoder(
            image_size=32, patch_size=8, num_labels=5, use_relative_position_bias=True, layer_scale_init_value=0.1,
            out_indices=[1, 2], vocab_size=_VOCABULARY,
        )
    )  # fmt: skip
    return transformers.BeitForImageClassification(config), _pixels()


def swin() -> tuple[nn.Module, Inputs]:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=5
    )
    return transformers.SwinForImageClassification(config), _pixels()


def swin_v2() -> tuple[nn.Module, Inputs]:
    config = transformers.Swinv2Config(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=5
    )
    return transformers.Swinv2ForImageClassification(config), _pixels()


def mobilevit() -> tuple[nn.Module, Inputs]:
    config = transformers.MobileViTConfig(
        image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 32], num_attention_heads=2,
        num_labels=5,
    )  # fmt: skip
    return transformers.MobileViTForImageClassification(config), _pixels(64)


def poolformer() -> tuple[nn.Module, Inputs]:
    config = transformers.PoolFormerConfig(
        hidden_sizes=[16, 32], depths=[1, 1], patch_sizes=[7, 3], strides=[4, 2], padding=[2, 1], num_encoder_blocks=2,
        num_labels=5,
    )  # fmt: skip
    return transformers.PoolFormerForImageClassification(config), _pixels()


def levit() -> tuple[nn.Module, Inputs]:
    config = transformers.LevitConfig(
        image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8],
        num_labels=5,
    )  # fmt: skip
    return transformers.LevitForImageClassification(config), _pixels(64)


def cvt() -> tuple[nn.Module, Inputs]:
    config = transformers.CvtConfig(
        embed_dim=[16, 32, 32], num_heads=[1, 2, 2], depth=[1, 2, 3], num_labels=5
    )  # fmt: skip
    return transformers.CvtForImageClassification(config), _pixels()


def dinov2() -> tuple[nn.Module, Inputs]:
    config = transformers.Dinov2Config(**_encoder(image_size=32, patch_size=8, num_labels=5, mlp_ratio=2))
    return transformers.Dinov2ForImageClassification(config), _pixels()


def segformer() -> tuple[nn.Module, Inputs]:
    config = transformers.SegformerConfig(
        hidden_sizes=[16, 16, 32, 32], num_attention_heads=[1, 1, 2, 2], depths=[1, 1, 1, 1], decoder_hidden_size=32,
        sr_ratios=[2, 2, 1, 1], num_labels=5,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config), _pixels(64)


def dpt() -> tuple[nn.Module, Inputs]:
    config = transformers.DPTConfig(
        **_encoder(
            num_hidden_layers=4, image_size=32, patch_size=8, num_labels=5, backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=16, reassemble_factors=[4, 2, 1, 0.5],
        )
    )  # fmt: skip
    return transformers.DPTForDepthEstimation(config), _pixels()


def upernet() -> tuple[nn.Module, Inputs]:
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=32, auxiliary_channels=16, num_labels=5
    )
    return transformers.UperNetForSemanticSegmentation(config), _pixels(64)


def yolos() -> tuple[nn.Module, Inputs]:
    config = transformers.YolosConfig(
        **_encoder(image_size=[32, 32], patch_size=8, num_labels=5, num_detection_tokens=6)
    )
    return transformers.YolosForObjectDetection(config), _pixels()


class DetectionDecoder(nn.Module):
    """The decoder of DETR, on features and their positions as its own encoder hands them over."""

    def __init__(self, config):
        super().__init__()
        network = transformers.DetrForObjectDetection(config).model
        self.queries = network.query_position_embeddings
        self.decoder = network.decoder

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """features, positions: (batch, places, 32)."""
        queries = self.queries.weight.unsqueeze(0).expand(features.shape[0], -1, -1)
        return self.decoder(
            inputs_embeds=torch.zeros_like(queries),
            encoder_hidden_states=features,
            spatial_position_embeddings=positions,
            object_queries_position_embeddings=queries,
        ).last_hidden_state


def detr_decoder() -> tuple[nn.Module, Inputs]:
    config = transformers.DetrConfig(
        backbone_config=transformers.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], out_features=["stage2"]
        ),
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=6, num_labels=5, use_timm_backbone=False,
    )  # fmt: skip
    return DetectionDecoder(config), lambda batch: {
        "features": torch.randn(batch, 16, 32), "positions": torch.randn(batch, 16, 32)
    }  # fmt: skip


def bert() -> tuple[nn.Module, Inputs]:
    config = transformers.BertConfig(**_encoder(vocab_size=_VOCABULARY, max_position_embeddings=32, num_labels=3))
    return transformers.BertForSequenceClassification(config), _padded_tokens


def distilbert() -> tuple[nn.Module, Inputs]:
    config = transformers.DistilBertConfig(
        dim=32, n_layers=2, n_heads=2, hidden_dim=64, vocab_size=_VOCABULARY, max_position_embeddings=32, num_labels=3
    )
    return transformers.DistilBertForSequenceClassification(config), _padded_tokens


def roberta() -> tuple[nn.Module, Inputs]:
    config = transformers.RobertaConfig(**_encoder(vocab_size=_VOCABULARY, max_position_embeddings=32, num_labels=3))
    return transformers.RobertaForSequenceClassification(config), _padded_tokens


def albert() -> tuple[nn.Module, Inputs]:
    config = transformers.AlbertConfig(
        **_encoder(vocab_size=_VOCABULARY, embedding_size=16, max_position_embeddings=32, num_labels=3)
    )
    return transformers.AlbertForSequenceClassification(config), _padded_tokens


def electra() -> tuple[nn.Module, Inputs]:
    config = transformers.ElectraConfig(
        **_encoder(vocab_size=_VOCABULARY, embedding_size=16, max_position_embeddings=32, num_labels=3)
    )
    return transformers.ElectraForTokenClassification(config), _padded_tokens


def minilm() -> tuple[nn.Module, Inputs]:
    config = transformers.BertConfig(
        vocab_size=_VOCABULARY, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=64,
    )  # fmt: skip
    return transformers.BertModel(config, add_pooling_layer=False), _padded_tokens


def gpt2() -> tuple[nn.Module, Inputs]:
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=2, n_positions=32, vocab_size=_VOCABULARY, use_cache=False, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), _tokens


def _decoder(**more) -> dict:
    """Sizes of a language model, in the names most configurations use."""
    return _encoder(
        vocab_size=_VOCABULARY, max_position_embeddings=32, use_cache=False, bos_token_id=0, eos_token_id=0,
        pad_token_id=0, **more,
    )  # fmt: skip


def gpt_neox() -> tuple[nn.Module, Inputs]:
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**_decoder())), _tokens


def opt() -> tuple[nn.Module, Inputs]:
    config = transformers.OPTConfig(
        hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64, use_cache=False,
        vocab_size=_VOCABULARY, max_position_embeddings=32, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config), _tokens


def llama() -> tuple[nn.Module, Inputs]:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_decoder(num_key_value_heads=1))), _tokens


def qwen2() -> tuple[nn.Module, Inputs]:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**_decoder(num_key_value_heads=1))), _tokens


def mistral() -> tuple[nn.Module, Inputs]:
    config = transformers.MistralConfig(**_decoder(num_key_value_heads=1, sliding_window=8))
    return transformers.MistralForCausalLM(config), _tokens


def gemma() -> tuple[nn.Module, Inputs]:
    config = transformers.GemmaConfig(**_decoder(num_key_value_heads=1, head_dim=16))
    return transformers.GemmaForCausalLM(config), _tokens


def phi() -> tuple[nn.Module, Inputs]:
    return transformers.PhiForCausalLM(transformers.PhiConfig(**_decoder())), _tokens


def t5_encoder() -> tuple[nn.Module, Inputs]:
    config = transformers.T5Config(
        d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=_VOCABULARY, use_cache=False
    )
    return transformers.T5EncoderModel(config), _padded_tokens


def whisper_encoder() -> tuple[nn.Module, Inputs]:
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=64, num_mel_bins=16, max_source_positions=16, vocab_size=_VOCABULARY,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.WhisperModel(config).encoder, _values("input_features", 16, 32)


def _speech(configuration: type):
    return configuration(
        **_encoder(
            conv_dim=(16, 16, 16), conv_stride=(5, 2, 2), conv_kernel=(10, 3, 3), num_feat_extract_layers=3,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, vocab_size=16, mask_time_prob=0.0,
            layerdrop=0.0, num_labels=3,
        )
    )  # fmt: skip


def wav2vec2() -> tuple[nn.Module, Inputs]:
    return transformers.Wav2Vec2ForCTC(_speech(transformers.Wav2Vec2Config)), _values("input_values", 400)


def hubert() -> tuple[nn.Module, Inputs]:
    return transformers.HubertForCTC(_speech(transformers.HubertConfig)), _values("input_values", 400)


def audio_spectrogram_transformer() -> tuple[nn.Module, Inputs]:
    config = transformers.ASTConfig(
        **_encoder(max_length=32, num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8, num_labels=3)
    )
    return transformers.ASTForAudioClassification(config), _values("input_values", 32, 16)


#: Name in the table -> what makes the network, and the inputs of a batch of any size.
NETWORKS = {
    "ResNet": resnet, "RegNet": regnet, "MobileNetV1": mobilenet_v1, "MobileNetV2": mobilenet_v2,
    "EfficientNet": efficientnet, "ConvNeXt": convnext, "ConvNeXtV2": convnext_v2, "ViT": vit, "DeiT": deit,
    "BEiT": beit, "Swin": swin, "SwinV2": swin_v2, "MobileViT": mobilevit, "PoolFormer": poolformer, "LeViT": levit,
    "CvT": cvt, "DINOv2": dinov2, "SegFormer": segformer, "DPT": dpt, "UPerNet": upernet, "YOLOS": yolos,
    "DETR decoder": detr_decoder, "BERT": bert, "DistilBERT": distilbert, "RoBERTa": roberta, "ALBERT": albert,
    "ELECTRA": electra, "MiniLM": minilm, "GPT-2": gpt2, "GPT-NeoX": gpt_neox, "OPT": opt, "Llama": llama,
    "Qwen2": qwen2, "Mistral": mistral, "Gemma": gemma, "Phi": phi, "T5 encoder": t5_encoder,
    "Whisper encoder": whisper_encoder, "Wav2Vec2": wav2vec2, "HuBERT": hubert,
    "AST": audio_spectrogram_transformer,
}  # fmt: skip
