"""The committed manifests hold together, and a damaged manifest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from matlib.data.manifest import MANIFESTS, ManifestError, load_manifest, manifest_names

GOOD: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "kind": "files",
    "homepage": "https://example.org",
    "licence": "CC0",
    "terms": None,
    "citation": "Nobody (2020)",
    "splits": {"train": {"images": 1, "captions": 5}},
    "files": [{"path": "a.json", "url": "https://example.org/a", "bytes": 3, "sha256": "0" * 64}],
    "retrieved": None,
    "facts_from": "the test",
}


def save(folder: Path, content: Any, name: str = "tiny") -> Path:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_there_is_a_manifest_for_each_data_set_and_every_one_is_valid() -> None:
    assert manifest_names() == ("coco", "flickr30k", "flickr8k", "scenes")
    assert {load_manifest(name).name for name in manifest_names()} == set(manifest_names())


def test_split_sizes_are_those_of_the_karpathy_json() -> None:
    def total(name: str) -> tuple[int, int]:
        sizes = load_manifest(name).splits.values()
        return sum(s.images for s in sizes), sum(s.captions for s in sizes)

    assert total("flickr8k") == (8_000, 40_000)
    assert total("flickr30k") == (31_014, 5 * 31_014)
    assert total("coco") == (123_287, 122_959 * 5 + 324 * 6 + 4 * 7)


def test_generated_data_need_no_files_and_no_terms() -> None:
    scenes = load_manifest("scenes")
    assert (scenes.kind, scenes.files, scenes.terms) == ("generated", (), None)


def test_photographs_with_a_licence_have_terms_and_a_citation() -> None:
    for name in ("coco", "flickr30k", "flickr8k"):
        manifest = load_manifest(name)
        assert manifest.terms and "Flickr Terms of" in manifest.terms and manifest.citation


def test_unknown_name_lists_the_known_ones() -> None:
    for name in ("flickr31k", "../profiles/demo", ""):
        with pytest.raises(ManifestError, match="known are coco, flickr30k, flickr8k, scenes"):
            load_manifest(name)


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def with_file(**changes: Any) -> dict[str, Any]:
    return changed(files=[{**GOOD["files"][0], **changes}])


FOLDER = {"path": "images", "n_files": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(licens="x"), "licens"),
        ({k: v for k, v in GOOD.items() if k != "citation"}, "citation"),
        (changed(name="other"), "'other', expected 'tiny'"),
        (changed(files=[]), "kind `files` needs files"),
        (changed(kind="generated"), "`generated` has none"),
        (with_file(url="ftp://example.org/a"), "https, http or file"),
        (with_file(url=None), "needs `manual` instructions"),
        (with_file(path="/etc/passwd"), "relative path below"),
        (with_file(path="../a"), "relative path below"),
        (with_file(path="C:\\a"), "relative path below"),
        (with_file(sha256="abc"), "sha256"),
        (with_file(sha256=None), "checked by bytes and sha256"),
        (with_file(bytes=None), "checked by bytes and sha256"),
        (with_file(bytes=-1), "bytes"),
        (with_file(extract="zip"), "`provides` belongs to archives"),
        (with_file(provides=[FOLDER]), "`provides` belongs to archives"),
        (with_file(extract="rar", provides=[FOLDER]), "extract"),
        (with_file(extract="zip", provides=[{**FOLDER, "bytes": 5}]), "n_files is for folders"),
        ("{unclosed", "not a valid manifest"),
        ("!!python/object/apply:os.getcwd []", "not a valid manifest"),
        ("just text", "not a valid manifest"),
    ],
)
def test_bad_manifest_is_refused_with_the_reason(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        load_manifest("tiny", save(tmp_path, content))


def test_good_manifest_of_the_same_form_is_accepted(tmp_path: Path) -> None:
    assert load_manifest("tiny", save(tmp_path, GOOD)).files[0].bytes == 3
    assert MANIFESTS.is_dir()
