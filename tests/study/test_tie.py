"""Results are tied to the code that made them: edits of the package's own files, on a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from matlib.augmentations.table import TECHNIQUES
from matlib.study.identity.reached import Code
from matlib.study.made.evaluated import evaluated
from matlib.study.made.models import defended
from matlib.study.made.pairs import generated
from matlib.study.made.protocols import validating
from matlib.study.profile.profile import Profile, load_profile, profile_names
from matlib.study.profile.rows import Run
from matlib.study.run.tasks import all_rows
from matlib.study.store.provenance import PACKAGE, code_hash
from matlib.study.study import Study

VALIDATED = ("validated", "joint")
PANEL: dict[str, tuple[str, tuple[str, ...]]] = {
    "masked-lm": ("masked-lm", ()),
    "tables": ("tables", ()),
    "words": ("training-tables", ("none",)),
    "mat": ("defended", ("mat", "none")),
    "mat-best": ("defended", ("mat", "none", *VALIDATED)),
    "pmg-aft": ("defended", ("pmg-aft", "none")),
    "augmix": ("defended", ("mat+", "augmix")),
    "captions": ("defended", ("mat+", "captions")),
    "vendi": ("defended", ("mat+", "captions", "vendi")),
    "judged": ("judged", ("joint",)),
    "judged-sga": ("judged", ("joint", "sga")),
    "judged-apgd": ("judged", ("apgd",)),
    "sanity-fare": ("sanity", ("reference-distance",)),
    "rewritten": ("pairs", ("rewritten", "rewriter")),
    "measures": ("measures", ("augmix",)),
    "sanity": ("sanity", ()),
    "alignment": ("validation", ("alignment",)),
}
"""Some artefacts: their maker, and what is chosen in tables."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tie") / "matlib"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def package(copy: Path) -> Iterator[Path]:
    """A copy of the package whose edited files are put back afterwards."""
    yield copy
    for path in copy.rglob("*.py"):
        original = PACKAGE / path.relative_to(copy)
        if not original.exists():
            path.unlink()
        elif path.stat().st_mtime_ns != original.stat().st_mtime_ns:
            shutil.copy2(original, path)


def edit(package: Path, file: str, old: str, new: str) -> None:
    path = package / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} is expected to hold once: {old}"
    path.write_text(text.replace(old, new))


def hashes(package: Path, names: str) -> dict[str, str]:
    code = Code(package)
    return {name: code.hash(*PANEL[name]) for name in names.split()}


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return {name: code_hash(*how) for name, how in PANEL.items()}


RENDERED = "out = torch.empty(len(scenes), 3, size, size, dtype=torch.uint8)"

CHANGES = [
    # eight edits that change results and once changed no hash
    ("study/made/protocols.py", "PGD(how.eps_255, e.pgd_steps, step)", "PGD(how.eps_255, 1, step)",
     "judged mat-best", "mat tables words masked-lm"),
    ("study/made/models.py", "PGD(config.eps_255, config.pgd_steps,", "PGD(config.eps_255, 1,",
     "mat mat-best augmix", "judged tables words"),
    ("study/made/candidates.py", "return keeps_truth(i, edited)", "return True", "words",
     "judged mat"),
    ("study/sources/scenes.py",
     "return EditChecker(self.world.split(split).checker, captions, own)",
     "return lambda i, edited: True", "tables words", "masked-lm mat-best judged"),
    ("study/sources/source.py", "seed * 2**31 + words", "seed * 2**31 + words + 1",
     "augmix captions words rewritten", ""),
    ("augmentations/of_scenes.py", 'more_captions(rows, w.added, w.draw("captions"))',
     'more_captions(rows, w.added + 1, w.draw("captions"))', "captions",
     "augmix mat judged"),
    ("study/made/evaluated.py", "encoder, pairs, study.get(words), suite, seed=0,",
     "encoder, pairs, study.get(words), suite, seed=1,", "judged", "mat-best tables"),
    ("study/made/models.py", "keep_best=True", "keep_best=False", "mat-best", "mat judged"),
    # one technique, filter, defence or attack, and what depends on it
    ("augmentations/images.py", "v2.AugMix(severity)", "v2.AugMix(1 + severity)",
     "augmix measures", "captions mat judged"),
    ("augmentations/table.py", "severity=round(w.strength)", "severity=1", "augmix", "captions"),
    ("augmentations/table.py", '"severity of 10", 3.0,', '"severity of 10", 4.0,',
     "augmix", "captions mat"),
    ("study/made/pairs.py", 'draw(seed, "vendi")', 'draw(seed, "other")', "vendi", "captions mat"),
    ("defences/defence.py", "loss = contrastive_loss(images", "loss = 2 * contrastive_loss(images",
     "mat augmix", "judged tables"),
    ("defences/defence.py", "+ self.clean_weight * div", "- self.clean_weight * div",
     "pmg-aft", "mat judged"),
    ("defences/table.py", 'Contrastive("mat", _MAT, "symmetric", "contrastive")',
     'Contrastive("mat", _MAT, "symmetric", "unimodal")', "mat", "augmix pmg-aft"),
    ("defences/own_loss.py", 'search="exhaustive"', 'search="greedy"',
     "sanity-fare", "judged mat"),
    ("evaluation/suite.py", "return sga(*s.target,", "return dra(*s.target,",
     "judged-sga", "judged mat-best"),
    ("attacks/apgd.py", "rho: float = 0.75", "rho: float = 0.76", "judged-apgd", "judged mat"),
    # what all share
    ("defences/inner_attack.py", "return caption_contrastive(own,",
     "return -caption_contrastive(own,",
     "mat augmix",
     "tables words"),
    ("training/schedule.py", "math.cos(math.pi * way)", "math.cos(2 * way)", "mat", "judged"),
    ("training/checkpoint.py", 'stepper.averages.load(_part(found, "averages"))', "pass", "mat",
     "judged"),
    ("training/loop.py", "from matlib.training.step import Stepper",
     "from matlib.training.mine import Stepper", "mat", "judged"),
    ("models/encoder.py", "- self.mean) / self.std", "- self.mean)", "mat judged", "tables"),
    ("models/masked_lm_training.py", "(fate < 0.6)", "(fate < 0.8)", "masked-lm", "judged mat"),
    ("evaluation/retrieval.py", "(score >= best - TIE", "(score > best - TIE",
     "judged mat-best", "mat tables"),
    ("scenes/renderer.py", RENDERED, RENDERED.replace("empty", "zeros"), "mat judged tables",
     ""),
    ("attacks/balls.py", "MAX_EPS_255 =", "MAX_EPS_255 = 1 +", "mat judged", "tables"),
    ("scenes/renderer.py", "Style(*[strength] * 7)", "Style(*[strength / 2] * 7)",
     "mat judged captions", ""),
    ("study/made/candidates.py", "seed * 1_000_003 + i", "seed * 1_000_003", "tables words",
     "judged"),
    ("study/made/validation.py", "WRONG = (0.0, 0.1,", "WRONG = (0.0, 0.2,", "alignment",
     "measures"),
    ("evaluation/sanity_checks.py", "def sanity(", "@staticmethod\ndef sanity(", "sanity",
     "judged"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "changed", "same"), CHANGES)
