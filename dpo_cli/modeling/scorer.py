"""The scorer: groups of token ids in, log-probabilities of their completions out, or a reward model's scores. The only place that sees logits.

Legend: R rows, T tokens of a row, D hidden size, M scored tokens, N completions.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpo_cli.modeling.attention import NAME, Kernel, choose_kernel, install
from dpo_cli.modeling.head import head_of, token_log_probs, token_log_probs_and_squares
from dpo_cli.modeling.layout import Row, pack, pad
from dpo_cli.modeling.multimodal import text_tower
from dpo_cli.modeling.reward_head import is_reward_model, scores_of
from dpo_cli.modeling.router_loss import Router
from dpo_cli.types import LogProbs, TokenGroup, Want

Path = Literal["packed", "padded"]
"""How groups are laid out: one packed row that shares prompts, or plain right-padded rows."""


class Scorer(nn.Module):
    """Owns the causal LM, or the reward model, and runs backbone and fused head in one forward: this module is what accelerate prepares.

    A head applied outside the wrapped forward would miss DDP's gradient hooks and FSDP's gathers.
    """

    def __init__(self, model: PreTrainedModel, path: Path = "packed", kernel: Kernel | None = None) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self._no_split_modules = model._no_split_modules
        self._attention = model.config._attn_implementation
        self.is_reward = is_reward_model(model)
        self.kernel = kernel
        self.router: Router | None = None
        """What balances the routers of a mixture of experts in training; None where there is nothing to balance."""
        self.path: Path = path
        self.take(path)

    def take(self, path: Path) -> None:
        """Switch to the packed or the padded path."""
        self.path = path
        if path == "packed":
            install()
        self.model.set_attn_implementation(NAME if path == "packed" else self._attention)

    def tie_weights(self) -> None:
        """Tie the model's embeddings again: FSDP asks for it after it has sharded the module."""
        self.model.tie_weights()

    def layout(self, groups: Sequence[TokenGroup], want: Set[Want] = frozenset()) -> Row:
        """Lay groups out on the model's device as this scorer's path wants them, ready to be read for what is wanted."""
        return (pack if self.path == "packed" else pad)(groups, self.model.device, want)

    def forward(self, row: Row) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return per-token log-probs (M,) fp32, their sums per completion (N,) float64, in nats, the counts (N,) int64, and what else is wanted.

        A reward model gives its scores (N,) in place of the first two. Plain tensors, not a dataclass: FSDP hangs its backward hooks
        on the tensors of the output.
        """
        extra: dict[str, Tensor] = {}
        hidden = self._hidden(row, extra).flatten(0, 1)
        if self.is_reward:
            scores = scores_of(self.model, hidden[row.last])
            return scores, scores.double(), row.tokens, extra
        at, head = hidden[row.source], head_of(self.model)
        if "confidence" in row.want:
            read, squares = token_log_probs_and_squares(at, head, row.targets)
        else:
            read, squares = token_log_probs(at, head, row.targets), None
        n_scored = row.n_scored
        per_token = read[:n_scored]
        if squares is not None:
            sure = (per_token.detach() - squares[:n_scored]).double()
            extra["confidence"] = _sums(sure, row.tokens) / row.tokens
        if row.public is not None:
            extra["public"] = _sums(per_token.double() * row.public, row.tokens)
        if row.prompt_tokens is not None:
            extra["prompt"] = _sums(read[n_scored:].double(), row.prompt_tokens)
        return per_token, _sums(per_token.double(), row.tokens), row.tokens, extra

    def _hidden(self, row: Row, extra: dict[str, Tensor]) -> Tensor:
        """Return the backbone's last hidden states, (R, T, D); in training the router loss goes into `extra`."""
        more: dict[str, Any] = {"attention_mask": row.attention_mask}
        if row.segments is not None:
            more = {"segments": row.segments, "kernel": self.attention_kernel()}
        is_balanced = self.router is not None and self.training and torch.is_grad_enabled()
        if is_balanced:
            more["output_router_logits"] = True
        out = text_tower(self.model)(
            input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False, **more
        )
        if self.router is not None and is_balanced:
            extra["router"] = self.router.loss(out.router_logits, row)
        return out.last_hidden_state

    def attention_kernel(self) -> Kernel:
        """Return the kernel that packed rows take under the precision that is open now."""
        if self.kernel is not None:
            return self.kernel
        is_capped = getattr(self.config.get_text_config(), "attn_logit_softcapping", None) is not None
        return "loop" if is_capped else choose_kernel(self.model.device, self._compute_dtype())

    def _compute_dtype(self) -> torch.dtype:
        kind = self.model.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.model.dtype


def score(scorer: nn.Module, row: Row, *, per_token: bool = False) -> LogProbs:
    """Return the log-probs of a row's completions.

    Args:
        scorer: a `Scorer`, as it is or wrapped by accelerate.
        row: from `Scorer.layout`.
        per_token: give each scored token's log-prob too.
    """
    each, total, tokens, extra = scorer(row)
    more = {name: values.float() for name, values in extra.items()}
    return LogProbs(
        total.float(), tokens, each if per_token else None, prompt_tokens=row.prompt_tokens, **more
    )


def _sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Return the sums of runs of values, in float64: a sum of 2,000 nats in fp32 is only good to 1e-4. It adds in order, so it is repeatable."""
    return torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)
