"""The report: its files, that it needs no network, that nothing in a study can break out of it, and how it behaves."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from backbones.errors import SecateurError
from search.review.candidate import Candidate
from search.review.charts import stages_chart
from search.review.figures import Figure, write_plots
from search.review.front import Front, load_fronts
from search.review.report import Facts, Report
from search.review.report_files import plot_fronts, write_report
from search.review.trial_table import columns, details, trial_rows
from tests.search.review.browser import Browser, Page, chromium
from tests.search.review.report_samples import HOSTILE, sample_front

TOP = {"report.html", "report.json", "front.png", "front.svg", "front.csv", "front.json", "plots", "tables"}
FIGURES = [
    "front-accuracy", "front-score", "widths", "history", "parameters", "importances", "curves", "gammas", "stages",
]  # fmt: skip


def full_report() -> Report:
    front = sample_front(caps=(1_536_000,), baselines=True)
    retrained = [one for one in front.candidates if one.accuracy]
    rows = [{"number": n, "loss": 2 / n, "validation_accuracy": 1 - 1 / (n + 1), "seconds": 1.0} for n in range(1, 6)]
    facts = Facts(
        histories={one.id: rows for one in retrained},
        gammas={"before": {"bn": torch.tensor([1.0, -0.5])}, "after": {"bn": torch.tensor([0.0, 0.9])}},
        stages={"search": 75.0, "retrain": 34.5},
        importances={"t_norm": 0.7, "t_dist": 0.3},
        commands=("secateur run studies/digits.toml", "secateur resume runs/digits"),
        versions={"torch": "2.13.0"},
        environment={"machine": "2 cores"},
        links={"best network": "best.safetensors"},
    )
    return Report((front,), facts={front.name: facts})


def hostile_report() -> Report:
    """Every text that a study file, a model or a folder name can bring in is an attack."""
    front = sample_front(HOSTILE, trials=40, groups={HOSTILE: 16, "b": 8})
    bad = Candidate(
        40, front.dense.structure, {HOSTILE: 1.0}, front.dense.cost, 0.1, artefact=Path(HOSTILE), label=HOSTILE
    )
    reason = Candidate(41, None, {}, front.dense.cost, reason=HOSTILE)
    front = Front(HOSTILE, front.dense, (*front.candidates, bad, reason), HOSTILE, (), (Candidate(-1, label=HOSTILE),))
    text = {HOSTILE: HOSTILE}
    facts = Facts(
        {HOSTILE: [{"epoch": 1, HOSTILE: 1.0}]}, {HOSTILE: {HOSTILE: torch.ones(3)}}, {HOSTILE: 1.0}, {HOSTILE: 0.5},
        (HOSTILE,), text, text, {HOSTILE: HOSTILE, "click": "javascript:alert(1)"},
    )  # fmt: skip
    return Report((front,), HOSTILE, {HOSTILE: facts})


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(full_report(), tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(hostile_report(), tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def full(full_page: Path) -> str:
    return full_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(hostile_page: Path) -> str:
    return hostile_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


class Tags(HTMLParser):
    """Collects the elements of a page, their attributes, and the text that is shown."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] not in ("script", "style"):
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def embedded(page: str) -> dict[str, object]:
    match = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)
    assert match
    data = json.loads(match.group(1))
    assert isinstance(data, dict)
    return data


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_writes_every_file_and_nothing_else(full_page: Path) -> None:
    report, folder = full_report(), full_page.parent
    assert {path.name for path in folder.iterdir()} == TOP
    assert load_fronts(folder)[0].points() == tuple(
        Candidate(**{**vars(one), "artefact": one.artefact and one.artefact.resolve()})
        for one in report.fronts[0].points()
    )
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "front.svg").read_text().startswith("<svg")


