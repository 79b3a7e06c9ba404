"""A model's files from the Hugging Face hub, or from what its cache holds already."""

from __future__ import annotations

from pathlib import Path

from matlib.models.checkpoints import WEIGHT_FILES, read_json_object

_CONFIGS = ("open_clip_config.json", "config.json")
_BESIDE = (
    "preprocessor_config.json", "processor_config.json", "tokenizer_config.json",
    "tokenizer.json", "special_tokens_map.json", "vocab.json", "vocab.txt", "merges.txt",
    "spiece.model",
)  # fmt: skip


def fetched(repository: str) -> Path:
    """The folder with a model's configuration, tokenizer and weights.

    Args:
        repository: `owner/name`.

    Raises:
        FileNotFoundError: neither in the cache nor reachable; the message says what to do by hand.
    """
    reasons: list[str] = []
    configs = [path for name in _CONFIGS if (path := hub_file(repository, name, reasons))]
    if not configs:
        raise FileNotFoundError(_by_hand(repository, "its configuration", reasons))
    folder = configs[0].parent
    for name in _BESIDE:
        hub_file(repository, name, [])
    for name in WEIGHT_FILES:
        path = hub_file(repository, name, reasons)
        if path is None:
            continue
        shards = read_json_object(path).get("weight_map") if path.suffix == ".json" else None
        for shard in sorted(set(shards.values())) if isinstance(shards, dict) else ():
            if hub_file(repository, str(shard), reasons) is None:
                raise FileNotFoundError(_by_hand(repository, str(shard), reasons))
        return folder
    raise FileNotFoundError(_by_hand(repository, "its weights", reasons))


def fetched_file(place: str) -> Path:
    """One file of a repository.

    Args:
        place: `owner/name/file`.

    Raises:
        FileNotFoundError: as `fetched`.
    """
    owner, name, file = place.split("/", 2)
    reasons: list[str] = []
    path = hub_file(f"{owner}/{name}", file, reasons)
    if path is None:
        raise FileNotFoundError(_by_hand(f"{owner}/{name}", file, reasons))
    return path


def hub_file(repository: str, name: str, reasons: list[str]) -> Path | None:
    """A file's path in the cache, None where it cannot be had; the reason is added to `reasons`."""
    from huggingface_hub import hf_hub_download  # slow

    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # of the hub, of the network, of the cache's disk
        reasons.append((str(error).strip().splitlines() or [type(error).__name__])[0])
        return None


def _by_hand(repository: str, what: str, reasons: list[str]) -> str:
    return (
        f"{what} of {repository} is neither in the hub's cache nor could it be fetched "
        f"({reasons[-1]:.120}): fetch https://huggingface.co/{repository} on a machine with a "
        "network, and pass the folder (local-dir:FOLDER)"
    )
