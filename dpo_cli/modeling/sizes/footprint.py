"""What a training step holds in memory, term by term, and how many tokens fit at once. No torch.

Counted by tracing what autograd keeps of a layer, and held against peaks measured on a GPU (`docs/gpu_check.json`), by the tests.
Legend: D hidden, F inner, Q query and K key width; bytes a token and layer unless said otherwise.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace

from dpo_cli.modeling.sizes.shape import Shape

CPU_CHUNK_LOGITS = 16 * 1024 * 1024
"""Logits of one chunk: 64 MiB in fp32. On 2 CPU cores 4 Mi logits a chunk made a whole step 14% slower, 64 Mi no faster."""
GPU_CHUNK_SHARE = 1 / 128
"""Of a GPU's memory that the fp32 logits of one chunk may take. Few rows a chunk starve its matrix products, and each chunk reads and writes
the whole gradient of the head's weight."""
CPU_TOKENS = 2048
"""On 2 CPU cores a 135M model ran 4% slower with 1,024 tokens at once, 12% slower with 512, for 0.5 and 0.8 GiB less."""
MAX_TOKENS = 32_768
BUSY_TOKENS = 4096
"""Tokens at once below which a GPU's matrix products are too small to keep it busy."""
SPARE = 0.05
"""Of the memory that a plan leaves free: its figures were within 5% of nearly all measured peaks."""
COMPILED_SHARE = 0.63
"""Of what plain blocks keep for backward: compiled ones fuse what lies between the matrix products. Measured on two shapes."""
NF4_BYTES = 0.516
"""Of a weight in 4 bits, with its doubly quantized scales."""
CONTEXT_BYTES = 0.6 * 2**30
"""The CUDA context and the libraries' workspaces. A rule of thumb."""
FRAGMENTS = 0.05
"""Of the activations, that the allocator holds beside them. A rule of thumb."""


@dataclass(frozen=True)
class Setup:
    """What, beside the model's shape, decides what a step holds."""

    precision: str
    """`fp32` or `bf16`: autocast over fp32 weights, or over a bf16 base under an adapter."""
    weight_bytes: int = 4
    """Of a trained parameter, and of its gradient: 4, or 2 where `train.weights` is bf16."""
    moment_bytes: float = 8
    """Of a trained parameter's moments: `moment_bytes_of`."""
    adapter_rank: int | None = None
    """Of an adapter on all linear layers; None where all weights are trained."""
    is_quantized: bool = False
    """Whether the adapter's base is in 4 bits."""
    has_live_reference: bool = False
    is_compiled: bool = False
    is_checkpointed: bool = False
    is_offloaded: bool = False
    """Whether checkpointed blocks keep their inputs in host memory."""
    is_packed: bool = True
    keys_each: float = 4 / 3
    """Keys that packed attention gathers, a computed token: a shared prompt's once for each answer. 4/3 where half of a row is prompt."""
    chunk_logits: int = CPU_CHUNK_LOGITS

    @property
    def float_bytes(self) -> int:
        """Bytes of what is computed in the run's precision."""
        return 2 if self.precision == "bf16" else 4

    @property
    def is_full(self) -> bool:
        """Whether all weights are trained."""
        return self.adapter_rank is None

    @property
    def is_low(self) -> bool:
        """Whether the residual stream is in bf16: that of a bf16 model, where autocast over fp32 weights keeps fp32."""
        return self.weight_bytes == 2 or (not self.is_full and self.precision == "bf16")


@dataclass(frozen=True)
class Terms:
    """What a step holds at its peak, in bytes."""

    weights: int
    gradients: int
    moments: int
    """The optimizer's: AdamW has two."""
    reference: int
    """A live reference's weights."""
    copies: int
    """The blocks' weights in bf16, which autocast keeps until backward."""
    activations: int
    """What forward keeps for backward."""
    head: int
    """The LM head's logits and its weight's copy and gradient, while they are computed."""
    overhead: int
    """The allocator's fragments and the CUDA context: a rule of thumb, and no part of what torch counts as allocated."""

    @property
    def state(self) -> int:
        """What is held between steps, however many tokens are computed at once."""
        return self.weights + self.gradients + self.moments + self.reference

    @property
    def allocated(self) -> int:
        """What torch counts at its peak."""
        return self.total - self.overhead

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


def chunk_logits_of(memory: int) -> int:
    """Return how many logits the fused head computes at once on a GPU with that many bytes of memory."""
    return max(CPU_CHUNK_LOGITS, int(memory * GPU_CHUNK_SHARE / 4))


def trained_parameters(shape: Shape, rank: int | None) -> int:
    """Return how many parameters are trained: all, or those of an adapter of that rank on all linear layers."""
    if rank is None:
        return shape.parameters
    return rank * shape.layers * sum(inputs + outputs for inputs, outputs in shape.linears)


