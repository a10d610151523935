"""The device that a run is planned for: a card by name, an amount of memory, or this machine."""

from __future__ import annotations

from dataclasses import dataclass

from dpo_cli.modeling.sizes.cards import Card, card_called, card_named
from dpo_cli.modeling.sizes.footprint import CPU_CHUNK_LOGITS, SPARE, chunk_logits_of

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """What a run is planned for."""

    name: str
    memory: int
    """Bytes that the run may take."""
    is_gpu: bool
    has_bf16: bool
    tflops: float | None = None
    """Peak of bf16 products; None where it is not known."""
    capacity: int = 0
    """Bytes of memory in all, by which the head's chunks are sized; 0: as `memory`."""

    @property
    def room(self) -> int:
        """Bytes that a plan fills."""
        return int(self.memory * (1 - SPARE))

    @property
    def chunk_logits(self) -> int:
        """Logits that the head computes at once."""
        return chunk_logits_of(self.capacity or self.memory) if self.is_gpu else CPU_CHUNK_LOGITS


def device_of(gpu: str | None, memory_gib: float | None) -> Device:
    """Return a card of the table, a GPU with that much memory, or what this machine has free.

    Raises:
        RecipeError: no such card.
    """
    if gpu is not None:
        return on(card_named(gpu))
    if memory_gib is not None:
        return Device(f"a GPU with {memory_gib:g} GiB", int(memory_gib * GIB), True, True)
    import torch

    from dpo_cli.modeling.precision import free_bytes, has_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    free, can_bf16 = free_bytes(device), has_bf16(device)
    if device.type == "cpu":
        return Device("this machine's CPU, free memory", free, False, can_bf16)
    facts = torch.cuda.get_device_properties(device)
    card = card_called(facts.name)
    tflops = None if card is None else card.bf16_tflops
    return Device(f"{facts.name}, free memory", free, True, can_bf16, tflops, facts.total_memory)


def on(card: Card) -> Device:
    """Return a card of the table as a device, with nothing else on it."""
    return Device(card.name, int(card.gib * GIB), True, card.bf16_tflops is not None, card.bf16_tflops)
