"""Captioning and visual grounding by the models of a study, clean and attacked.

Both are judged per image of the test gallery, as retrieval is, so that rows can be compared on the
same images. A captioner is a writer trained on the row's frozen image tower.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from matlib.attacks.edits import Table
from matlib.data.referring import Referring
from matlib.evaluation.captioning import caption_scores, caption_under_attack
from matlib.evaluation.grounding import ground_under_attack, per_image, worst_scores
from matlib.evaluation.robustness import WORST
from matlib.models.captioner import CaptionerConfig, TowerCaptioner, train_tower_captioner
from matlib.progress import Progress
from matlib.scenes.grammar import with_articles
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.base import base, masked_lm, open_base, open_masked_lm
from matlib.study.made.candidates import make_tables, save_tables, tables_in
from matlib.study.made.models import model, open_model
from matlib.study.made.protocols import EvaluationProtocol, full, make_suite, protocol_config
from matlib.study.profile.rows import OtherTasks
from matlib.study.sources.scenes import ScenesSource
from matlib.study.store.provenance import named_weights
from matlib.study.store.store import Artefact

TaskName = Literal["captioning", "grounding"]
SCORES_FILE, SHOWN_FILE, TEXTS_FILE = "scores.json", "shown.safetensors", "texts.json"
N_SHOWN = 4

Scores = dict[str, dict[str, list[float]]]
"""Attack -> measure -> a number for each image of the test gallery."""


def _options(study: Context) -> OtherTasks:
    found = study.profile.other_tasks
    assert found is not None, "a profile without other_tasks"
    return found


def _world(study: Context) -> ScenesSource:
    assert isinstance(study.source, ScenesSource), "the profile's check lets no other through"
    return study.source


def phrases_of(source: ScenesSource, split: str) -> Referring:
    """A phrase for every object of a split, colour and shape, which no two of a scene share."""
    found = source.world.split(split)
    things = [
        (i, k, thing)
        for i, scene in enumerate(found.scenes)
        for k, thing in enumerate(scene.objects)
    ]
    own = torch.tensor([i for i, _, _ in things])
    return Referring(
        tuple(" ".join(with_articles(["a", o.colour, o.shape])) for _, _, o in things),
        own,
        torch.stack([found.boxes[i, k] for i, k, _ in things]).clamp(0, 1),
        tuple(each[~each[:, 0].isnan()].clamp(0, 1) for each in found.boxes),
    )


@makes("phrases")
def phrase_edits(study: Context) -> Node[dict[str, Table]]:
    """The edits of every phrase that leave what it says as it is, with the primary threat."""
    threat = study.identified.evaluation.primary_threat

    def make(folder: Path) -> None:
        source = _world(study)
        phrases = list(phrases_of(source, "test").phrases)
        found = make_tables(
            phrases, (threat,), open_masked_lm(study), study.profile.candidates,
            stop_words=source.stop_words, typos=source.typos, seed=0,
            is_valid=lambda i, edited: source.means_the_same(phrases[i], edited),
            held_out_words=source.held_out_words,
        )  # fmt: skip
        save_tables(found, folder / "tables.json")

    config = {
        "threat": threat,
        "candidates": study.identified.candidates.model_dump(),
        "masked_lm": named_weights(study.identified.masked_lm.name),
    }
    inputs = {"masked_lm": masked_lm(study)}
    return study.node("candidates", "phrases", 0, config, inputs, make, tables_in, maker="phrases")


def captioner_config(options: OtherTasks) -> CaptionerConfig:
    """The writer of a profile and its training."""
    return CaptionerConfig(
        options.captioner_width, 1, max(1, options.captioner_width // 32),
        n_steps=options.captioner_steps, batch_size=options.captioner_batch, lr=4e-3,
    )  # fmt: skip


@makes("tower-captioner")
def tower_captioner(study: Context, name: str, seed: int) -> Node[TowerCaptioner]:
    """A writer on the frozen image tower of a row, trained on the pre-training pairs."""
    options = _options(study)
    config = captioner_config(options)

    def make(folder: Path) -> dict[str, Any]:
        losses: list[float] = []
        with Progress(f"train captioner on {name} s{seed}", config.n_steps) as progress:

            def on_step(_: int, loss: float) -> None:
                losses.append(loss)
                progress.advance(1, f"loss {loss:.2f}")

            encoder, pairs = open_model(study, name, seed), study.source.base()
            train_tower_captioner(encoder, pairs, config, 0, on_step).save(folder)
        return {"last_loss": sum(losses[-20:]) / len(losses[-20:])}

    def load(artefact: Artefact) -> TowerCaptioner:
        return TowerCaptioner.load(artefact.path, open_model(study, name, seed))

    about = {"captioner": options.model_dump(include={
        "captioner_steps", "captioner_width", "captioner_batch"})}  # fmt: skip
    return study.node(
        "captioner", name, seed, about, {"model": model(study, name, seed)}, make, load,
        maker="tower-captioner",
    )  # fmt: skip


@makes("captioning")
def captioning(study: Context, name: str, seed: int) -> Node[Scores]:
    """What a row's captioner writes of clean and of attacked test images, by every measure.

    `shuffled` sets the clean captions beside other images: what a captioner that sees nothing
    would get.
    """
    writer = tower_captioner(study, name, seed)

    def make(folder: Path) -> None:
        encoder, pairs, source = open_model(study, name, seed), study.pairs("test"), _world(study)
        pixels = pairs.pixels().to(study.device)
        attack = make_suite(study.profile.evaluation, _protocol(study)).image
        found = caption_under_attack(study.get(writer), pixels, attack, encoder=encoder)
        written = {**found.captions, "shuffled": _shifted(found.captions["clean"])}
        own = [[pairs.captions[j] for j in each.tolist()] for each in pairs.captions_of()]
        judge, scenes = open_base(study), source.world.test.scenes
        scores = {
            attack: caption_scores(
                texts, pixels, own, judge, lambda i, text: source.fraction(text, scenes[i])
            )
            for attack, texts in written.items()
        }
        moved = [scores[each] for each in found.captions]
        scores[WORST] = {m: torch.stack([s[m] for s in moved]).amin(0) for m in moved[0]}
        shown = {f"pixels/{attack}": each[:N_SHOWN] for attack, each in found.pixels.items()}
        _save(folder, scores, shown, written)

    inputs = {"model": model(study, name, seed), "captioner": writer, "judge": base(study)}
    return study.node("captioning", name, seed, _about(study), inputs, make, _scores_in)


@makes("grounding")
def grounding(study: Context, name: str, seed: int) -> Node[Scores]:
    """Where a row looks for the things of the test gallery, clean and attacked."""
    words, threat = phrase_edits(study), study.profile.evaluation.primary_threat

    def make(folder: Path) -> None:
        encoder, pairs = open_model(study, name, seed), study.pairs("test")
        referring = phrases_of(_world(study), "test")
        attack = make_suite(study.profile.evaluation, _protocol(study)).image
        found = ground_under_attack(
            encoder, pairs.pixels(), referring, attack, study.get(words)[threat]
        )
        scores = {
            attack: {m: per_image(values, referring.image_of) for m, values in own.items()}
            for attack, own in {**found.scores, WORST: worst_scores(found)}.items()
        }
        first = [int((referring.image_of == i).nonzero()[0]) for i in range(N_SHOWN)]
        shown = {f"pixels/{attack}": each[first] for attack, each in found.pixels.items()}
        shown |= {f"heat/{attack}": each[first] for attack, each in found.heat.items()}
        shown["boxes"] = referring.boxes[first]
        texts = {attack: [asked[i] for i in first] for attack, asked in found.phrases.items()}
        _save(folder, scores, shown, texts)

    inputs = {"model": model(study, name, seed), "phrases": words}
    return study.node("grounding", name, seed, _about(study), inputs, make, _scores_in)


OTHER_TASKS: dict[str, Callable[[Context, str, int], Node[Scores]]] = {
    "captioning": captioning, "grounding": grounding,
}  # fmt: skip


def _protocol(study: Context) -> EvaluationProtocol:
    return full(study.profile.evaluation, "test")


def _about(study: Context) -> dict[str, Any]:
    about = protocol_config(study.identified.evaluation, _protocol(study))
    return {**about, "model": study.identified.model.model_dump()}


def _shifted(texts: list[str]) -> list[str]:
    return texts[1:] + texts[:1]


def _save(
    folder: Path,
    scores: dict[str, dict[str, Tensor]],
    shown: dict[str, Tensor],
    texts: dict[str, list[str]],
) -> None:
    plain = {a: {m: values.double().tolist() for m, values in own.items()}
             for a, own in scores.items()}  # fmt: skip
    (folder / SCORES_FILE).write_text(json.dumps(plain), encoding="utf-8")
    (folder / TEXTS_FILE).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    save_file({k: v.cpu().contiguous().clone() for k, v in shown.items()}, str(folder / SHOWN_FILE))


def _scores_in(artefact: Artefact) -> Scores:
    found: Scores = json.loads(artefact.file(SCORES_FILE).read_text(encoding="utf-8"))
    return found


def shown_of(
    study: Context, task: TaskName, name: str, seed: int
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """What is shown of a task's first images: tensors by name, texts by attack."""
    artefact = study.make(OTHER_TASKS[task](study, name, seed))
    texts = json.loads(artefact.file(TEXTS_FILE).read_text(encoding="utf-8"))
    return load_file(str(artefact.file(SHOWN_FILE))), texts
