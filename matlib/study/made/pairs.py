"""The pairs that a row trains on: its technique's variants, filtered, as many as asked for.

Pairs that a generating model adds: made once, stored as captions or images, inspectable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from matlib.analysis.diversity import vendi_score
from matlib.analysis.embeddings import embed_variants
from matlib.augmentations.diffusion import (
    GUIDANCE,
    Diffusion,
    drawn_by_diffusion,
    restyled_by_diffusion,
)
from matlib.augmentations.filtering import keep_aligned, keep_diverse, thin_to_vendi
from matlib.augmentations.generators import (
    TRIES,
    BackTranslator,
    Captioner,
    InstructRewriter,
    PretrainedCaptioner,
    Translator,
    Writer,
    captions_by,
    write_variants,
)
from matlib.augmentations.scenes_rewriter import rewrite_scene_captions
from matlib.augmentations.small_captioner import CaptionerConfig, SmallCaptioner, train_captioner
from matlib.augmentations.variants import with_captions, with_images
from matlib.choices import Choices
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.models.dual_encoder import DualEncoder
from matlib.models.masked_lm import MaskedLM
from matlib.progress import Progress
from matlib.study.identity.makers import makes
from matlib.study.profile.profile import Profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import filters_of, n_variants_of
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw, strength_of
from matlib.study.specs import Specs
from matlib.study.store.store import Artefact, ArtefactSpec

KEPT_FILE = "kept.json"

Base = Callable[[], DualEncoder]


@makes("filtered")
def make_variants(
    profile: Profile,
    source: ScenesSource | KarpathySource,
    generators: PairGenerators,
    base: Base,
    run: Run,
    seed: int,
) -> OneToMany:
    """The training pairs of a row.

    Order: technique, first `n_train` pairs, alignment, diversity, Vendi score. What filters
    keep is noted in an artefact of its own (`filter_spec`).

    Args:
        source: the data; with fewer training images, the variants of these.
        generators: of techniques that need a model.
        base: gives the reference model of the filters.

    Raises:
        ValueError: a technique that these data do not allow, or a filter that keeps nothing.
    """
    spec = generators.specs.pairs(run, seed)
    if spec is not None:
        found = generators.variants(run, seed, spec)
    else:
        found = source.variants(run, n_variants_of(profile, run), seed)
    if run.n_train is not None:
        found = first_pairs(found, run.n_train)
    if not filters_of(run):
        return replace(found, technique=run.technique)
    found, shares = _filtered(found, run, base, seed)

    def make(folder: Path) -> dict[str, Any]:
        (folder / KEPT_FILE).write_text(json.dumps(shares), encoding="utf-8")
        return shares

    generators.get(filter_spec(profile, source, generators.specs, run, seed), make)
    return replace(found, technique=run.technique)


def _aligned(found: OneToMany, run: Run, base: Base, seed: int) -> OneToMany:
    assert run.keep_aligned is not None
    return keep_aligned(found, embed_variants(base(), found), run.keep_aligned)


def _diverse(found: OneToMany, run: Run, base: Base, seed: int) -> OneToMany:
    assert run.keep_diverse is not None
    return keep_diverse(found, embed_variants(base(), found), run.keep_diverse)


def _thinned(found: OneToMany, run: Run, base: Base, seed: int) -> OneToMany:
    assert run.vendi is not None
    embedded, generator = embed_variants(base(), found), draw(seed, "vendi")
    return thin_to_vendi(found, embedded, run.vendi, generator, vendi_score)


FILTER_BY: Choices[Callable[[OneToMany, Run, Base, int], OneToMany]] = Choices({
    "keep_aligned": _aligned, "keep_diverse": _diverse, "vendi": _thinned,
}, what="filter")  # fmt: skip


def _filtered(
    found: OneToMany, run: Run, base: Base, seed: int
) -> tuple[OneToMany, dict[str, float]]:
    """What the row's filters leave, and the share of different added variants after each."""
    n_added, shares = max(1, n_different(found)), {}
    for name in filters_of(run):
        found = FILTER_BY.choose(name)(found, run, base, seed)
        shares[name] = n_different(found) / n_added
    return found, shares


