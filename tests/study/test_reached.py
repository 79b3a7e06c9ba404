"""What the hash of an artefact's code follows, on a small package of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from matlib.study.identity.reached import Code

MAKER = '''"""Docstring."""
from __future__ import annotations

from pkg.models import STEP, Model, scale as scaled  # why
from pkg import tools
from pkg.proxy import proxied
from pkg.choices import Choices


def makes(name):
    return lambda function: function


TABLE = Choices({"add": tools.add, "double": tools.double})


class Study:
    """Holds a model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @makes("made")
    def made(self, how: str, model: Model) -> int:
        """What it does."""
        def make(folder: str) -> int:
            """Inside."""
            return model.step(STEP) + scaled(2) + proxied(folder) + tools.handed()
        return TABLE.choose(how)(make("x"))

    @makes("other")
    def other(self) -> int:
        return self.made("add", self.model) + self.unused.missing

    def figure(self) -> str:
        return "red"
'''
MODELS = """from pkg.tools import wrapped

STEP = 1


def scale(x: int, by: int = 3) -> int:
    return helper(x) * by


def helper(x):
    return x + 1


class Base:
    size: int = 4

    def step(self, n: int) -> int:
        return self.hook(n) + self.size

    def hook(self, n):
        return n

    def report(self):
        return "of no use"


@wrapped
class Model(Base):
    pass


class Fast(Model):
    def hook(self, n):
        return 2 * n
"""
TOOLS = """from functools import partial

RATE = 5


def add(x):
    return x + 1


def double(x):
    return 2 * x


def handed():
    return BY_NAME["one"]()


def wrapped(cls):
    return cls


def one(rate):
    return rate


BY_NAME = {"one": partial(one, RATE)}


def register(function):
    BY_NAME[function.__name__] = function
    return function


@register
def twice(x):
    return x * 4
"""
PROXY = """from operator import methodcaller


class Inner:
    def told(self, name):
        return name

    def by_name(self):
        return 'by name'

    def called(self):
        return 'called'


class Outer:
    def __init__(self, inner: Annotated[Inner, '^[0-9]{0,9}$']) -> None:
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


def proxied(name):
    outer = Outer(Inner())
    return outer.told(name), methodcaller("called")(outer)
"""
ENTERS = "from pkg.tools import BY_NAME\n\nBY_NAME['mine'] = lambda: 3\n"
FILES = {
    "__init__": "", "maker": MAKER, "models": MODELS, "tools": TOOLS,
    "proxy": PROXY, "enters": ENTERS,
    "choices": "class Choices(dict):\n    def choose(self, name):\n        return self[name]\n",
}  # fmt: skip

Edit = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "pkg"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def edit(package: Path, name: str, old: str, new: str) -> None:
    path = package / f"{name}.py"
    text = path.read_text() if path.exists() else ""
    assert text.count(old) == 1 or not text, (name, old)
    path.write_text(text.replace(old, new) if text else new)


def made(package: Path, *chosen: str, maker: str = "made") -> str:
    return Code(package).hash(maker, (*chosen, "add"))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("maker", '"""What it does."""', '"""Otherwise."""'),
        ("maker", '"""Inside."""\n            ', ""),
        ("maker", "  # why", ""),
        ("maker", "STEP) + scaled(2)", "STEP)  +  scaled( 2 )"),
        ("maker", "how: str, model: Model) -> int", "how: 'str', model: Model) -> float"),
        ("models", "x: int, by: int = 3) -> int", "x, by=3)"),
        ("maker", 'return "red"', 'return "blue"'),
        ("models", '"of no use"', '"of use"'),
        ("tools", "return 2 * x", "return 3 * x"),  # an entry that was not chosen
        ("maker", "self.unused.missing", "0"),  # another maker
    ],
)
def test_what_decides_nothing_does_not_count(package: Path, name: str, old: str, new: str) -> None:
    before = made(package)
    edit(package, name, old, new)
    assert made(package) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("maker", "scaled(2)", "scaled(3)"),
        ("maker", "scale as scaled", "helper as scaled"),  # the import says what is meant
        ("models", "STEP = 1", "STEP = 2"),
        ("models", "by: int = 3", "by: int = 4"),
        ("models", "return x + 1", "return x + 2"),
        ("models", "size: int = 4", "size: int = 5"),  # a base's default
        ("models", "size: int = 4", "size: int = 4\n    more: int = 0"),
        ("models", "return n\n", "return n + 1\n"),  # a method of the base, through `self`
        ("models", "@wrapped\nclass", "class"),
        ("tools", "return cls", "return type(cls)"),  # a decorator
        ("tools", "return x + 1", "return x - 1"),  # the chosen entry
        ("tools", "RATE = 5", "RATE = 6"),  # through a table of functions and `partial`
        ("tools", "return rate", "return -rate"),
        ("tools", "from functools import partial", "from mine import partial"),
        ("choices", "return self[name]", "return self.get(name)"),
        ("models", "class Model(Base):\n    pass",
         "class Model(Base):\n    def hook(self, n):\n        return 0"),
        ("models", "def helper(x):", "STEP = 7\n\n\ndef helper(x):"),
        ("tools", 'partial(one, RATE)}', 'partial(one, RATE)}\nBY_NAME["one"] = add'),
        ("tools", 'partial(one, RATE)}', 'partial(one, RATE)}\nBY_NAME.update(one=add)'),
        ("tools", 'BY_NAME["one"]()', '(BY_NAME["one"](), twice(2))'),
        ("tools", "return x * 4", "return x * 5"),  # entered into a table by its decorator
        ("enters", "lambda: 3", "lambda: 4"),  # changes the table of another file
        ("proxy", "return name", "return str(name)"),  # through `__getattr__`
        ("proxy", "return 'by name'", "return 'other'"),  # through `getattr` with a name
        ("proxy", "return 'called'", "return 'otherwise'"),  # through `methodcaller`
    ],
)  # fmt: skip
def test_what_the_maker_reaches_counts(package: Path, name: str, old: str, new: str) -> None:
    before = made(package)
    edit(package, name, old, new)
    assert made(package) != before


def test_an_override_counts_where_its_class_is_met(package: Path) -> None:
    edit(package, "maker", "return TABLE", "model = Fast()\n        return TABLE")
    edit(package, "maker", "import STEP, Model,", "import STEP, Fast, Model,")
    before = made(package)
    edit(package, "models", "return 2 * n", "return 4 * n")
    assert made(package) != before


def test_a_maker_that_others_reach_is_followed_without_what_it_makes(package: Path) -> None:
    before = made(package, maker="other"), made(package)
    edit(package, "maker", "scaled(2)", "scaled(3)")
    assert made(package, maker="other") == before[0], "the hash of what is made is an input"
    edit(package, "tools", "return x + 1", "return x - 1")
    assert made(package, maker="other") != before[0]


def test_two_of_equal_text_are_told_apart_by_what_they_reach(package: Path) -> None:
    more = "\n\ndef other_helper(x):\n    return x + 1\n"
    edit(package, "more", "", "from pkg.models import STEP\n\n\ndef f():\n    return STEP\n")
    edit(package, "most", "", "STEP = 1 + 1\n\n\ndef f():\n    return STEP\n")
    edit(package, "models", "\nSTEP = 1", "from pkg import more, most\n\nSTEP = 1")
    edit(package, "models", "return helper(x) * by", "return more.f() - most.f()")
    before = made(package)
    edit(package, "models", "return more.f() - most.f()", "return most.f() - more.f()")
    assert made(package) != before, more


def test_a_definition_that_moves_keeps_the_hash(package: Path) -> None:
    before = made(package)
    edit(package, "models", "def helper(x):\n    return x + 1\n", "from pkg import moved\n")
    edit(package, "models", "return helper(x) * by", "return moved.helper(x) * by")
    edit(package, "moved", "", "def helper(x):\n    return x + 1\n")
    edit(package, "models", "STEP = 1\n", "from pkg.moved import STEP\n")
    (package / "moved.py").write_text((package / "moved.py").read_text() + "STEP = 1\n")
    edit(package, "maker", "import STEP, Model,", "import Model,")
    edit(
        package,
        "maker",
        "from pkg import tools",
        "from pkg import tools\nfrom pkg.moved import STEP",
    )
    assert made(package) == before


def test_unknown_names_are_refused(package: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing is marked as maker 'nosuch'.*made"):
        Code(package).hash("nosuch")
    with pytest.raises(ValueError, match="triple: in no table of choices"):
        made(package, "triple")


def test_a_table_that_cannot_be_read_is_refused(package: Path) -> None:
    edit(package, "maker", '"double": tools.double}', '"dou" + "ble": tools.double}')
    with pytest.raises(ValueError, match=r"TABLE .* in one piece"):
        made(package)
