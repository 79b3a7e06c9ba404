from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, tiny_encoder

TEXTS = ["a red star", "unbelievably", "circle " * 20 + "red", "a  b", ""]


def direction() -> Tensor:
    row = torch.randn(16, generator=generator(3), dtype=torch.float64)
    return row / row.norm()


def by_differences(encoder: OpenClipEncoder, text: str) -> list[float]:
    """Central differences: every coordinate of every token embedding moved by itself."""
    step, slopes = 1e-5, []
    embedding = encoder.clip.text.token_embedding  # type: ignore[union-attr]
    tokens = encoder.tokenize([text])

    def value(at: int, coordinate: int, move: float) -> Tensor:
        def shift(_m: object, _i: object, output: Tensor) -> Tensor:
            output = output.clone()
            output[0, at, coordinate] += move
            return output

        hook = embedding.register_forward_hook(shift)  # type: ignore[operator,union-attr]
        with torch.no_grad():
            features = encoder.clip.encode_text(tokens, normalize=True)  # type: ignore[operator]
        hook.remove()
        return -(features[0] @ direction())

    for at in range(tokens.shape[1]):
        row = [value(at, c, step) - value(at, c, -step) for c in range(32)]
        slopes.append(float((torch.stack(row) / (2 * step)).square().sum()))
    return slopes


def test_saliency_is_the_slope_of_the_score_at_each_word() -> None:
    encoder = tiny_encoder().double()
    [found] = encoder.word_saliency(["a zqxvk red"], lambda rows: -(rows @ direction()))
    squared = by_differences(encoder, "a zqxvk red")
    n = [len(encoder.tokenize([word])[0]) - 2 for word in ("a", "zqxvk", "red")]
    starts = [1, 1 + n[0], 1 + n[0] + n[1]]
    expected = [sum(squared[at : at + m]) ** 0.5 for at, m in zip(starts, n, strict=True)]
    assert n[1] > 1
    assert found == pytest.approx(expected, rel=1e-5)


def test_every_word_has_a_saliency_and_words_behind_the_context_have_none() -> None:
    encoder = tiny_encoder().double()
    found = encoder.word_saliency(TEXTS, lambda rows: -(rows @ direction()))
    assert [len(row) for row in found] == [len(text.split(" ")) for text in TEXTS]
    assert all(value > 0 for value in found[0])
    assert found[2][13] > 0 and set(found[2][14:]) == {0.0}
    assert found[3][1] == 0.0 and found[4] == [0.0]
    alone = [encoder.word_saliency([t], lambda rows: -(rows @ direction()))[0] for t in TEXTS]
    for a, b in zip(found, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-9)


def test_model_is_left_as_it_was() -> None:
    encoder = tiny_encoder().train()
    encoder.word_saliency(["a red star"], lambda rows: rows.sum(1))
    assert encoder.training
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
    hooks = encoder.clip.text.token_embedding._forward_hooks  # type: ignore[union-attr]
    assert not hooks


def test_models_with_another_tokenizer_say_so() -> None:
    encoder = tiny_encoder()
    encoder.tokenize = lambda texts: torch.ones(len(texts), 4, dtype=torch.long)
    with pytest.raises(ValueError, match="CLIP's tokenizer"):
        encoder.word_saliency(["a"], lambda rows: rows.sum(1))
