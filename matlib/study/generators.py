"""Pairs that a generating model adds: made once, stored as captions or images, inspectable."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from matlib.augmentations.captioning import Captioner, PretrainedCaptioner, captions_by
from matlib.augmentations.diffusion import Diffusion, drawn_by_diffusion, restyled_by_diffusion
from matlib.augmentations.generated import write_captions
from matlib.augmentations.human import with_captions, with_images
from matlib.augmentations.rewriting import InstructRewriter
from matlib.augmentations.scenes_rewriter import rewrite_scene_captions
from matlib.augmentations.small_captioner import CaptionerConfig, SmallCaptioner, train_captioner
from matlib.augmentations.translation import BackTranslator, Translator
from matlib.config import STRENGTHS, Profile, Run
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.models.masked_lm import MaskedLM
from matlib.progress import Progress
from matlib.study.recipes import n_variants_of
from matlib.study.sources import KarpathySource, ScenesSource, draw, strength_of
from matlib.study.specs import Specs
from matlib.study.store import Artefact, ArtefactSpec

CAPTIONS, IMAGES = "captions.json", "images.safetensors"

Make = Callable[[Path], dict[str, Any] | None]


@dataclass(frozen=True)
class Generators:
    """The generating models of a study, and what they added.

    Attributes:
        profile, source, specs, get: as in `matlib.study.models.Models`.
        masked_lm: gives the language model of the embedded world's rewriter.
        device: for pretrained generators.
    """

    profile: Profile
    source: ScenesSource | KarpathySource
    specs: Specs
    get: Callable[[ArtefactSpec, Make], Artefact]
    masked_lm: Callable[[], MaskedLM]
    device: str

    def variants(self, run: Run, seed: int, spec: ArtefactSpec) -> OneToMany:
        """The training pairs with what the row's generator adds, loaded or made.

        Raises:
            FileNotFoundError: a pretrained generator is neither here nor on a hub.
            ValueError: the profile names no generator for this technique.
        """
        pairs = self.source.pairs("train")

        def make(folder: Path) -> dict[str, Any]:
            made, notes = self._made(run, pairs, seed)
            if made.images.shape[1] > 1:
                added = made.all_images()[:, 1:].contiguous()
                save_file({"images": added}, str(folder / IMAGES))
            else:
                added_captions = [own[1:] for own in made.captions]
                text = json.dumps(added_captions, ensure_ascii=False)
                (folder / CAPTIONS).write_text(text, encoding="utf-8")
            return notes

        artefact = self.get(spec, make)
        if IMAGES in artefact.provenance["outputs"]:
            added = load_file(str(artefact.file(IMAGES)))["images"]
            return with_images(pairs, added, run.augmentation)
        captions = json.loads(artefact.file(CAPTIONS).read_text(encoding="utf-8"))
        return with_captions(pairs, captions, run.augmentation)

    def captioner(self) -> Captioner:
        """The study's captioner, or the pretrained one that the profile names."""
        named, spec = self.profile.generators, self.specs.captioner()
        if spec is None:
            source = self._named("captioner", named.captioner)
            return PretrainedCaptioner.load(
                source, self.device, top_p=named.top_p, batch_size=named.batch_size
            )
        config = CaptionerConfig(n_steps=named.captioner_steps)

        def make(folder: Path) -> dict[str, Any]:
            losses: list[float] = []
            with Progress("train captioner", config.n_steps) as progress:

                def on_step(_: int, loss: float) -> None:
                    losses.append(loss)
                    progress.advance(1, f"loss {loss:.2f}")

                train_captioner(self.source.base(), config, 0, on_step).save(folder)
            return {"last_loss": sum(losses[-20:]) / len(losses[-20:])}

        return SmallCaptioner.load(self.get(spec, make).path)

    def _named(self, what: str, name: str) -> str:
        if not name:
            raise ValueError(
                f"profile {self.profile.name} names no model: give generators.{what} a hub's name "
                "or a local folder"
            )
        return name

    def _made(self, run: Run, pairs: ImageTextPairs, seed: int) -> tuple[OneToMany, dict[str, Any]]:
        named, name = self.profile.generators, run.augmentation
        n, generator = n_variants_of(self.profile, run) - 1, draw(seed, name)
        strength = strength_of(run) if name in STRENGTHS else 0.0
        if name == "rewritten" and isinstance(self.source, ScenesSource) and not named.rewriter:
            made = rewrite_scene_captions(
                pairs, n, generator, self.masked_lm(), temperature=strength
            )
            return made, {}
        if name in ("restyled", "generated"):
            return self._drawn(run, pairs, n, generator), {}
        if name == "captioned":
            writer = captions_by(self.captioner(), pairs, temperature=strength)
        elif name == "rewritten":
            model = InstructRewriter.load(
                self._named("rewriter", named.rewriter), self.device,
                top_p=named.top_p, batch_size=named.batch_size,
            )  # fmt: skip
            writer = model.writer(pairs.captions, temperature=strength)
        else:
            there, back = named.translators or (self._named("translators", ""), "")
            both = BackTranslator(
                Translator.load(there, self.device), Translator.load(back, self.device),
                named.top_p, named.batch_size,
            )  # fmt: skip
            writer = both.writer(pairs.captions)
        made, report = write_captions(pairs, n, generator, writer, name)
        return made, asdict(report)

    def _drawn(
        self, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
    ) -> OneToMany:
        named = self.profile.generators
        if run.augmentation == "generated":
            source = self._named("text_to_image", named.text_to_image)
            model = Diffusion.load(source, "text_to_image", self.device)
            return drawn_by_diffusion(pairs, n, generator, model)
        source = self._named("image_to_image", named.image_to_image)
        model = Diffusion.load(source, "image_to_image", self.device)
        return restyled_by_diffusion(pairs, n, generator, model, strength=strength_of(run) / 2)
