"""A WordNet of a dozen senses, in the format of the real one."""

from __future__ import annotations

from pathlib import Path

_LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_SENSES: dict[str, list[tuple[str, list[str], str]]] = {
    "noun": [
        ("animal", ["animal", "beast"], ""),
        ("dog", ["dog", "hound"], "animal"),
        ("puppy", ["puppy", "young_dog"], "dog"),
        ("sea", ["sea", "ocean"], ""),
        ("child", ["child", "kid"], ""),
    ],
    "verb": [("track", ["track", "dog", "trail"], "")],
    "adj": [("big", ["large", "big(p)"], "")],
    "adv": [("fast", ["fast"], "")],
}
_LICENCE = "  1 This is no licence.  \n"


def write_wordnet(folder: Path) -> Path:
    """Index, data and exceptions of a few words; gives the folder."""
    folder.mkdir(parents=True)
    for part, senses in _SENSES.items():
        data, places, index = _LICENCE, dict[str, int](), dict[str, list[int]]()
        for name, words, wider in senses:
            places[name] = len(data)
            pointers = f"001 @ {places[wider]:08d} {_LETTER[part]} 0000" if wider else "000"
            listed = " ".join(f"{word} 0" for word in words)
            data += f"{len(data):08d} 03 {_LETTER[part]} {len(words):02x} {listed} {pointers} | .\n"
            for word in words:
                index.setdefault(word.partition("(")[0], []).append(places[name])
        (folder / f"data.{part}").write_text(data, encoding="utf-8")
        lines = [
            f"{word} {_LETTER[part]} {len(at)} 1 @ {len(at)} 0 {' '.join(f'{n:08d}' for n in at)}\n"
            for word, at in sorted(index.items())
        ]
        (folder / f"index.{part}").write_text(_LICENCE + "".join(lines), encoding="utf-8")
    (folder / "noun.exc").write_text("children child\n", encoding="utf-8")
    return folder
