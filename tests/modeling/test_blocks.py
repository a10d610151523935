"""Decoder blocks compiled and checkpointed: the same gradients, less memory kept, one compiled variant for all layouts."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from dpo_cli.modeling.adapters import attach
from dpo_cli.modeling.blocks import blocks_of, has_dropout, set_blocks
from dpo_cli.modeling.exactness import COMPILED_STEPS, choose_compiled
from dpo_cli.modeling.precision import choose_checkpointing, token_budget
from dpo_cli.modeling.scorer import Path, Scorer, score
from dpo_cli.modeling.sizes.footprint import CPU_CHUNK_LOGITS
from dpo_cli.recipe.schema import Adapter, Train
from dpo_cli.types import TokenGroup
from tests.modeling.test_scorer import COMMON, PACKED, PADDED, build, groups, varlen_2_13

__all__ = ["groups"]  # the fixture

MIXTRAL = hf.MixtralConfig(**COMMON, num_local_experts=4, num_experts_per_tok=2)
DROPPING = hf.GPT2Config(vocab_size=211, n_embd=32, n_layer=2, n_head=4, n_positions=512)


def gradient(scorer: Scorer, groups: list[TokenGroup]) -> Tensor:
    """Return the gradient of a mixed sum of the completions' log-probs, drawn with one seed, flattened."""
    scorer.train()
    scorer.zero_grad(set_to_none=True)
    torch.manual_seed(7)
    total = score(scorer, scorer.layout(groups)).total
    (total * torch.linspace(-2, 3, len(total))).sum().backward()
    return torch.cat([w.grad.flatten() for w in scorer.parameters() if w.grad is not None])


@pytest.mark.parametrize("path", ["packed", "padded"])
@pytest.mark.parametrize("name", [*PACKED, *PADDED, "mixtral", "gpt2, with dropout", "lora, with dropout"])
def test_checkpointing_changes_no_bit_of_the_gradient(
    name: str, path: Path, groups: list[TokenGroup]
) -> None:
    configs = {**PACKED, **PADDED, "mixtral": MIXTRAL, "gpt2, with dropout": DROPPING}
    if name in PADDED and path == "packed":
        pytest.skip("cannot be packed")
    model = build(configs.get(name, PACKED["llama"]))
    if name.startswith("lora"):
        attach(model, Adapter(rank=2, dropout=0.3), seed=0)
    scorer = Scorer(model, path)
    expected = gradient(scorer, groups)

    for is_offloaded in (False, True):
        set_blocks(model, is_checkpointed=True, is_offloaded=is_offloaded)
        assert torch.equal(gradient(scorer, groups), expected)
    assert has_dropout(blocks_of(model)[0]) == ("with dropout" in name)


@pytest.mark.parametrize("name", ["llama", "gpt-neox", "opt", "gemma3, window 9"])
def test_checkpointing_keeps_a_fraction_of_what_backward_needs(name: str, groups: list[TokenGroup]) -> None:
    def kept(scorer: Scorer) -> int:
        """Return the bytes that a forward keeps for backward, beside the weights."""
        weights = {weight.untyped_storage().data_ptr() for weight in scorer.parameters()}
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            found = score(scorer.train(), scorer.layout(groups))
        assert found.total.requires_grad
        return sum(sizes.values())

    model = build(PACKED[name])
    scorer = Scorer(model)
    everything = kept(scorer)

    set_blocks(model, is_checkpointed=True)

    inputs_alone = kept(scorer)
    assert inputs_alone < everything / 4
    set_blocks(model, is_checkpointed=True, is_offloaded=True)
    assert kept(scorer) <= inputs_alone


def test_an_input_kept_on_the_host_is_let_go_on_the_device(groups: list[TokenGroup]) -> None:
    model = build(PACKED["llama"])
    seen: list[weakref.ref[Tensor]] = []
    for block in blocks_of(model)[1:]:
        block.register_forward_pre_hook(lambda _block, args: seen.append(weakref.ref(args[0])))
    scorer = Scorer(model)

    alive = []
    for is_offloaded in (False, True):
        set_blocks(model, is_checkpointed=True, is_offloaded=is_offloaded)
        seen.clear()
        total = score(scorer.train(), scorer.layout(groups)).total
        alive.append(sum(each() is not None for each in seen))
        total.sum().backward()

    assert alive == [len(blocks_of(model)) - 1, 0]


