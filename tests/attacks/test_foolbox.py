"""PGD against foolbox on the same tiny model, where both follow the same conventions.

The model is given to foolbox as a classifier whose logits are scale * image @ text^T; one
caption is the label of each image. Equal: the step (sign, or gradient at length 1), the
projection onto the ball first and onto [0, 1] second, one start at the clean image.
Also equal, though written differently: foolbox ascends the cross-entropy, matlib its margin m.
The cross-entropy is log(1 + exp(m)), so the gradients differ by the positive factor
sigmoid(m) per image, which neither the sign nor the length-1 gradient sees.

Different, and so not compared:
- Random starts: each library has its own generator.
- The default step: foolbox takes 0.025 * eps (L2) or eps * 0.01 / 0.3 (L-infinity), here
  1.25 * eps / n_steps, at least eps / 4. The tests pass the same step to both.
- Vanishing gradients: foolbox divides by max(norm, 1e-12), so an L2 step shrinks with a
  gradient below 1e-12; here it keeps length 1 (and exact zeros stand still). The last test
  shows it: a confident classifier stops foolbox's L2 attack (in float32 its cross-entropy is
  exactly flat), not this one.
- Restarts: foolbox's `repeat` keeps an image that is misclassified, here the highest score.
- Momentum: foolbox's MI-FGSM divides gradients by their L1 norm before adding them up, here
  (as in FARE's code) each step adds one sign per pixel.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from matlib.attacks.objectives import contrastive
from matlib.attacks.pgd import PGD
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_pixels, tiny_encoder

with warnings.catch_warnings():
    # foolbox 3.3.4 imports gaussian_filter from scipy's old place
    warnings.filterwarnings("ignore", "(?s).*scipy.ndimage", DeprecationWarning)
    import foolbox

CAPTIONS = ["red circle", "blue star", "small green cross", "large square", "star near cross"]
BUDGETS = {"linf": 4.0, "l2": 64.0}


class Classifier(nn.Module):
    """Images of a `DualEncoder` -> logits over fixed captions."""

    def __init__(self, encoder: OpenClipEncoder, text: Tensor, scale: float) -> None:
        super().__init__()
        self.encoder, self.text, self.scale = encoder, text, scale

    def forward(self, pixels: Tensor) -> Tensor:
        return self.scale * self.encoder.encode_image(pixels) @ self.text.T


def both(
    pixels: Tensor, norm: str, eps_255: float, n_steps: int, step_255: float, scale: float = 10.0
) -> tuple[Tensor, Tensor]:
    """The adversarial images of matlib and of foolbox."""
    encoder = tiny_encoder().to(pixels.dtype).requires_grad_(False)
    with torch.no_grad():
        text = encoder.encode_text(CAPTIONS)
    attack = PGD(eps_255, n_steps, step_255, start="none", norm=norm)  # type: ignore[arg-type]
    score = contrastive(text, torch.eye(len(pixels), len(text), dtype=torch.bool), scale)
    ours = attack(encoder, pixels, score, generator=generator())

    wrapped = foolbox.PyTorchModel(
        Classifier(encoder, text, scale).eval(), bounds=(0, 1), device="cpu"
    )
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    theirs = kind(steps=n_steps, abs_stepsize=step_255 / 255, random_start=False)
    found = theirs.run(wrapped, pixels, torch.arange(len(pixels)), epsilon=eps_255 / 255)
    return ours, found


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("n_steps", [1, 3, 10])
def test_equals_foolbox(n_steps: int, norm: str) -> None:
    eps = BUDGETS[norm]
    ours, theirs = both(random_pixels(4).double(), norm, eps, n_steps, eps / 4)
    assert not torch.equal(ours, random_pixels(4).double())
    assert torch.allclose(ours, theirs, atol=1e-9)


@settings(max_examples=15)
@given(
    n=st.integers(1, 5),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.sampled_from([1.0, 8.0, 60.0]),
    share=st.sampled_from([0.1, 0.5, 2.0]),
    seed=st.integers(0, 5),
    extreme=st.booleans(),
)
def test_equals_foolbox_for_any_batch_budget_and_step(
    n: int, norm: str, eps: float, share: float, seed: int, extreme: bool
) -> None:
    pixels = random_pixels(n, seed).double()
    pixels = pixels.round() if extreme else pixels
    ours, theirs = both(pixels, norm, eps, 3, share * eps)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_confident_classifier_stops_foolbox_but_not_the_margin() -> None:
    ours, theirs = both(random_pixels(3), "l2", 64.0, 3, 16.0, scale=1e4)
    still = [
        torch.equal(found[i], random_pixels(3)[i]) for found in (ours, theirs) for i in range(3)
    ]
    assert not any(still[:3]) and any(still[3:])
