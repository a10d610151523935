"""The schema of a recipe: every knob once, with its meaning, unit, sane range and what a larger value does.

A method's own knobs stand in `dpo_cli/methods/<name>.py`. Rules between keys are in `rules.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from dpo_cli import methods
from dpo_cli.recipe.optim import Optim


@dataclass(frozen=True)
class Location:
    """Marks a text field that may name a place on disk; the loader makes such a place absolute.

    `file`: always a path. `model`: a path where it looks like one or exists, else a hub id. `data`: the same, and also a glob or a
    name with a data file's ending. `run`: as `model`, after the words `auto` and `never`. `output`: stays relative.
    """

    kind: Literal["file", "model", "data", "run", "output"]


Precision = Literal["fp32", "bf16", "auto"]
Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A low-rank adapter that is trained in place of all weights; the frozen base is the reference."""

    kind: Literal["lora", "dora"] = "lora"
    """`lora`, or `dora`, which learns each output's scale apart and costs more memory and time."""
    rank: Annotated[int, Ge(1)] = 16
    """Rank of each update; larger can learn more and costs memory, usually 8 to 128."""
    alpha: Annotated[float, Gt(0)] = 32.0
    """Scale of the updates: they count alpha / rank, or alpha / sqrt(rank) with `rank_stabilized`. Larger learns faster at one learning rate."""
    rank_stabilized: bool = False
    """Divide by the root of the rank (rsLoRA), so that one learning rate serves every rank."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Layers that get an update: all linear ones but the head, or a list of names such as [q_proj, v_proj]."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the adapter's inputs dropped in training, 0 to below 1."""
    modules_to_save: list[str] = field(default_factory=list)
    """Modules that are trained whole and saved beside the adapter, such as [embed_tokens] where tokens were added."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that is aligned and how it is loaded and saved."""

    name: Annotated[str, Location("model"), MinLen(1)]
    """Folder of a model, of an adapter or of a finished run, or a hub id (`org/name`). Required."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; null takes the default branch."""
    attention: Literal["auto", "packed", "padded"] = "auto"
    """Layout of the rows: `packed` computes a shared prompt once, `padded` takes plain rows; auto packs where that is proven exact at start-up."""
    adapter: Adapter | None = None
    """Train a low-rank adapter in place of all weights, as in {rank: 16}; the learning rate is usually ten times that of all weights.
    Null trains all weights, or goes on with the adapter that `model.name` names."""
    quantize: Literal["nf4"] | None = None
    """Keep the frozen base of an adapter in 4 bits (`nf4`, QLoRA, arXiv:2305.14314): a quarter of bf16's memory, slower, and a base that is
    rounded, which is then the reference too. Needs a CUDA GPU and bitsandbytes (`pip install 'dpo-cli[quantize]'`). Single steps
    ran on one, no whole run yet."""
    router_loss: Annotated[float, Ge(0)] | None = None
    """Weight of the load-balancing loss of a mixture of experts, 0 or more; larger spreads tokens more evenly over the experts. null takes the
    model's own `router_aux_loss_coef`, 0 switches it off. Reward models have none."""
    save_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of the saved weights; bf16 halves the folder, rounds the weights, and is refused where that changes the result."""
    allow_rounding: bool = False
    """Save in bf16 even where that changes the mean held-out margin by more than 2%."""
    tokenizer: Annotated[str, Location("model")] | None = None
    """Folder or hub id of another tokenizer; null takes the model's own."""
    chat_template: Annotated[str, Location("file")] | None = None
    """Path of a .jinja chat template; null takes the tokenizer's own."""
    eos_token: str | None = None
    """Token that ends a completion; null takes the tokenizer's own."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of preference rows."""

    path: Annotated[str, Location("data"), MinLen(1)]
    """Data file (JSONL, JSON, CSV, TSV, also .gz; Parquet), glob, or hub id of a data set. Required."""
    data_dir: str | None = None
    """Folder inside the data set, as `datasets` takes it; null is its root."""
    split: str | None = None
    """Split of the data set; null takes `train` in `data.train`, `test` in `data.eval`."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set; null takes the default branch."""
    format: str = "auto"
    """Name of the row format (`dpo peek` shows it); auto detects it and refuses to guess between two."""
    columns: dict[str, str] = field(default_factory=dict)
    """Where this source has what, as {what the format calls it: a column}: also a path (`info.post`, `answers[].text`), several joined by
    " + ", a weighted sum (`0.65*helpfulness + 0.8*correctness`), `json(cell)` for JSON spelled as text; an empty text leaves a column unread."""
    better: Literal["higher", "lower"] | None = None
    """Which ratings are the better ones: null or `higher`; `lower` for ranks, where 1 is the first place."""
    gather: Literal["rows", "prompt", "tree", "parent"] = "rows"
    """What makes one example: `rows`, each by itself; `prompt`, all answers to one prompt, each rated on a row of its own; `tree`, messages
    with their replies inside; `parent`, messages that name the one they answer."""
    ignore: list[str] = field(default_factory=list)
    """Columns that are known not to matter, though their names sound like a preference or like context."""
    skip_null: bool = False
    """Leave out rows in which a column that is read is null, and count them; otherwise they are an error."""
    weight: Annotated[float, Gt(0), Le(1000)] = 1.0
    """Passes over this source per epoch, above 0 to 1000; larger shows its rows more often."""
    limit: Annotated[int, Ge(1)] | None = None
    """Take only the first so many rows, 1 or more; null takes all."""
    labels: dict[str, list[str]] = field(default_factory=dict)
    """Words of a label column, as {wanted: [up], unwanted: [down], neither: [skip]}, or of a winner column, as {a: [1], b: [2], tie: [0]};
    a word may be a bound such as ">=4". Rows of `neither` and `tie` are left out. Empty takes true and false, a, b and tie."""
    pairs: Literal["all", "best"] = "all"
    """Pairs made of a ranking: all of them, or its best against each of the others."""
    min_gap: Annotated[float, Ge(0)] | None = None
    """Leave out pairs whose scores differ by less, 0 or more, in the data's own unit; larger keeps clearer pairs and fewer. null keeps all."""
    chat: bool | None = None
    """Render plain strings and transcripts through the chat template (true) or as raw text (false); null: through it where there is one."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Shares of the training rows that are held out, drawn by digest of the prompt."""

    eval: Share = 0.05
    """Share of `data.train` held out for evaluation, 0 to below 1; larger measures better and trains on less. Unused where `data.eval` is set."""
    test: Share = 0.0
    """Share of `data.train` that no training run reads, 0 to below 1, for one final measurement."""
    seed: Annotated[int, Ge(0)] = 0
    """Another number, 0 or more, draws another split; it does not follow `train.seed`."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained and evaluated on, and how rows become tokens."""

    train: Annotated[list[Source], MinLen(1)]
    """Sources of training rows, at least one. Required."""
    eval: list[Source] = field(default_factory=list)
    """Sources of held-out rows; empty takes a share of the training rows (`data.split.eval`)."""
    split: Split = field(default_factory=Split)
    """Shares of the training rows that are held out."""
    system: str | None = None
    """System prompt for rows that have none; null adds none."""
    merge_system: bool = False
    """Put system prompts in front of the first user turn, an empty line between, for a chat template without a system role. Serve it so too."""
    control_tokens: list[str] = field(default_factory=list)
    """Control tokens that rows mean as such, as fill-in-the-middle data do. All others stay text; a row with both kinds is dropped."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the chat template (such as enable_thinking); a row's column of that name wins."""
    thinking: Literal["keep", "drop", "unscored"] = "keep"
    """Think blocks in answers: `keep` scores them, `unscored` only reads them, `drop` removes them (an empty one of the template is not scored)."""
    max_length: Annotated[int, Ge(2)] = 1024
    """Longest prompt plus completion, in tokens, 2 or more; larger keeps more text and needs more memory."""
    long_prompt: Literal["drop", "cut_start"] = "drop"
    """What happens to a prompt that leaves no room for a completion: drop the row, or cut the prompt's start."""
    long_completion: Literal["cut_end", "drop"] = "cut_end"
    """What happens to a completion that does not fit behind its prompt: cut its end, or drop the row."""
    drop: Annotated[str, Location("file")] | None = None
    """JSONL file of training rows to leave out, by their `key`, such as a run's `ledger/suspects.jsonl`; null leaves out none.
    Held-out rows stay as they are: a figure on rows that were picked would flatter."""
    fail_on_leak: bool = False
    """Stop where a held-out prompt is also trained on; false warns and counts."""
    cache: Annotated[str, Location("file")] | None = None
    """Folder of tokenised rows; null takes the user's cache folder."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The model that the policy is compared with."""

    source: Literal["cache", "live", "none"] = "cache"
    """cache scores the reference before the first step, live beside the policy (a second model in memory), none is for methods without one."""
    model: Annotated[str, Location("model")] | None = None
    """Folder, run or hub id of the reference; null takes the policy as it is before the first step."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null takes its main branch."""
    store: Annotated[str, Location("file")] | None = None
    """Folder of reference log-probs; null takes the user's cache folder."""
    precision: Precision = "auto"
    """Arithmetic of the reference scores; auto follows `train.precision`."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long, in which portions, with which arithmetic, and what is kept."""

    batch_size: Annotated[int, Ge(1)] = 32
    """Examples a step, over all devices, 1 or more; larger gives smoother gradients and fewer steps."""
    epochs: Annotated[float, Gt(0)] = 1.0
    """Passes over the data, above 0, fractions allowed; larger trains longer and overfits sooner."""
    max_steps: Annotated[int, Ge(1)] | None = None
    """Stop after so many steps, 1 or more; null runs all epochs."""
    max_tokens_per_micro_batch: Literal["auto"] | Annotated[int, Ge(2)] = "auto"
    """Tokens computed at once, 2 or more; changes memory and speed, not the gradient. Larger is faster on a GPU; auto fits the free memory."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass over fp32 weights: bf16 autocast, fp32, or auto (bf16 where the hardware has it)."""
    weights: Literal["fp32", "bf16"] = "fp32"
    """Type of the trained weights, their gradients and moments; bf16 takes half of the memory and rounds updates stochastically, which is right
    on average (a short run of a 135M model was behind fp32's all the same). Needs bf16 arithmetic; adapters stay in fp32."""
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    """Order of the data and every random draw, 0 to below 2**32."""
    eval_every: Annotated[int, Ge(0)] = 100
    """Steps between evaluations during training; 0 leaves only the final one. Larger costs less time."""
    checkpoint_activations: Literal["auto", "none", "full", "offload"] = "auto"
    """Compute every block's activations again in backward in place of keeping them: a fifth to a third slower, a fraction of the memory, the
    same gradients. auto does so on a GPU where too few tokens would fit at once without; offload keeps the blocks' inputs in the host's memory
    too, and needs a CUDA GPU."""
    compile: Literal["auto", "none", "blocks"] = "auto"
    """Compile the decoder blocks for packed rows: steps a fifth to two fifths shorter after some ten seconds of compiling, and less memory. auto
    does so on a GPU for runs of 300 steps or more, where the compiled blocks are exact at start-up; needs a CUDA GPU."""
    save_every: Annotated[int, Ge(0)] = 500
    """Steps between checkpoints; 0 writes only what a signal asks for. Larger loses more when a run is killed."""
    samples: Annotated[int, Ge(0)] = 4
    """Held-out prompts answered before and after training, 0 or more, for a look at what the figures do not show. Larger takes longer."""
    select: Literal["last", "best"] = "last"
    """Weights that are saved: the last, or those of the best evaluation where they are better on the held-out pairs beyond noise (paired test,
    corrected for the number of evaluations). Keeps a copy of the trained weights on disk."""
    early_stop: Annotated[int, Ge(1)] | None = None
    """End the run after so many evaluations in a row without a better one, 1 or more; larger waits longer. null never does."""
    ledger: bool = False
    """Keep what every pair met (its margin at each visit, how hard the loss pulled at it) and score all training pairs once more at the end:
    `dpo ledger RUN` names the hardest pairs, those that look mislabelled and those that were forgotten. Costs a forward over the training set."""
    keep_last: Annotated[int, Ge(1)] = 2
    """Checkpoints kept, 1 or more; larger needs more disk."""
    output_dir: Annotated[str, Location("output"), MinLen(1)] = "runs"
    """Folder of run folders; a relative one always means below the working directory, wherever the recipe lies."""
    resume: Annotated[str, Location("run"), MinLen(1)] = "auto"
    """auto continues this recipe's unfinished run, never starts another, a run folder continues that one."""
    skip_nonfinite: Annotated[int, Ge(0)] = 0
    """Steps with a loss or gradient that is not finite which a run may leave out, 0 or more; larger hides more of what is wrong with data or rate."""
    dropout: bool = False
    """Keep the model's own dropout in training; true adds noise to every log-prob."""