def test_an_edit_changes_the_hashes_of_what_it_can_change(
    package: Path, before: dict[str, str], file: str, old: str, new: str, changed: str, same: str
) -> None:
    edit(package, file, old, new)
    after = hashes(package, f"{changed} {same}")
    assert [name for name in after if after[name] != before[name]] == changed.split()


NOTHING = [
    ("study/study.py", '"""Per-query outcomes, adversarial captions and a few images of one model.',
     '"""Outcomes.'),
    ("defences/inner_attack.py", "image: PGD\n", "image: 'PGD'  # of the image step\n"),
    ("analysis/figures/style.py", "_DEFENCES: dict", "MORE = 1\n_DEFENCES: dict"),
    ("study/publish/readme.py", "def ", "MORE = 1\n\n\ndef "),
    ("study/run/plan.py", "def ", "MORE = 1\n\n\ndef "),
    ("study/tables/ledger.py", "def ", "MORE = 1\n\n\ndef "),
    ("study/store/store.py", 'if fault:\n', 'if bool(fault):\n'),
    ("evaluation/suite.py", 'Shown("both, SGA")', 'Shown("SGA")'),
    ("augmentations/table.py", 'Shown("AugMix")', 'Shown("mixed")'),
    ("progress.py", "def ", "MORE = 1\n\n\ndef "),
]  # fmt: skip


def test_what_decides_no_result_changes_no_hash(package: Path, before: dict[str, str]) -> None:
    for file, old, new in NOTHING:
        path = package / file
        text = path.read_text()
        assert old in text, file
        path.write_text(text.replace(old, new, 1))
    assert hashes(package, " ".join(PANEL)) == before


def test_definitions_that_move_change_no_hash(package: Path, before: dict[str, str]) -> None:
    text = (package / "study/made/candidates.py").read_text()
    (package / "study/truth_of_words.py").write_text(text)
    (package / "study/made/candidates.py").write_text('"""Moved."""\n')
    for path in (package / "study").rglob("*.py"):
        text = path.read_text()
        path.write_text(text.replace("study.made.candidates import", "study.truth_of_words import"))
    assert hashes(package, " ".join(PANEL)) == before


def test_every_artefact_of_every_profile_has_code(tmp_path: Path) -> None:
    for name in profile_names():
        profile = load_profile(name)
        study, how = opened(profile, tmp_path), validating(profile.evaluation)
        for run in profile.every_run:
            assert len(defended(study, run, 0).hash) == 64
        for row, seed in all_rows(profile).main[:3]:
            own = evaluated(study, row, seed, how)
            assert own.spec.code != own.inputs["tables"].spec.code


def opened(profile: Profile, folder: Path) -> Study:
    """A study of which nothing is made; the data are named and not read."""
    if profile.dataset.name == "scenes":
        return Study(profile, folder)
    nothing = SimpleNamespace(identity=dict)
    return Study(profile, folder, source=cast(Any, nothing))


@pytest.mark.parametrize("data", ["smoke", "flickr30k"])
def test_every_technique_has_code(data: str, tmp_path: Path) -> None:
    found = {}
    profile = load_profile(data)
    study = opened(profile, tmp_path)
    for name, technique in TECHNIQUES.items():
        if not technique.fits(profile.dataset.data) or name in ("none", "dialled"):
            continue
        run = Run(defence="mat+", augmentation=name)
        own = generated(study, run, 0) or defended(study, run, 0)
        found[name] = own.spec.code
    assert len({*found.values()}) == len(found) > 10, "each technique's code is its own"


def test_a_technique_without_code_is_refused(package: Path) -> None:
    edit(package, "augmentations/table.py", 'Technique("augmix",', 'Technique("mixed",')
    with pytest.raises(ValueError, match="augmix: in no table of choices"):
        Code(package).hash(*PANEL["augmix"])