@pytest.fixture
def varlen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A `varlen_attn` that runs on a CPU and, like the real one, is one operator to the compiler."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, ends: tuple[Tensor, Tensor], scale: float, left: int
    ) -> Tensor:
        longest = int(ends[0].diff().max()), int(ends[1].diff().max())
        return varlen_2_13(
            q, k, v, *ends, *longest, scale=scale, window_size=(left, 0), enable_gqa=True
        )  # fmt: skip

    with torch.library._scoped_library("dpo_test", "FRAGMENT") as library:
        arguments = "Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor cu_k, SymInt max_q, SymInt max_k, float scale, int left"
        library.define(f"varlen({arguments}) -> Tensor")
        library.define(f"varlen_backward(Tensor grad, {arguments}) -> (Tensor, Tensor, Tensor)")

        def forward(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, *rest: Any) -> Tensor:
            return attend(q, k, v, (cu_q, cu_k), *rest[2:]).contiguous()

        def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
            inputs = [each.detach() for each in (q, k, v)]
            of_inputs = torch.func.vjp(lambda *each: attend(*each, rest[:2], *rest[4:]), *inputs)[1]
            return tuple(each.contiguous() for each in of_inputs(grad))

        library.impl("varlen", forward, "CPU")
        library.impl("varlen_backward", backward, "CPU")
        torch.library.register_fake("dpo_test::varlen", lambda q, *_: torch.empty_like(q), lib=library)
        torch.library.register_fake(
            "dpo_test::varlen_backward",
            lambda _grad, q, k, v, *_: (torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)),
            lib=library,
        )

        def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            del output
            ctx.save_for_backward(*inputs[:5])
            ctx.rest = inputs[5:]

        def back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            found = torch.ops.dpo_test.varlen_backward(grad, *ctx.saved_tensors, *ctx.rest)
            return (*found, *[None] * 6)

        torch.library.register_autograd("dpo_test::varlen", back, setup_context=keep, lib=library)

        def varlen_attn(
            *tensors: Any, scale: float | None, window_size: tuple[int, int], enable_gqa: bool = False
        ) -> Tensor:
            del enable_gqa
            scale = tensors[0].shape[-1] ** -0.5 if scale is None else scale
            found = torch.ops.dpo_test.varlen(*tensors, scale, window_size[0])
            assert isinstance(found, Tensor)
            return found

        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
        monkeypatch.setattr("dpo_cli.modeling.attention._asks_for_gqa", lambda: True)
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()


@pytest.mark.usefixtures("varlen")
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("name", ["llama", "mistral, window 8", "qwen3"])
def test_compiled_blocks_are_exact_and_compiled_once_for_all_layouts(
    monkeypatch: pytest.MonkeyPatch, name: str, is_checkpointed: bool, groups: list[TokenGroup]
) -> None:
    """Traced whole, without a break, and never again for other lengths and numbers of rows; what Triton makes of it needs a GPU."""
    compiler = torch.compile

    def whole(forward: Any, **options: Any) -> Any:
        return compiler(forward, **options, fullgraph=True, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", whole)
    model = build(PACKED[name])
    scorer = Scorer(model, "packed", "varlen")
    layouts = [groups, groups[:2], [groups[2], groups[0], groups[1]], [groups[0], groups[2]]]
    expected = [gradient(scorer, each) for each in layouts]

    set_blocks(model, is_compiled=True, is_checkpointed=is_checkpointed)

    for number, (each, plain) in enumerate(zip(layouts, expected, strict=True)):
        with torch.compiler.set_stance("fail_on_recompile" if number else "default"):
            found = gradient(scorer, each)
        assert ((found - plain).norm() / plain.norm()) < 1e-5
    scorer.take("padded")
    assert torch.isfinite(gradient(scorer, groups)).all()  # padded rows do not meet the compiler


@pytest.mark.usefixtures("varlen")
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiler_that_fails_leaves_the_blocks_as_they_were(
    monkeypatch: pytest.MonkeyPatch, groups: list[TokenGroup]
) -> None:
    def fails(*_args: Any, **_options: Any) -> Any:
        raise RuntimeError("no working compiler")

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **o: compiler(f, **o, backend=fails))
    model = build(PACKED["llama"])
    scorer = Scorer(model, "packed", "varlen")
    expected = gradient(scorer, groups)

    is_compiled, why = choose_compiled("blocks", scorer, groups, 1, nullcontext)

    assert not is_compiled
    assert why.startswith("blocks not compiled: ")
    assert torch.equal(gradient(scorer, groups), expected)


@pytest.mark.usefixtures("varlen")
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_auto_compiles_long_runs_of_packed_rows(
    monkeypatch: pytest.MonkeyPatch, groups: list[TokenGroup]
) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **o: compiler(f, **o, backend="aot_eager"))
    scorer = Scorer(build(PACKED["llama"]), "packed", "varlen")

    assert choose_compiled("auto", scorer, groups, COMPILED_STEPS - 1, nullcontext) == (False, "")
    assert choose_compiled("none", scorer, groups, COMPILED_STEPS, nullcontext) == (False, "")
    is_compiled, why = choose_compiled("auto", scorer, groups, COMPILED_STEPS, nullcontext)
    assert is_compiled and why.startswith("blocks compiled in ")
    assert all(weight.grad is None for weight in scorer.parameters())
    scorer.kernel = None  # on a CPU the loop, which is not compiled
    assert choose_compiled("auto", scorer, groups, COMPILED_STEPS, nullcontext) == (False, "")


def test_checkpointing_is_chosen_where_few_tokens_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, card = build(PACKED["llama"]), torch.device("cuda")
    free = {"bytes": 10**12}
    monkeypatch.setattr("dpo_cli.modeling.precision.free_bytes", lambda _device: free["bytes"])
    monkeypatch.setattr("dpo_cli.modeling.precision.chunk_logits", lambda _device: CPU_CHUNK_LOGITS)

    assert choose_checkpointing(Train(), model, card, "bf16") == (False, "")
    free["bytes"] = 10**7
    chosen, why = choose_checkpointing(Train(), model, card, "bf16")
    assert chosen
    assert "tokens would fit at once without" in why
    assert choose_checkpointing(Train(max_tokens_per_micro_batch=256), model, card, "bf16") == (False, "")
    assert choose_checkpointing(Train(checkpoint_activations="none"), model, card, "bf16") == (False, "")
    assert choose_checkpointing(Train(checkpoint_activations="full"), model, torch.device("cpu"), "fp32")[0]
    assert not choose_checkpointing(Train(), model, torch.device("cpu"), "fp32")[0]
    assert token_budget(model, card, "bf16", is_checkpointed=True) > token_budget(model, card, "bf16")