@dataclass(frozen=True, kw_only=True)
class Wandb:
    """Weights & Biases; keys and log-ins come from its own environment, never from a recipe."""

    project: Annotated[str, MinLen(1)] = "dpo"
    """Project that the run appears in."""
    entity: str | None = None
    """User or team; null takes the account's default."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """Where the run is sent; null lets WANDB_MODE decide."""
    tags: list[str] = field(default_factory=list)
    """Words to find the run by."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is reported while training; metrics.jsonl is always written."""

    every: Annotated[int, Ge(1)] = 10
    """Steps between two reports, 1 or more; each is the mean over those steps. Larger is smoother and a little faster."""
    trackers: list[Literal["wandb"]] = field(default_factory=list)
    """Services that get the metrics too; empty sends nothing anywhere."""
    wandb: Wandb = field(default_factory=Wandb)
    """Settings of the wandb tracker."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run."""

    name: str | None = None
    """Name of the run folder; null gives <recipe file>-<8 hex of the resolved recipe>. May hold fields such as {method.beta}."""
    model: Model
    """The model that is aligned. Required."""
    data: Data
    """What it is trained and evaluated on. Required."""
    method: Any = field(default_factory=lambda: methods.get("dpo").config())
    """The method and its knobs: `name` selects the file `dpo_cli/methods/<name>.py`, whose config dataclass this is."""
    reference: Reference = field(default_factory=Reference)
    """The model that the policy is compared with."""
    optim: Optim = field(default_factory=Optim)
    """The optimizer and its learning rate."""
    train: Train = field(default_factory=Train)
    """How long, in which portions, and what is kept."""
    log: Log = field(default_factory=Log)
    """What is reported while training."""
