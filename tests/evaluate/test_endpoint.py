"""A server as the judge: a real one on this machine, well, slow, broken, babbling and dead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.errors import DataError, RecipeError
from dpo_cli.evaluate.judges import endpoint, open_judge
from dpo_cli.evaluate.judges._base import Question, Verdict
from dpo_cli.evaluate.judges.endpoint import KEY, Endpoint
from tests.evaluate.judge_server import Answer, longer, serving, slowly
from tests.evaluate.sampled import sampled
from tests.fakes import write_jsonl
from tests.patience import starts

SECRET = "sk-" + "z" * 20
QUESTION = Question("Tea?", "yes, with milk", "no")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PAUSE_S", 0.01)
    monkeypatch.setattr(endpoint, "TIMEOUT_S", starts(1))
    for name in ("http_proxy", "HTTP_PROXY", KEY):
        monkeypatch.delenv(name, raising=False)


def verdicts(judge: Endpoint, *questions: Question) -> list[Verdict]:
    return judge.judge(questions, lambda _n: None)


def test_both_orders_are_asked_and_a_judge_that_likes_the_first_place_says_a_tie(tmp_path: Path) -> None:
    with serving(lambda _n, a, b: (200, longer(a, b))) as server:
        judge = Endpoint(server.url, "m", tmp_path)
        assert [each.win for each in verdicts(judge, QUESTION, Question("Tea?", "a", "bb"))] == [1.0, 0.0]
        assert judge.facts()["first_preferred"] == 0.5
    with serving(lambda _n, _a, _b: (200, "I think so.\n\n**Answer: A.**")) as server:
        judge = Endpoint(server.url, "m", tmp_path)
        assert [each.win for each in verdicts(judge, QUESTION)] == [0.5]
        facts = judge.facts()
    assert facts["first_preferred"] == 1.0
    assert (facts["asked"], facts["prompt_tokens"], facts["completion_tokens"]) == (2, 20, 4)


def test_what_was_answered_is_not_asked_again_not_even_behind_a_cut_line(tmp_path: Path) -> None:
    with serving(lambda _n, a, b: (200, longer(a, b))) as server:
        first = verdicts(Endpoint(server.url, "m", tmp_path), QUESTION)
        (file,) = tmp_path.iterdir()
        file.write_text(file.read_text() + '\n{"key": "abc", "wo')
        again = Endpoint(server.url, "m", tmp_path)
        assert verdicts(again, QUESTION) == first
        assert (again.facts()["asked"], again.facts()["found"], len(server.bodies)) == (0, 2, 2)
        verdicts(Endpoint(server.url, "other", tmp_path), QUESTION)
        assert len(server.bodies) == 4, "another model is another judge"


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", "of another server")
    samples = write_jsonl(tmp_path / "s.jsonl", [sampled("Tea?", "yes", "no")])
    with serving(lambda n, a, b: (200, longer(a, b)) if n else (500, b"")) as server:
        command = ["judge", str(samples), "--judge", server.url, "--judge-model", "m"]
        done = CliRunner().invoke(app, command)
    with serving(lambda _n, _a, _b: (302, b"")) as server:
        moved = verdicts(Endpoint(server.url, "m", tmp_path), QUESTION)
        assert len(server.bodies) <= 2 and "HTTP 302" in moved[0].reason, "not followed"

    assert done.exit_code == 0, done.output
    assert all(headers["Authorization"] == f"Bearer {SECRET}" for headers in server.headers)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 2 and not any(SECRET.encode() in each for each in written)
    assert SECRET not in done.output
    with pytest.raises(RecipeError, match="a key belongs into the environment"):
        Endpoint(f"http://{SECRET}@127.0.0.1/v1", "m", tmp_path)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((500, b"oops"), "HTTP 500"),
        ((400, b"too long"), "HTTP 400"),
        ((200, b"<html>"), "a reply that is no JSON"),
        ((200, b'{"choices": []}'), "a reply without an answer"),
        ((200, "Both have their merits."), "an answer that says neither A, B nor tie"),
        ((0, b""), "the connection broke off"),
    ],
)
def test_each_way_to_fail_is_named(bad: Answer, reason: str, tmp_path: Path) -> None:
    with serving(lambda _n, _a, _b: bad) as server:
        (found,) = verdicts(Endpoint(server.url, "m", tmp_path), QUESTION)
        asked = len(server.bodies)

    assert found == Verdict(None, reason=reason)
    assert asked == (1 if reason == "HTTP 400" else endpoint.TRIES)


def test_a_server_that_refuses_the_key_is_asked_once(tmp_path: Path) -> None:
    many = [Question("Tea?", str(i), "no") for i in range(40)]
    with serving(lambda _n, _a, _b: (401, b"")) as server:
        found = verdicts(Endpoint(server.url, "m", tmp_path), *many)
        assert len(server.bodies) <= endpoint.WORKERS

    (gone,) = verdicts(Endpoint(server.url, "m", tmp_path), QUESTION)
    assert gone == Verdict(None, reason="unreachable"), "nobody listens any more"
    assert {each.win for each in found} == {None}
    assert found[-1].reason == "not asked: the server answers all with HTTP 401"


def test_slow_500_garbage_then_dead_ends_with_what_it_has_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [sampled(f"q{i}", "x" * (i + 1), "yyy", "zzzz") for i in range(30)]
    samples = write_jsonl(tmp_path / "s.jsonl", rows)

    def misbehave(n: int, a: str, b: str) -> Answer:
        if n >= 60:
            return 0, b""
        bad: dict[int, Answer] = {0: slowly(0.1, (500, b"")), 1: (503, b""), 2: (200, "hm"), 3: (200, b"{")}
        if n % 9 == 4:
            return slowly(starts(1.5), (200, longer(a, b)))  # longer than a judge waits here
        return bad.get(n % 9, (200, longer(a, b)))

    with serving(misbehave) as server:
        command = ["judge", str(samples), "--judge", server.url, "--judge-model", "m", "--json"]
        broken = CliRunner().invoke(app, command)
        n_before = len(server.bodies)
        first: dict[str, Any] = json.loads(broken.stdout)
        server.say = lambda _n, a, b: (200, longer(a, b))
        healed = CliRunner().invoke(app, command)
        second: dict[str, Any] = json.loads(healed.stdout)
        asked_again = len(server.bodies) - n_before

    assert broken.exit_code == 10 and healed.exit_code == 0, (broken.output, healed.output)
    judged = sum(each["n"] for each in first["figures"])
    assert 0 < judged < 60 and judged + first["missing"] == 60
    reasons = {reason for each in first["figures"] for reason in each["reasons"]}
    assert any(reason.startswith("not asked: 8 questions in a row") for reason in reasons), reasons
    assert asked_again == 120 - first["asked"], "each answer once"
    assert second["missing"] == 0 and second["found"] == first["asked"]
    by_opponent = {each["against"]: each["win_rate"] for each in second["figures"]}
    assert by_opponent == {"chosen": (26 + 0.5) / 30, "reference": (27 + 0.5) / 30}
    assert [each["win_rate"] for each in second["longer"]] == list(by_opponent.values())
    lines = [json.loads(line) for line in (tmp_path / "s.m.jsonl").read_text().splitlines()]
    assert len(lines) == 60 and lines[0]["win"] == 0.0 and lines[0]["against"] == "reference"


def test_samples_that_stand_alone_are_nothing_to_judge(tmp_path: Path) -> None:
    samples = write_jsonl(tmp_path / "s.jsonl", [sampled("Tea?", "yes")])
    error = CliRunner().invoke(app, ["judge", str(samples), "--judge", "longer"]).exception

    assert isinstance(error, DataError) and "stand alone" in str(error)


def test_an_address_and_a_model_belong_together() -> None:
    with pytest.raises(RecipeError, match="goes with a server's address only"):
        open_judge("http://127.0.0.1/v1")
    with pytest.raises(RecipeError, match="goes with a server's address only"):
        open_judge("longer", "m")