def n_different(variants: OneToMany) -> int:
    """Added captions and images that are neither the original nor a repeat of another caption."""
    captions = sum(len({*own[1:]} - {own[0]}) for own in variants.captions)
    if variants.images.shape[1] == 1:
        return captions
    images = variants.all_images()
    return captions + sum(int((own[1:] != own[:1]).flatten(1).any(1).sum()) for own in images)


def filter_spec(
    profile: Profile,
    source: ScenesSource | KarpathySource,
    specs: Specs,
    run: Run,
    seed: int,
) -> ArtefactSpec:
    """Identity of the shares of added variants that a row's filters keep, one after another."""
    inputs = {"base": specs.base(), "pairs": specs.pairs(run, seed)}
    about = {"n_variants": n_variants_of(profile, run), "options": run.options}
    return ArtefactSpec(
        kind="filtered",
        name=run.technique,
        seed=seed,
        config={"augmentation": run.augmentation, **about, "data": source.identity()},
        inputs={name: spec.hash for name, spec in inputs.items() if spec is not None},
        maker="filtered",
        chosen=specs.choices(run),
    )


def pairs_notes(
    profile: Profile,
    source: ScenesSource | KarpathySource,
    specs: Specs,
    find: Callable[[ArtefactSpec], Artefact | None],
) -> pd.DataFrame:
    """What generators and filters noted of the pairs of the first seed, where they worked here.

    Args:
        find: specification -> the artefact if it is there.

    Returns:
        one row for each: `pairs` (the technique), then the notes; shares of filters are of the
        added variants that are different. Empty where nothing was generated.
    """
    rows: dict[str, dict[str, Any]] = {}
    seed = profile.seeds_of_techniques[0]
    for run in (*profile.runs, *profile.techniques, *profile.sweeps):
        unfiltered = {"n_variants": run.n_variants, "strength": run.strength}
        own = Run(**{**run.model_dump(include={"defence", "augmentation"}), **unfiltered})
        wanted = [(own.technique, specs.pairs(run, seed))]
        if filters_of(run):
            wanted.append((run.technique, filter_spec(profile, source, specs, run, seed)))
        for name, spec in wanted:
            found = find(spec) if spec is not None else None
            if spec is not None and found is not None:
                rows[spec.hash] = {"pairs": name, **found.notes}
    return pd.DataFrame(list(rows.values()), dtype=object)


def first_pairs(variants: OneToMany, n: int) -> OneToMany:
    """The first `n` pairs with their variants; all where there are fewer."""
    if n >= len(variants):
        return variants
    images = variants.all_images()[:n]
    return replace(variants, captions=variants.captions[:n], images=images, made_from=None)


CAPTIONS, IMAGES = "captions.json", "images.safetensors"

Make = Callable[[Path], dict[str, Any] | None]
Made = tuple[OneToMany, dict[str, Any]]
"""The pairs with what was added, and notes of how."""