def test_every_view_of_every_figure_is_a_picture(full_page: Path) -> None:
    folder = full_page.parent
    listed = json.loads((folder / "plots/plots.json").read_text())
    names = [one["name"] for one in listed]
    for figure in FIGURES:
        assert [name for name in names if name.startswith(figure)], figure
    assert {"front-score-macs", "front-score-parameters", "front-accuracy-measured-latency", "gammas-cumulative"} < {
        *names
    }
    written = {path.name for path in (folder / "plots").iterdir()} - {"plots.json"}
    assert written == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    for one in listed:
        assert (folder / one["png"]).read_bytes().startswith(b"\x89PNG")
        picture = ElementTree.parse(folder / one["svg"]).getroot()
        assert picture.tag.endswith("svg")
        assert [path for path in picture.iter() if path.get("role") == "graphics-symbol"], one["name"]


def test_names_of_pictures_are_harmless_and_old_ones_go(tmp_path: Path) -> None:
    own = tmp_path / "plots/mine.png"
    own.parent.mkdir()
    own.touch()
    figure = Figure("widths", "", "", {name: stages_chart({"a": 1.0}) for name in ("../a/b", "..\\A b", "é")})
    names = [one["name"] for one in write_plots([figure], [], tmp_path)]
    assert names == ["widths-a-b", "widths-a-b-2", "widths"]
    write_plots([Figure("widths", "", "", {"": stages_chart({"a": 1.0})})], [], tmp_path)
    assert {path.name for path in own.parent.iterdir()} == {"mine.png", "plots.json", "widths.png", "widths.svg"}


def test_tables_hold_what_the_figures_show(full_page: Path) -> None:
    folder = full_page.parent
    record = json.loads((folder / "report.json").read_text())
    assert record["studies"] == ["digits"]
    assert record["importances"][0] == {"study": "digits", "parameter": "t_norm", "share": 0.7}
    for name in ("compared", "curves", "importances", "stages", "gammas", "environment"):
        with (folder / f"tables/{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows == [
            {key: "" if row.get(key) is None else str(row[key]) for key in rows[0]} for row in record[name]
        ], name
    networks = [row["network"] for row in record["compared"]]
    assert networks[:3] == ["dense", "uniform", "global"]
    assert len(networks) == 1 + 2 + 3
    assert [row["value"] for row in record["environment"]][:2] == [
        "secateur run studies/digits.toml", "secateur resume runs/digits",
    ]  # fmt: skip
    assert len(record["curves"]) == 3 * 5
    assert len(record["gammas"]) == 4


def test_a_failing_report_leaves_the_old_one(full_page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(full_page.parent, tmp_path, dirs_exist_ok=True)
    before = everything(tmp_path)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(Report((sample_front(trials=5),)), tmp_path)
    assert everything(tmp_path) == before


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="nowhere': the folder does not exist"):
        write_report(full_report(), tmp_path / "nowhere")
    with pytest.raises(SecateurError, match="at least one front"):
        write_report(Report(()), tmp_path)
    with pytest.raises(SecateurError, match="different names, but got 'digits', 'digits'"):
        write_report(Report((sample_front(), sample_front(seed=1))), tmp_path)


def test_shows_the_command_the_versions_and_the_numbers(full: str) -> None:
    text = Tags(full).text
    for words in (
        "secateur run studies/digits.toml",
        "secateur resume runs/digits",
        "2.13.0",
        "2 cores",
        "1 min 50 s in all",
        "97.20%",
        "5.12M MACs",
    ):
        assert words in text
    links = {a.get("href") for a in Tags(full).named("a")}
    assert links >= {"best.safetensors", "front.csv", "front.json", "report.json", "tables/curves.csv", "front.svg"}
    assert links >= {"plots/front-score-macs.png", "plots/front-score-macs.svg"}
    assert any(str(link).endswith("small.safetensors") for link in links)


def test_leaves_out_what_there_is_nothing_to_say_about(tmp_path: Path) -> None:
    page = write_report(Report((sample_front(trials=20, retrained=0),)), tmp_path).read_text(encoding="utf-8")
    sections = {one.get("id") for one in Tags(page).named("section")}
    assert sections == {"front-score", "points", "widths", "history", "parameters", "trials", "making"}


