"""What ``reference`` writes around the code's own words: introductions, missing meanings, Markdown."""

import html
import inspect
import re

Row = tuple[str, ...]

MADE = """\
<!-- Made by `make reference` from the code and src/densevit_lab/reference_text.py; do not edit. -->

"""

CONFIG = """\
# Configuration

A config is YAML and plain data. An unknown key or a bad value is refused before anything runs, with the nearest known
key. `--set` reaches every key by its path, as in `--set optim.lr=3e-5`, and the items of a list by their number from 0,
as in `--set sources.0.batch_size=4`; its value is read as YAML. The default "none" means that a key may be left out or
set to `null`. In the headings `NAME` stands for a name that you choose, `[]` for an item of a list; where there are
several kinds, `kind` selects one.

Later sources override earlier ones: `--recipe`; then `--preset`, `--init`, `--freeze`, `--decoder` and `--data`; then
`--config`; then `--set`. `densevit train` then fills in what is still missing:

- `model: {preset: NAME}` takes the preset's model, task and `fit.short_side`.
- `sources[].heads` becomes all heads.
- `tasks.NAME.classes` comes from the first source that trains the head: its `train.classes`, else `classes.json`.
- `model.heads.NAME.out_channels` comes from the task.
- `augment.crop` becomes a square of `fit.window`, or of `fit.short_side`, rounded down to the patch size.
- `--data DIR` is one source with the splits `train` and `val` of DIR.

The complete config is written to `RUN/config.yaml` and is itself a valid `--config`.
[Train on your data](../how-to/train-on-your-data.md) shows the keys at work, and [data sets](datasets.md) the layout of
each kind of data set.

"""

ROOTS = {
    "A training run": "The config of `densevit train`.",
    "A merge": "The config of `densevit merge`. The encoders must have the same blocks and weights; the merged encoder "
    "returns every tap that a head reads.",
    "Speed": "The switches of `--speed` and `load(speed=...)`, which make a loaded model cheaper; see "
    "[faster](../how-to/faster.md). They are not part of a model's config and are never written to a checkpoint.",
    "The grid of densevit tune": "The values that `densevit tune --grid` combines; `null` leaves the model unchanged.",
}

CONFIG_HEAD = ("key", "value", "default", "meaning")

MEANINGS = {
    "Card.description": "one or two sentences",
    "Card.name": "name of the model",
    "DptConfig.head": "what reads the finest map",
    "EncoderConfig.activation": "activation of the MLP",
    "EncoderConfig.cls_token": "has a class token",
    "EncoderConfig.dist_token": "has a distillation token (DeiT)",
    "EncoderConfig.dropout": "dropout in every block",
    "EncoderConfig.embed_dim": "width C of a token",
    "EncoderConfig.in_channels": "channels of the image",
    "EncoderConfig.mlp": "feed-forward layer of a block",
    "EncoderConfig.mlp_ratio": "hidden width of the MLP over `embed_dim`",
    "EncoderConfig.num_heads": "attention heads; divides `embed_dim`",
    "EncoderConfig.num_registers": "register tokens (DINOv2, DINOv3)",
    "EncoderConfig.patch_bias": "the patch projection has a bias",
    "EncoderConfig.patch_size": "(height, width) of a patch in pixels; one number for a square",
    "EncoderConfig.positions": "position embedding",
    "EncoderConfig.qkv_bias": "the query, key and value projections have a bias",
    "HeadConfig.decoder": "the decoder and its options",
    "ModelConfig.encoder": "the ViT",
    "ModelConfig.heads": "the decoders, by names that you choose",
    "ModelConfig.normalisation": "mean and standard deviation of the pixels",
    "Normalisation.mean": "mean per channel of images in [0, 1]; ImageNet's by default",
    "Normalisation.std": "standard deviation per channel",
    "OptimConfig.kind": "AdamW or SGD",
    "OptimConfig.head_lr_mult": "the heads' learning rate over `lr`",
    "RegressionHead.hidden_channels": "width before the last convolution",
    "RegressionHead.up_to": "upsample by two, or to the size of the input",
    "ScheduleConfig.warmup_factor": "where the warm-up begins, as a fraction of the learning rate",
    "SegmentationHead.dropout": "dropout before the classifier",
    "SourceConfig.train": "images and targets to learn from",
    "SourceConfig.val": "images and targets to validate on; no validation if none",
    "TrainConfig.augment": "random changes of the training images",
    "TrainConfig.card": "what a person should know about the finished model",
    "TrainConfig.fit": "how images are preprocessed in validation and, later, in prediction",
    "TrainConfig.iterations": "number of optimiser steps",
    "TrainConfig.model": "the network; `preset: NAME` in it selects a row of `densevit models`",
    "TrainConfig.optim": "optimiser and learning rates",
    "TrainConfig.schedule": "how the learning rate changes",
    "TrainConfig.seed": "seed of initial weights, order and augmentation",
    "TrainConfig.sources": "the data sets; every step draws a batch from each",
}
"""Class and field -> its meaning, used only while the ``Attributes`` of the class do not mention the field."""