@dataclass(frozen=True)
class PairGenerators:
    """The generating models of a study, and what they added.

    Attributes:
        profile, source, specs, get: as in `matlib.study.made.models.Models`.
        masked_lm: gives the language model of the embedded world's rewriter.
        device: for pretrained generators.
    """

    profile: Profile
    source: ScenesSource | KarpathySource
    specs: Specs
    get: Callable[[ArtefactSpec, Make], Artefact]
    masked_lm: Callable[[], MaskedLM]
    device: str

    @makes("pairs", "matlib.study.made.models:Models.masked_lm")
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

    @makes("captioner")
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

    def _made(self, run: Run, pairs: ImageTextPairs, seed: int) -> Made:
        """The pairs with what was added, and how it was asked for and sorted out."""
        n, generator = n_variants_of(self.profile, run) - 1, draw(seed, run.augmentation)
        return GENERATED.choose(run.augmentation)(self, run, pairs, n, generator)

    def captioned(
        self, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
    ) -> Made:
        """Captions by a captioner."""
        captioner, strength = self.captioner(), strength_of(run)
        ask = captions_by(captioner, pairs, temperature=strength)
        how = {"temperature": strength, **_sampling(captioner)}
        return _written(ask, how, run, pairs, n, generator)

    def rewritten(
        self, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
    ) -> Made:
        """Captions by a language model from the captions that are there."""
        named, strength = self.profile.generators, strength_of(run)
        if isinstance(self.source, ScenesSource) and not named.rewriter:
            made = rewrite_scene_captions(
                pairs, n, generator, self.masked_lm(), temperature=strength
            )
            return made, {"temperature": strength, **_as_they_came(made)}
        model = InstructRewriter.load(
            self._named("rewriter", named.rewriter), self.device,
            top_p=named.top_p, batch_size=named.batch_size,
        )  # fmt: skip
        how = {"prompt": model.prompt, "temperature": strength, **_sampling(model)}
        ask = model.writer(pairs.captions, temperature=strength)
        return _written(ask, how, run, pairs, n, generator)

    def translated(
        self, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
    ) -> Made:
        """Captions there and back between two languages."""
        named = self.profile.generators
        there, back = named.translators or (self._named("translators", ""), "")
        both = BackTranslator(
            Translator.load(there, self.device), Translator.load(back, self.device),
            named.top_p, named.batch_size,
        )  # fmt: skip
        ask = both.writer(pairs.captions)
        return _written(ask, _sampling(both), run, pairs, n, generator)

    def drawn(self, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator) -> Made:
        """Images by a diffusion model, from the captions or from the images."""
        named, is_new = self.profile.generators, run.augmentation == "generated"
        what = "text_to_image" if is_new else "image_to_image"
        source = self._named(what, named.text_to_image if is_new else named.image_to_image)
        model = Diffusion.load(source, what, self.device)
        how: dict[str, Any] = {
            "diffusion_steps": model.n_steps, "guidance": GUIDANCE, "size": model.size
        }  # fmt: skip
        if is_new:
            return drawn_by_diffusion(pairs, n, generator, model), how
        strength = strength_of(run) / 2  # half of the way at the usual strength
        made = restyled_by_diffusion(pairs, n, generator, model, strength=strength)
        return made, {**how, "diffusion_strength": strength}


GENERATED: Choices[
    Callable[[PairGenerators, Run, ImageTextPairs, int, torch.Generator], Made]
] = Choices({
    "captioned": PairGenerators.captioned, "rewritten": PairGenerators.rewritten,
    "back-translated": PairGenerators.translated, "restyled": PairGenerators.drawn,
    "generated": PairGenerators.drawn,
}, what="generating technique")  # fmt: skip
"""The techniques that need a generating model (`restyled` on photographs)."""


def _written(
    ask: Writer,
    how: dict[str, Any],
    run: Run,
    pairs: ImageTextPairs,
    n: int,
    generator: torch.Generator,
) -> Made:
    """What a writer of captions adds, sorted out."""
    writer = _Counting(ask)
    made, report = write_variants(pairs, n, generator, writer, run.augmentation)
    about = {**asdict(report), "n_retried": writer.n_retried, "tries": TRIES}
    return made, {**how, **about}


class _Counting:
    """A writer that counts the pairs that it is asked about again."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._n_calls, self.n_retried = writer, 0, 0

    def __call__(self, rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
        self.n_retried += len(rows) if self._n_calls else 0
        self._n_calls += 1
        return self._writer(rows, n, generator)


def _sampling(model: Any) -> dict[str, Any]:
    """How a model that writes samples: nucleus and length at most."""
    if isinstance(model, SmallCaptioner):  # takes its nucleus by the call, and counts words
        nucleus = signature(model.__call__).parameters["top_p"].default
        return {"top_p": nucleus, "max_words": model.config.max_words}
    return {"top_p": model.top_p, "max_new_tokens": model.max_new_tokens}


def _as_they_came(made: OneToMany) -> dict[str, Any]:
    """Of captions that nobody sorted out: how many are the original, and how many repeats."""
    added = [caption for own in made.captions for caption in own[1:]]
    equal = sum(caption == own[0] for own in made.captions for caption in own[1:])
    different = sum(len(set(own[1:]) - {own[0]}) for own in made.captions)
    repeats = len(added) - equal - different
    return {"n_asked": len(added), "n_equal_original": equal, "n_repeats": repeats}
