"""A real browser reads the report and the documentation, on a wide screen and on a telephone.

Headless Chromium from the distribution's packages; skipped where there is none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from matlib.study.publish.report import Figure, FrontPage, build_report, read_claims
from matlib.study.publish.shown import FIGURES

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "published" / "demo"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (1300, 390)
NOTEBOOK = "20_defences"
"""It has every kind of output: tables, wide and long, pictures, and printed lines."""

PAGES = ("report/index.html", f"report/{NOTEBOOK}.html", "docs/index.html", "docs/results.html",
         "docs/api/attacks.html")  # fmt: skip

LOOK = """<!doctype html><meta charset="utf-8"><body><script>
const pages = PAGES, widths = WIDTHS, found = [];
const opened = (page, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => done(frame);
  frame.src = page;
  document.body.append(frame);
});
(async () => {
  const links = new Set();
  for (const page of pages) for (const width of widths) {
    const frame = await opened(page, width), seen = frame.contentDocument;
    for (const picture of seen.images) picture.loading = "eager";
    const late = [...seen.images].filter(picture => !picture.complete);
    const all = late.map(each => new Promise(done => { each.onload = each.onerror = done; }));
    await Promise.race([Promise.all(all), new Promise(done => setTimeout(done, 10000))]);
    found.push({page, width, reach: seen.documentElement.scrollWidth,
      room: seen.documentElement.clientWidth,
      missing: [...seen.images].filter(each => !each.naturalWidth).map(each => each.src),
      silent: [...seen.images].filter(each => !each.alt).length, pictures: seen.images.length});
    for (const link of seen.links) if (link.origin === location.origin) links.add(link.href);
    frame.remove();
  }
  const dead = [], known = new Map();
  for (const link of links) {
    const [file, place] = link.split("#");
    if (!known.has(file)) known.set(file, fetch(file).then(async answer => answer.ok &&
      new DOMParser().parseFromString(await answer.text(), "text/html")));
    const page = await known.get(file);
    if (!page || (place && !page.getElementById(decodeURIComponent(place)))) dead.push(link);
  }
  return {found, dead, n: links.size};
})().catch(error => ({error: `${error}`})).then(
  told => fetch("/told", {method: "POST", body: JSON.stringify(told)}));
</script>"""
"""A page that opens others in frames of the given widths and tells the server what it saw."""


class Site(SimpleHTTPRequestHandler):
    """Pages, without a line for each request; what the browser tells is kept."""

    told: Queue[dict[str, Any]] = Queue()

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        """The page has seen all."""
        self.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server of the report, made of the committed notebooks, and of the documentation."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: `apt-get install chromium` brings it")
    root = tmp_path_factory.mktemp("site")
    front = FrontPage(
        title="demo", question="How much is left?", profile="demo",
        claims=read_claims(DEMO / "claims.json"),
        figures=[Figure(DEMO / f"{name}.png", words) for name, words in FIGURES.items()],
        published={"demo-full": read_claims(ROOT / "published" / "demo-full" / "claims.json")},
    )  # fmt: skip
    build_report(root, front, [ROOT / "notebooks" / f"{NOTEBOOK}.ipynb"])
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", root / "docs"],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True,
    )  # fmt: skip
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", root
    server.shutdown()
    server.server_close()


def seen(place: str, root: Path) -> dict[str, Any]:
    """What the browser saw of the pages below `root`."""
    look = LOOK.replace("PAGES", json.dumps(PAGES)).replace("WIDTHS", json.dumps(WIDTHS))
    (root / "look.html").write_text(look, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
               f"--user-data-dir={root / 'browser'}", "--window-size=1400,1000"]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(CHROMIUM), *options, f"{place}/look.html"], **quiet) as browser:
        try:
            return Site.told.get(timeout=300)
        finally:
            browser.terminate()


@pytest.mark.full
def test_pages_fit_screens_show_their_pictures_and_lead_somewhere(site: tuple[str, Path]) -> None:
    found = seen(*site)
    assert "error" not in found, found
    assert len(found["found"]) == len(PAGES) * len(WIDTHS)
    assert [each for each in found["found"] if each["reach"] > each["room"]] == []
    assert [each for each in found["found"] if each["missing"] or each["silent"]] == []
    assert sum(each["pictures"] for each in found["found"]) >= 2 * len(WIDTHS) * 5
    assert found["dead"] == [] and found["n"] >= 50