def test_a_study_without_any_trial_still_has_a_report(tmp_path: Path) -> None:
    page = write_report(Report((Front("empty", Candidate(-1, label="dense"), ()),)), tmp_path).read_text(
        encoding="utf-8"
    )
    assert "empty" in Tags(page).text


def test_nothing_is_loaded_from_anywhere(full: str, hostile: str) -> None:
    for page in (full, hostile):
        tags = Tags(page)
        (policy,) = [meta for meta in tags.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
        assert str(policy["content"]).startswith("default-src 'none';")
        assert not [tag for tag, attributes in tags.found if "src" in attributes]
        assert {link["href"] for link in tags.named("link")} == {"data:,"}
        styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
        assert not [style for style in styles if "url(" in style or "@import" in style]


def test_hostile_text_stays_text(hostile: str) -> None:
    tags = Tags(hostile)
    assert len(tags.named("script")) == 3
    assert tags.named("img") == []
    assert HOSTILE not in hostile
    assert HOSTILE in tags.text
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert all(":" not in str(a["href"]) for a in tags.named("a"))
    assert HOSTILE in json.dumps(embedded(hostile), ensure_ascii=False).replace('\\"', '"')


def test_details_that_do_not_fit_are_left_out_the_front_last() -> None:
    front = sample_front(trials=100)
    whole, some = details((front,), 10**9), details((front,), 1000)
    assert None not in whole["of"]
    kept = {i for i, record in enumerate(some["of"]) if record is not None}
    first = {one.number for one in front.candidates if one.accuracy is not None} | {100}  # and the dense network
    assert first < kept
    rest = sorted((one.score or 0.0, one.number) for one in front.candidates if one.number not in first)
    assert kept - first == {number for _, number in rest[-len(kept - first) :]}
    best = max(front.candidates, key=lambda one: one.score or 0.0)
    proposed, widths, removed = whole["of"][best.number]
    assert proposed == [float(f"{value:.3g}") for value in best.parameters.values()]
    assert widths == list(best.structure.widths.values()) if best.structure else False
    assert removed == []


def test_columns_give_every_row_back() -> None:
    rows = trial_rows((sample_front(trials=50), sample_front("other", trials=20)), ["t_norm"])
    for column in columns(rows):
        values = [row[column["name"]] for row in rows]
        back = (
            [column["same"]] * len(rows)
            if "same" in column
            else [column["words"][i] for i in column["at"]]
            if "words" in column
            else column["values"]
        )
        assert back == [pytest.approx(value, rel=1e-5) if isinstance(value, float) else value for value in values]


# Where the points of a figure are on the screen, in CSS pixels: Vega knows it also when it draws on a canvas.
POINTS = """
  document.querySelector("#NAME").scrollIntoView();
  const marks = [];
  const walk = (item, x, y) => {
    if (item.marktype === "symbol" && item.role !== "legend-symbol")
      for (const one of item.items)
        if (one.datum && "i" in one.datum) marks.push([x + one.x, y + one.y, one.datum.name]);
    const [right, down] = item.marktype === undefined ? [item.x || 0, item.y || 0] : [0, 0];
    for (const one of item.items || []) walk(one, x + right, y + down);
  };
  const view = secateur.views.get("NAME");
  const [left, top] = view.origin();
  walk(view.scenegraph().root, left + view.padding().left, top + view.padding().top);
  const box = document.querySelector("#NAME .chart .marks").getBoundingClientRect();
  return marks.map(([x, y, name]) => [box.x + x, box.y + y, name]);
"""
TIP = "return document.querySelector('#vg-tooltip-element.visible')?.textContent ?? '';"
STATE = """
  await secateur.drawRest();
  return {
    figures: [...secateur.views.keys()],
    page: getComputedStyle(document.body).backgroundColor,
    chart: document.querySelector("#history svg").style.backgroundColor,
    wide: document.documentElement.scrollWidth, inner: innerWidth,
    scripts: document.querySelectorAll("img, iframe, object, script[src]").length,
    title: document.title, text: document.body.textContent,
  };
"""


def points_of(page: Page, name: str) -> list[tuple[float, float, str]]:
    page.wait("!secateur.pending")
    found = page.ask(POINTS.replace("NAME", name))
    page.ask("await new Promise((done) => setTimeout(done, 100)); return 0;")
    return [(x, y, name) for x, y, name in found]


def hovered(page: Page, x: float, y: float) -> str:
    page.hover(1, 1)
    page.hover(x, y)
    page.wait("document.querySelector('#vg-tooltip-element.visible')", seconds=10)
    return str(page.ask(TIP))


def search_for(page: Page, words: str) -> int:
    return int(
        page.ask(
            f"""const box = document.querySelector("#trials input");
            box.value = {json.dumps(words)};
            box.dispatchEvent(new Event("input"));
            return document.querySelectorAll("#trials tbody tr").length;"""
        )
    )


@pytest.mark.parametrize("dark", [False, True])
def test_page_in_a_browser(browser: Browser, full_page: Path, dark: bool) -> None:
    with browser.page(full_page, dark=dark) as page:
        seen = page.ask(STATE)
        assert sorted(seen["figures"]) == sorted(FIGURES)
        assert seen["page"] == ("rgb(18, 21, 27)" if dark else "rgb(244, 245, 247)")
        assert seen["chart"] == ("rgb(27, 31, 39)" if dark else "rgb(255, 255, 255)")
        assert search_for(page, "trial 19") == 11  # trials 19 and 190 to 199
        page.prefer(dark=not dark)
        page.wait(
            "!secateur.pending && document.querySelector('#history svg').style.backgroundColor === "
            f"'rgb({'255, 255, 255' if dark else '27, 31, 39'})'"
        )
    assert page.problems == []
    assert page.requests == [full_page.as_uri()]


def test_every_trial_is_a_point_and_the_mouse_shows_its_details(browser: Browser, full_page: Path) -> None:
    front = full_report().fronts[0]
    with browser.page(full_page) as page:
        points = points_of(page, "front-score")
        # 200 trials, the dense network, two baselines, and rings around the three retrained.
        assert len(points) == 200 + 1 + 2 + 3
        best = front.best(measure="score")
        x, y, _ = next(point for point in points if point[2] == best.name)
        tip = hovered(page, x, y)
        assert f"candidate{best.name}place" in tip
        assert f"{best.score:.5g}" in tip
        assert best.id in tip
        x, y, _ = next(point for point in points if point[2] == "uniform")
        assert "candidateuniformplacebaseline" in hovered(page, x, y)
        infeasible = next(one for one in front.candidates if one.reason)
        x, y, _ = next(point for point in points if point[2] == infeasible.name)
        assert "infeasiblecannot reach" in hovered(page, x, y)
    assert page.problems == []


def test_the_cost_axis_switches(browser: Browser, full_page: Path) -> None:
    with browser.page(full_page) as page:
        for label, title in (("parameters", "parameters"), ("measured latency", "ms a batch")):
            page.ask(f"""document.querySelector('#front-accuracy [data-view="{label}"]').click();""")
            page.wait("!secateur.pending")
            assert title in page.ask("return document.querySelector('#front-accuracy .chart').textContent;")
            assert len(points_of(page, "front-accuracy")) == 3 + 1
    assert page.problems == []


def test_a_click_shows_what_a_trial_proposed_and_keeps(browser: Browser, full_page: Path) -> None:
    front = full_report().fronts[0]
    with browser.page(full_page) as page:
        page.ask("await secateur.drawRest();")
        one = front.candidates[7]
        x, y, _ = next(point for point in points_of(page, "front-score") if point[2] == one.name)
        page.click(x, y)
        page.wait("secateur.shown === 7 && !secateur.pending")
        shown = page.ask("return document.querySelector('#widths dl').textContent;")
        assert shown == "".join(f"{name}{float(f'{value:.3g}')}" for name, value in one.parameters.items())
        bars = page.ask("return [...document.querySelectorAll('#widths path')].map((bar) => bar.ariaLabel ?? '');")
        assert one.structure
        for name, kept in one.structure.widths.items():
            assert [bar for bar in bars if f"group: {name}" in bar and f"channels kept: {kept}" in bar]
        page.ask("document.querySelector('#trials tbody tr:nth-child(3) button').click();")
        page.wait("secateur.shown === 2 && !secateur.pending")
        widest = "return Math.max(...[...document.querySelectorAll('.marks')].map((one) => one.clientWidth));"
        assert page.ask(widest) > 250
    assert page.problems == []


def test_page_on_a_phone(browser: Browser, full_page: Path) -> None:
    with browser.page(full_page, width=375, height=800) as page:
        seen = page.ask(STATE)
        assert seen["inner"] == 375
        assert seen["wide"] <= 375
        assert (
            page.ask("return Math.max(...[...document.querySelectorAll('.marks')].map((one) => one.clientWidth));")
            > 250
        )
    assert page.problems == []


def test_the_table_of_a_notebook_on_a_dark_and_narrow_page(browser: Browser, tmp_path: Path) -> None:
    table = sample_front(caps=(1_536_000,), baselines=True)._repr_html_()
    assert "as cut" not in table  # nothing was refitted
    style = "color: #eee; background: #111; margin: 0"
    script = "<script>window.secateur = {ready: 1}</script>"
    page_file = tmp_path / "notebook.html"
    page_file.write_text(
        f'<!doctype html><meta name="viewport" content="width=device-width"><body style="{style}">{table}{script}'
    )
    with browser.page(page_file, width=375, height=800, dark=True) as page:
        told = "[...document.querySelectorAll('td, th')].map((one) => getComputedStyle(one))"
        assert set(page.ask(f"return {told}.map((one) => one.color);")) == {"rgb(238, 238, 238)"}
        assert set(page.ask(f"return {told}.map((one) => one.backgroundColor);")) == {"rgba(0, 0, 0, 0)"}
        assert page.ask("return document.documentElement.scrollWidth;") <= 375
        heights = page.ask("return [...document.querySelectorAll('tr')].map((one) => one.offsetHeight);")
        assert max(heights) < 40  # a line a row


def test_hostile_page_in_a_browser(browser: Browser, hostile_page: Path) -> None:
    with browser.page(hostile_page, width=375, height=800) as page:
        seen = page.ask(STATE)
        assert seen["title"] == f"{HOSTILE} · secateur"
        assert seen["scripts"] == 0
        assert HOSTILE in seen["text"]
        assert seen["wide"] <= 375
        assert search_for(page, "<script>") > 0
        x, y, _ = next(point for point in points_of(page, "front-score") if point[2] == HOSTILE)
        assert HOSTILE in hovered(page, x, y)
        layers = page.ask("return [...document.querySelectorAll('#widths path')].map((bar) => bar.ariaLabel).join();")
        assert HOSTILE in layers
        assert page.ask("return document.querySelectorAll('img, #vg-tooltip-element script').length;") == 0
    assert page.problems == []
    assert page.requests == [hostile_page.as_uri()]


def test_five_thousand_trials_load_and_answer(
    browser: Browser, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    groups = {f"layer{stage}.{block}.conv1": 16 * stage for stage in (1, 2, 3) for block in range(18)}
    file = tmp_path / "front.html"
    plot_fronts((sample_front(trials=5000, groups=groups),), file)
    assert file.stat().st_size <= 5_000_000
    with browser.page(file) as page:
        record_testsuite_property("milliseconds until a report of 5,000 trials is drawn", round(page.ready))
        points = points_of(page, "front-score")
        assert len(points) >= 5000
        x, y, _ = next(point for point in points if point[2] == "dense")
        assert "candidatedenseplacedense" in hovered(page, x, y)
        assert search_for(page, "trial 4999") == 1
        page.ask("await secateur.drawRest();")
    assert page.problems == []
