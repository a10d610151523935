import pytest

from dpo_cli.metrics.scrub import scrub, scrub_values

HEX40 = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("token hf_AbCdEfGhIjKlMnOp", "hf_AbCd"),
        (f"WANDB_API_KEY={HEX40}", HEX40),
        (f"key {HEX40} in a line", HEX40),
        ("MY_SERVICE_SECRET: 'hunter2'", "hunter2"),
        ('{"HF_TOKEN": "abc123"}', "abc123"),
        ("dpo train --token abc123", "abc123"),
        ("--hf-token=abc123", "abc123"),
        ("api_key: abc123", "abc123"),
        ("https://user:abc123@host/x", "abc123"),
    ],
)
def test_credentials_are_hidden(text, secret):
    assert secret not in scrub(text)
    assert "[hidden]" in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "eos_token: <|im_end|>",
        "max_tokens_per_micro_batch: 8192",
        f"revision: {HEX40}",
        f"'revision': '{HEX40}'",
        "digest 0123456789abcdef0123456789abcdef",
        "https://arxiv.org/abs/2305.18290",
        "train.max_tokens_per_micro_batch=4096",
    ],
)
def test_recipes_pass_unchanged(text):
    assert scrub(text) == text


def test_nested_values_are_scrubbed_but_revisions_kept():
    recipe = {
        "model": {"name": "hf_AbCdEfGhIjKl", "revision": HEX40},
        "data": [{"path": f"x/{HEX40}"}],
        "lr": 1e-6,
    }
    assert scrub_values(recipe) == {
        "model": {"name": "[hidden]", "revision": HEX40},
        "data": [{"path": "x/[hidden]"}],
        "lr": 1e-6,
    }
