from __future__ import annotations

from pathlib import Path

import pytest

from matlib.data.caption_files import read_caption_file
from matlib.data.strict import UnreadableError

WANTED = {"a.jpg": ['A dog, "Rex", runs .', "Two men ."], "b.jpg": ["A cat; a mat ."]}

FLICKR30K = """image_name| comment_number| comment
a.jpg| 1| Two men .
a.jpg| 0| A dog, "Rex", runs .
b.jpg| 0   A cat; a mat .
"""
FLICKR8K = """image,caption
a.jpg,"A dog, ""Rex"", runs ."
b.jpg,A cat; a mat .
a.jpg,Two men .
"""
TOKEN = """a.jpg#1\tTwo men .
a.jpg#0\tA dog, "Rex", runs .

b.jpg#0\tA cat; a mat .
"""
SEMICOLON = """File;Caption
a.jpg;"A dog, ""Rex"", runs ."
a.jpg;Two men .
b.jpg;"A cat; a mat ."
"""
TABBED = "filename\tcaption\tsplit\n" + "".join(
    f"{name}\t{text}\ttest\n"
    for name, text in (("a.jpg", '"A dog, ""Rex"", runs ."'), ("a.jpg", "Two men ."))
)


@pytest.mark.parametrize("content", [FLICKR30K, FLICKR8K, TOKEN, SEMICOLON])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_published_kinds_hold_the_same_captions(tmp_path: Path, content: str, ends: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes(("\ufeff" + content).replace("\n", ends).encode())
    assert read_caption_file(path) == WANTED


def test_further_columns_are_left_out_and_json_is_returned_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text(TABBED, encoding="utf-8")
    assert read_caption_file(path) == {"a.jpg": WANTED["a.jpg"]}
    path.write_text('{"a.jpg": ["x"]}', encoding="utf-8")
    assert read_caption_file(path) == {"a.jpg": ["x"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("image,caption\n", "no captions below the first line"),
        ("a.jpg,a dog\n", r"names one column out of image, .*got 'a\.jpg, a dog'"),
        ("image,caption\na.jpg,a dog, running\n", r"line 2: expected 2 columns .* got 3.*quotes"),
        ("image,caption\na.jpg\n", "line 2: expected 2 columns"),
        ('image,caption\na.jpg,"a dog\n', "no table"),
        ("image,comment_number,comment\na.jpg,x,a dog\n", "line 2: expected a number; got 'x'"),
        (
            "image,comment_number,comment\na.jpg,0,a\n\na.jpg,0,b\n",
            r"lines 2 and 4 are both caption 0 of a\.jpg",
        ),
        ("a.jpg#0\ta dog\nb.jpg a cat\n", "line 2: expected image#number"),
        ("image,file,caption\na,b,c\n", "names one column"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "captions.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UnreadableError, match=rf"captions\.csv.*{message}"):
        read_caption_file(path)