CLI = """\
# Command line

`densevit COMMAND --help` prints a summary of what follows. Options with the same name behave identically everywhere.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | outputs differ (`densevit parity`), or the data has errors (`densevit doctor`) |
| 2 | a mistake in the command, with a message that says what to do, or an image that could not be predicted |
| 70 | a fault of densevit; the message names a file to report it with |
| 129, 130, 143 | ended by SIGHUP, Ctrl-C or SIGTERM; finished files are kept and unfinished ones removed |

## densevit

These options stand before the command, as in `densevit --quiet predict photos --out out`.

"""

CLI_HEAD = ("option", "default", "meaning")

COMMANDS = {
    "predict": """\
See [how to predict folders](../how-to/predict-folders.md), [large images](../how-to/large-images.md),
[engines](../how-to/faster.md#engines), the [switches of speed](config.md#speed) and
[what is written](results.md#files).
""",
    "evaluate": "See [how to evaluate](../how-to/evaluate.md). The inference options are those of `predict`.",
    "train": """\
A second Ctrl-C stops at once. See [how to train](../how-to/train-on-your-data.md), [the keys](config.md),
[recipes](recipes.md), [data sets](datasets.md) and [clusters](../how-to/train-on-clusters.md).

The run folder:

| file | contents |
|---|---|
| `config.yaml` | the complete config |
| `dataset.yaml` | the data of its evaluations, for `--data`; of further sources `dataset-2.yaml` and so on |
| `environment.json` | for each session of the run: versions of all packages, machine, command, git commit, seed |
| `log.jsonl` | one JSON object a line: `start`, `resume`, `probe`, `step`, `eval`, `best`, `end` |
| `states/` | the last states, to resume from: `state-*.pt`, or folders `state-*.dcp` with `shard: true` |
| `bad/` | batches whose losses or gradients were not finite, for `--replay` |
| `evaluations/*/` | `details.json` and pictures of up to twelve evaluations |
| `report.html` | all of it on one page |
| `best.safetensors` | the model of the best evaluation; only with val data |
| `model.safetensors` | the finished model, a [native checkpoint](checkpoint-format.md) |
| `tensorboard/` | event files, with `trackers: [tensorboard]` |

See [how to watch a run](../how-to/watch-a-run.md).""",
    "doctor": "See [check your data](../how-to/check-your-data.md) and the list of [findings](findings.md).",
    "merge": "See [several heads](../how-to/several-heads.md) and the [keys](config.md#a-merge).",
    "convert": """\
Wrappers (`state_dict`, `model`, `model_ema`, ...) and prefixes (`module.`, `_orig_mod.`) are stripped. Pickles are
opened with `weights_only=True` only, so nothing in them runs; objects that mmengine, numpy and argparse store next to
the weights are replaced by inert stubs. A file that contains other objects, values that are not finite, quantised or
sparse tensors, or more numbers than its size allows is refused with the reason, and an existing output file is kept.
See [how to migrate](../how-to/migrate.md).""",
    "parity": "See [parity](parity.md).",
    "tune": """\
If nothing meets the budget, the table is printed, the nearest setting is named, nothing is written, and the exit code
is 2. If interrupted, it prints what was measured so far. See [faster](../how-to/faster.md).""",
    "benchmark": "See [measure speed and memory](../how-to/benchmark.md).",
}

FINDINGS = """\
# Findings of densevit doctor

The codes that `densevit doctor` prints; see [check your data](../how-to/check-your-data.md). An error would stop
training or teach the model something wrong; a warning means that it works but the result or the metrics suffer; a note
is good to know. "Fixed" means that `--write-fixed` corrects it where that is safe.

"""

FINDINGS_HEAD = ("code", "severity", "fixed", "why it hurts", "what to do")


def table(head: Row, rows: list[Row]) -> str:
    """A Markdown table with a blank line after it; nothing without rows."""
    rule = "|" + "---|" * len(head)
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n\n" if rows else ""


def escape(words: str) -> str:
    """Text that Markdown must not take for HTML."""
    return html.escape(words, quote=False)


def sentence(words: str) -> str:
    """A docstring's or a help text's words as Markdown on one line, without the final full stop."""
    line = " ".join(words.split()).replace("``", "`").replace("|", "\\|").removesuffix(".")
    spans = re.split(r"(`[^`]*`)", line)
    return "".join(span if span[:1] == "`" else escape(span) for span in spans)


def paragraphs(docstring: str | None) -> str:
    """A docstring up to its first section, as Markdown."""
    words = inspect.cleandoc(docstring or "")
    return re.split(r"\n\n?(?=(?:Attributes|Args|Raises|Returns):\n)", words)[0].replace("``", "`").strip()


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
