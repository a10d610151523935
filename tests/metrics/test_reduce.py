import json

import pytest
import torch
from torch.overrides import TorchFunctionMode

from dpo_cli.metrics.reduce import Meter


class NoHostSync(TorchFunctionMode):
    """Raises where a tensor's value would come to the host."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        assert name not in {"item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__"}, (
            f"host sync: {name}"
        )
        return function(*args, **(kwargs or {}))


def test_adding_never_waits_for_the_device():
    meter = Meter()
    values = {"loss": torch.tensor([1.0, 3.0]), "acc": torch.tensor([0.0, 1.0])}
    with NoHostSync():
        for weight in (1.0, 0.0, 0.5):
            meter.add(values, weight)
        meter.add_sum("grad_norm", torch.tensor(4.0), 2)
        meter.add_sum("loss", torch.tensor(4.0), torch.tensor(2))
        for weight in (1.0, 0.0):
            meter.add_ranked({"auc": (torch.tensor([1.0, 3.0]), torch.tensor([False, True]))}, weight)
    assert meter.reduce() == {
        "loss": pytest.approx(2.0),
        "acc": 0.5,
        "grad_norm": 2.0,
        "auc": 1.0,
    }


def test_adding_works_on_a_device_whose_values_cannot_be_read():
    meter = Meter()  # reading a value of a meta tensor raises
    for _ in range(2):
        meter.add({"loss": torch.ones(3, device="meta")})
    meter.add_sum("norm", torch.ones((), device="meta"), 1)
    meter.add_ranked({"auc": (torch.ones(3, device="meta"), torch.ones(3, dtype=torch.bool, device="meta"))})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_adding_on_a_gpu_makes_no_synchronising_call():
    meter, values = Meter(), {"loss": torch.ones(3, device="cuda")}
    torch.cuda.set_sync_debug_mode("error")
    try:
        meter.add(values)
        meter.add(values, weight=0.0)
        meter.add_sum("norm", torch.ones((), device="cuda"), 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.reduce() == {"loss": 1.0, "norm": 1.0}


def test_reducing_is_one_collective_over_sorted_names():
    calls = []

    def twice(sums):
        calls.append(sums.clone())
        return 2 * sums

    meter = Meter()
    meter.add({"b": torch.tensor([1.0, 2.0])})
    meter.add({"a": torch.tensor([5.0])})
    assert meter.reduce(twice) == {"a": 5.0, "b": 1.5}
    assert [call.tolist() for call in calls] == [[[5.0, 1.0], [3.0, 2.0]]]
    assert meter.reduce(twice) == {}


def test_means_do_not_depend_on_micro_batches_or_ranks():
    values = torch.randn(12, generator=torch.Generator().manual_seed(0))
    whole, parts, left, right = Meter(), Meter(), Meter(), Meter()
    whole.add({"x": values})
    for part in values.split([1, 5, 2, 4]):
        parts.add({"x": part})
    left.add({"x": values[:9]})
    right.add({"x": values[9:]})
    right_sums = []
    right.reduce(lambda sums: right_sums.append(sums) or sums)
    expected = values.double().mean().item()
    assert whole.reduce()["x"] == pytest.approx(expected, abs=1e-15)
    assert parts.reduce()["x"] == pytest.approx(expected, abs=1e-15)
    assert left.reduce(lambda sums: sums + right_sums[0])["x"] == pytest.approx(expected, abs=1e-15)


def test_a_filler_keeps_its_name_and_counts_nothing_even_if_not_finite():
    meter, sums = Meter(), []
    meter.add({"x": torch.tensor([float("nan"), float("inf")])}, weight=0.0)
    assert meter.reduce(lambda tensor: sums.append(tensor) or tensor) == {}
    assert sums[0].tolist() == [[0.0, 0.0]]


def test_a_long_window_keeps_float64_precision():
    meter = Meter()
    meter.add({"x": torch.tensor([2.0**24])})
    for _ in range(3):
        meter.add({"x": torch.tensor([1.0])})  # lost in float32
    assert meter.reduce()["x"] == (2.0**24 + 3) / 4


def test_open_sums_survive_a_checkpoint_bit_for_bit():
    generator = torch.Generator().manual_seed(1)
    batches = [
        {"x": torch.randn(3, generator=generator), "y": torch.randn(3, generator=generator)} for _ in range(6)
    ]
    straight, before, after = Meter(), Meter(), Meter()
    for batch in batches:
        straight.add(batch)
    for batch in batches[:4]:
        before.add(batch)
    after.load_state(json.loads(json.dumps(before.state())))
    for batch in batches[4:]:
        after.add(batch)
    assert after.reduce() == straight.reduce()
    assert Meter().state() == {}


def rows_with_labels(n, seed=0):
    """Give n rewards, some of them equal, and labels that they tell a little."""
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.rand(n, generator=generator) < 0.3
    return ((torch.randn(n, generator=generator) + wanted) * 4).round() / 4, wanted


def counted(values, wanted):
    """Count couples: the wanted one higher, or half a couple where both are equal."""
    couples = [(up, down) for up in values[wanted].tolist() for down in values[~wanted].tolist()]
    return sum((up > down) + (up == down) / 2 for up, down in couples) / len(couples)


def test_the_auc_of_a_window_is_a_count_of_couples_however_it_came():
    values, wanted = rows_with_labels(101)
    whole, parts, left, right = Meter(), Meter(), Meter(), Meter()
    whole.add_ranked({"auc": (values, wanted)})
    for value, label in zip(values.split([1, 40, 60]), wanted.split([1, 40, 60]), strict=True):
        parts.add_ranked({"auc": (value, label)})
        parts.add_ranked({"auc": (torch.full_like(value, 99.0), ~label)}, weight=0.0)  # a filler
    left.add_ranked({"auc": (values[:17], wanted[:17])})
    right.add_ranked({"auc": (values[17:], wanted[17:])})
    theirs = []
    right.reduce(gather=lambda tables: theirs.extend(tables) or tables)

    expected = counted(values, wanted)
    assert 0.5 < expected < 0.9
    assert whole.reduce() == {"auc": pytest.approx(expected, abs=1e-12)}
    assert parts.reduce() == {"auc": pytest.approx(expected, abs=1e-12)}
    assert left.reduce(gather=lambda tables: tables + theirs) == {"auc": pytest.approx(expected, abs=1e-12)}
    assert whole.reduce() == {}


def test_a_rank_that_ran_fillers_only_still_takes_part_in_the_gather():
    meter, gathered = Meter(), []
    meter.add_ranked({"auc": (torch.tensor([1.0]), torch.tensor([True]))}, weight=0.0)
    assert meter.reduce(gather=lambda tables: gathered.extend(tables) or tables) == {}
    assert gathered[0]["auc"].shape == (2, 0)


@pytest.mark.parametrize("label", [True, False])
def test_a_window_with_one_label_has_no_auc(label):
    meter = Meter()
    meter.add_ranked({"auc": (torch.tensor([1.0, 2.0]), torch.tensor([label, label]))})
    meter.add({"x": torch.ones(1)})
    assert meter.reduce() == {"x": 1.0}


def test_a_value_that_is_no_number_is_not_ranked():
    meter = Meter()
    meter.add_ranked({"auc": (torch.tensor([float("nan"), 2.0, 1.0]), torch.tensor([True, True, False]))})
    assert meter.reduce() == {"auc": 1.0}


def test_an_open_window_of_ranks_survives_a_checkpoint():
    values, wanted = rows_with_labels(40, seed=3)
    before, after = Meter(), Meter()
    before.add_ranked({"auc": (values[:25], wanted[:25])})
    before.add({"x": values[:25]})
    after.load_state(json.loads(json.dumps(before.state())))
    after.add_ranked({"auc": (values[25:], wanted[25:])})
    assert after.reduce()["auc"] == pytest.approx(counted(values, wanted), abs=1e-12)