def terms(shape: Shape, setup: Setup, n_tokens: int, n_scored: int | None = None) -> Terms:
    """Return what a training step holds at its peak.

    Args:
        shape: of the model.
        setup: how it is trained.
        n_tokens: computed at once, a shared prompt once.
        n_scored: of them, those that reach the head; None: all.
    """
    is_full = setup.is_full
    trained = trained_parameters(shape, setup.adapter_rank)
    frozen = 0 if is_full else _frozen_bytes(shape, setup)
    own = setup.weight_bytes * trained
    needs_copies = is_full and setup.precision == "bf16" and setup.weight_bytes == 4
    copies = 2 * shape.blocks if needs_copies else 0
    activations = n_tokens * bytes_per_token(shape, setup)
    if setup.is_checkpointed:
        copies //= shape.layers
        activations += n_tokens * _of_layer(shape, setup)  # one layer at a time is computed again
    head_copy = 2 * shape.head if needs_copies else 0
    head_gradient = 4 * shape.head if is_full else 0
    logits = min(setup.chunk_logits, (n_tokens if n_scored is None else n_scored) * shape.vocabulary)
    return Terms(
        weights=own + frozen,
        gradients=own,
        moments=int(setup.moment_bytes * trained),
        reference=(frozen or own) * setup.has_live_reference,
        copies=copies,
        activations=int(activations),
        head=10 * logits + head_copy + head_gradient,  # logits and softmax in fp32, the slope in bf16
        overhead=int(FRAGMENTS * activations + CONTEXT_BYTES),
    )


def bytes_per_token(shape: Shape, setup: Setup) -> float:
    """Return the bytes that forward keeps a token, over all layers and outside of them."""
    residual = 2 if setup.is_low else 4
    kept = residual * shape.hidden if setup.is_checkpointed else _of_layer(shape, setup)
    if setup.is_offloaded:
        kept = 0
    # The last norm, its output in fp32 and the scored positions gathered from it.
    return shape.layers * kept + 12 * shape.hidden


def _of_layer(shape: Shape, setup: Setup) -> float:
    """Return the bytes that a layer keeps a token."""
    size, is_full = setup.float_bytes, setup.is_full
    # A norm keeps its fp32 input, and the normalised values where its weight is trained and it is not one fused operation.
    # In a bf16 model they are in bf16, but for Gemma's, whose norms surround each part and multiply in fp32.
    trained_norm = 6 if setup.is_low and shape.norms <= 2 else 8
    norm = trained_norm if is_full and shape.is_gated else 4
    kept = float(shape.norms * norm * shape.hidden)
    if shape.has_head_norms:
        kept += (norm - (2 if is_full and size == 2 and not setup.is_low else 0)) * (shape.query + shape.key)
    kept += size * _inputs(shape, setup)
    # Attention: queries, output, keys and values; padded rows repeat the keys for all query heads.
    kept += 2 * size * shape.query
    kept += 2 * size * (setup.keys_each * shape.key if setup.is_packed else shape.query)
    # The MLP: both projections, the activation and the product; GPT-2's activation is five operations.
    kept += (4 if shape.is_gated else 5) * size * shape.inner
    kept += size * (setup.adapter_rank or 0) * len(shape.linears)
    return kept * (COMPILED_SHARE if setup.is_compiled else 1)


def _inputs(shape: Shape, setup: Setup) -> int:
    """Return the values that linear projections keep as inputs of their own: autocast casts a norm's output once for each of them."""
    is_cast = setup.precision == "bf16" and not (setup.is_full and setup.is_low)
    shares = not is_cast or setup.is_quantized or not shape.is_gated
    of_adapter = 0 if setup.adapter_rank is None or setup.is_quantized else shape.query
    return (2 if shares else 5) * shape.hidden + of_adapter


def _frozen_bytes(shape: Shape, setup: Setup) -> int:
    if setup.is_quantized:
        in_bits = min(shape.blocks, shape.parameters)
        return int(NF4_BYTES * in_bits + 2 * (shape.parameters - in_bits))
    return setup.float_bytes * shape.parameters


def fitting_tokens(
    shape: Shape,
    setup: Setup,
    memory: int,
    *,
    with_overhead: bool = True,
    scored: float = 1.0,
    most: int = MAX_TOKENS,
) -> int:
    """Return how many tokens can be computed at once, 0 where not even one can.

    Args:
        shape: of the model.
        setup: how it is trained.
        memory: bytes of the device that this process may take.
        with_overhead: count the allocator and the CUDA context too; False where `memory` is what is free beside them.
        scored: share of tokens that reach the head.
        most: the answer is never above.
    """
    room = memory * (1 - SPARE)

    def held(n_tokens: int) -> int:
        found = terms(shape, setup, n_tokens, int(scored * n_tokens))
        return found.total if with_overhead else found.allocated

    return bisect.bisect_right(range(1, most + 1), room, key=held)


def needs_checkpointing(fitting: int, budget: str | int) -> bool:
    """Return whether too few tokens fit at once with plain blocks: fewer than keep a GPU busy, or than the recipe asks for."""
    return fitting < (BUSY_TOKENS if budget == "auto" else int(budget))


def checkpointed(setup: Setup) -> Setup:
    """Return the setup with blocks that are computed again in backward."""
    return replace(setup, is_checkpointed=True)
