"""The report: what it collects from run folders, the page it writes, and the page in a browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.browser import ABSENT, CHROMIUM, DRIVER, Browser, open_browser
from support.report_run import HOSTILE, judged, training_episode, write_lines, write_run
from toolhone.errors import RunError
from toolhone.evaluation.folder import write_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.statistics import interval
from toolhone.reports.html import encode_data, render_report, write_report
from toolhone.reports.live import LiveReport
from toolhone.reports.report_data import report_data


def names(data: dict[str, Any]) -> list[str]:
    return [each["name"].removeprefix("run") for each in data["sets"]]


def test_a_report_shows_every_kept_episode_of_a_run(tmp_path: Path) -> None:
    data = report_data([write_run(tmp_path / "run")])
    expected = ["/evaluation/base", "/evaluation/tuned"]
    expected += [": validation at 25", ": validation at 50", ": training episodes"]
    assert names(data) == expected
    assert len(data["episodes"]) == 40 + 40 + 4 + 4 + 2
    assert data["runs"][0]["cost"] == [["time", "0 min 50 s"]]


def test_before_and_after_are_the_base_and_the_tuned_evaluation(tmp_path: Path) -> None:
    data = report_data([write_run(tmp_path / "run")])
    comparison, within = data["comparisons"]
    before, after = (names(data)[comparison[side]] for side in ("base", "tuned"))
    assert (before, after) == ("/evaluation/base", "/evaluation/tuned")
    assert [(each["name"], each["n"]) for each in comparison["categories"]] == [
        ("even", 20),
        ("odd", 20),
    ]
    assert comparison["totals"][1]["tuned"]["value"] == 0.75
    validations = (names(data)[within[side]] for side in ("base", "tuned"))
    assert list(validations) == [": validation at 25", ": validation at 50"]


def test_an_evaluation_elsewhere_is_the_base_of_every_run(tmp_path: Path) -> None:
    samples = Evaluation(tuple(judged(n, right=False) for n in range(40)))
    base = write_folder(samples, tmp_path / "elsewhere")
    data = report_data([write_run(tmp_path / "run")], base=base)
    compared = [each for each in data["comparisons"] if each["base"] == 0]
    assert data["sets"][0]["name"] == "elsewhere"
    assert len(compared) == 2


def test_held_out_scores_have_the_interval_of_their_samples(tmp_path: Path) -> None:
    curve = report_data([write_run(tmp_path / "run")])["runs"][0]["curves"]["exact_match"]
    scores = interval([0.0, 0.0, 1.0, 1.0])
    assert curve["validation"][1] == [50, 0.5, scores.low, scores.high, 4]


def test_expected_and_chosen_tools_are_paired_with_the_wrong_arguments(tmp_path: Path) -> None:
    data = report_data([write_run(tmp_path / "run")])
    base = {one["id"]: one for one in data["episodes"] if one["set"] == 0}
    assert base["task-0"]["chosen"] == [["search", "search"]]
    assert base["task-2"]["chosen"] == [["search", "weather"]]
    assert base["task-2"]["pairs"] == [[0, None, []], [None, 0, []]]
    assert base["task-1"]["pairs"] == [[0, 0, ["query"]]]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "samples.jsonl").open("a") as file:
        file.write('{"step": 3}\n[]\n{"torn')
    data = report_data([run], max_episodes=10)
    assert len(data["episodes"]) == 10
    assert data["notes"] == [
        f"{run}/samples.jsonl: 3 lines cannot be read and are left out",
        "80 of 90 episodes are left out (--episodes)",
    ]


@pytest.mark.parametrize("name", ["", "nowhere", "empty"])
def test_a_folder_without_anything_to_show_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "experiment.json").write_text("{}")
    sentence = "nothing to show" if name == "empty" else "no such folder|neither a run nor"
    with pytest.raises(RunError, match=sentence):
        report_data([tmp_path / name if name else tmp_path])


def test_the_data_cannot_end_their_block_and_come_back_as_they_were() -> None:
    data = {HOSTILE: [HOSTILE, "@script@", "\u2028", "<!--", "&lt;", 0.5, None]}
    text = encode_data(data)
    assert not set("<>&") & set(text)
    assert json.loads(text) == data
    page = render_report({"episodes": [], **data})
    assert len(re.findall("<script", page)) == 2
    assert json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])[HOSTILE] == data[HOSTILE]


def test_the_policy_of_the_page_allows_its_own_script_alone(tmp_path: Path) -> None:
    page = render_report(report_data([write_run(tmp_path / "run")]))
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"""(?:src|href)=|@import|url\(""", page.split('id="data"')[0])


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveReport]:
    with LiveReport([write_run(tmp_path / "run")], port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_watched_run_is_read_again_when_its_files_change(live: LiveReport) -> None:
    first = httpx.get(f"{live.url}data.json")
    assert first.json()["live"] is True
    tag = {"If-None-Match": first.headers["ETag"]}
    assert httpx.get(f"{live.url}data.json", headers=tag).status_code == 304
    with (live.folders[0] / "samples.jsonl").open("a") as file:
        file.write(json.dumps(training_episode(30)) + "\n")
    second = httpx.get(f"{live.url}data.json", headers=tag)
    assert len(second.json()["episodes"]) == len(first.json()["episodes"]) + 1


def test_a_live_report_answers_its_own_addresses_alone(live: LiveReport) -> None:
    assert httpx.get(live.url).headers["Content-Type"] == "text/html; charset=utf-8"
    assert httpx.get(live.url, headers={"Host": "example.com"}).status_code == 403
    assert httpx.get(f"{live.url}../../etc/passwd").status_code == 404
    assert live.server_address[0] == "127.0.0.1"


# ------------------------------------------------------------------------------------------------
# in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(ABSENT)
    with open_browser() as found:
        yield found


def choose(browser: Browser, name: str, value: object) -> None:
    browser.run(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change'))",
        name,
        str(value),
    )


def text_of(browser: Browser, name: str) -> str:
    return str(browser.run("return document.getElementById(arguments[0]).innerText", name))


def rows_in_sight(browser: Browser) -> int:
    return int(browser.run("return document.querySelectorAll('#rows .row').length"))


@pytest.mark.slow
def test_a_reader_filters_reads_compares_and_turns_off_the_light(
    browser: Browser, tmp_path: Path
) -> None:
    page = write_report(report_data([write_run(tmp_path / "run", 4000)]), tmp_path / "report.html")
    browser.open(page.as_uri())
    assert "Before and after" in text_of(browser, "overview")
    assert browser.run("return document.querySelectorAll('#overview svg').length") > 6
    browser.keys("2")
    assert text_of(browser, "count") == "5,000 of 5,000"
    assert 0 < rows_in_sight(browser) < 60
    browser.run("document.getElementById('list').scrollTop = 1e9")
    browser.wait("return document.querySelector('#rows .row:last-child').style.top === '259948px'")
    assert rows_in_sight(browser) < 60
    browser.keys("/question 37\ue00c")  # Esc
    shown = int(text_of(browser, "count").split()[0].replace(",", ""))
    assert 0 < shown < 300
    browser.keys("x")
    choose(browser, "filter-set", 1)
    choose(browser, "filter-category", "odd")
    choose(browser, "filter-verdict", "right")
    choose(browser, "beside", 0)
    choose(browser, "filter-verdict", "gained")
    browser.keys("jj")
    assert browser.run("return document.querySelectorAll('#detail article').length") == 2
    left, right = browser.run(
        "return [...document.querySelectorAll('#detail article')].map(one => one.innerText)"
    )
    assert "evaluation/base" in left.lower()
    assert "✗" in left
    assert "evaluation/tuned" in right.lower()
    assert "✗" not in right
    assert text_of(browser, "detail").count("found") == 2  # the tool's results
    before = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.keys("t")
    assert browser.run("return document.documentElement.dataset.theme") in ("dark", "light")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != before
    assert not browser.logs("browser")


@pytest.mark.slow
def test_tokens_are_coloured_by_provenance_mask_and_advantage(
    browser: Browser, tmp_path: Path
) -> None:
    page = write_report(report_data([write_run(tmp_path / "run")]), tmp_path / "report.html")
    browser.open(page.as_uri())
    browser.keys("2")
    choose(browser, "filter-set", 4)
    tokens = "return [...document.querySelectorAll('.tokens span')]"
    texts = [["Q", "prompt"], [": ", "prompt"], ["H", "sampled"], ["i", "sampled"]]
    assert browser.run(f"{tokens}.map(e => [e.textContent, e.classList[0]])") == texts
    colour = f"{tokens}.map(e => getComputedStyle(e).backgroundColor)"
    seen = []
    for mode in ("provenance", "mask", "advantage"):
        assert browser.run("return document.querySelector('.tokens').className").endswith(mode)
        colours = browser.run(colour)
        assert colours[0] == colours[1] != colours[2] == colours[3]
        seen.append(colours[2])
        browser.keys("m")
    assert len(set(seen)) == 3
    title = browser.run(f"{tokens}[3].title")
    assert title == "token 4, sampled, trained, advantage -0.500"
    assert "form" in text_of(browser, "detail")


@pytest.mark.slow
def test_hostile_text_does_not_run_and_nothing_is_fetched(browser: Browser, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 20, HOSTILE)
    hostile = json.loads(json.dumps(training_episode(40)).replace("search", "s<b onx='1'>"))
    parts = {HOSTILE: 1.0, "__proto__": 2.0}
    hostile |= {"id": HOSTILE, "category": HOSTILE, "query": HOSTILE, "parts": parts}
    write_lines(run / "samples.jsonl", [hostile, training_episode(50, HOSTILE)])
    browser.logs("performance")
    page = write_report(report_data([run]), tmp_path / "report.html")
    browser.open(page.as_uri())
    browser.keys("2")
    for place in range(4):
        choose(browser, "filter-set", place % 3)
        browser.keys("jjsm")
    assert browser.run("return window.hacked ?? null") is None
    assert browser.run("return document.querySelectorAll('img, b, script').length") == 2
    events = [json.loads(entry["message"])["message"] for entry in browser.logs("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert set(urls) <= {page.as_uri()}


@pytest.mark.slow
def test_a_phone_shows_the_list_and_then_the_episode(browser: Browser, tmp_path: Path) -> None:
    page = write_report(report_data([write_run(tmp_path / "run")]), tmp_path / "report.html")
    browser.resize(390, 844)
    browser.open(page.as_uri())
    seen = "return ['list', 'detail'].map(id => document.getElementById(id).offsetWidth > 0)"
    browser.keys("2")
    assert browser.run(seen) == [True, False]
    browser.run("document.querySelector('#rows .row').click()")
    assert browser.run(seen) == [False, True]
    browser.run("document.getElementById('back').click()")
    assert browser.run(seen) == [True, False]
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    browser.resize(1280, 900)


@pytest.mark.slow
def test_a_page_that_watches_a_run_follows_it(browser: Browser, live: LiveReport) -> None:
    browser.open(live.url)
    browser.wait("return document.getElementById('live').textContent === 'live'")
    assert text_of(browser, "total") == "90"
    with (live.folders[0] / "samples.jsonl").open("a") as file:
        file.write(json.dumps(training_episode(30)) + "\n")
    browser.wait("return document.getElementById('total').textContent === '91'")
