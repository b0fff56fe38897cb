"""Trees of searches, kept and shown: what the page has is what the search found."""

import json
import re
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from maxent import experiment
from maxent.charts import command, tree_page
from maxent.charts.tree_page import build_page, embed, prune, write_pages
from maxent.dts_implementation.models.sequence_model import Prior, ToyModel
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from maxent.results import describe_rollout
from maxent.rewards.result import RewardResult
from maxent.trees import Speller, TreeFileError, describe_tree, find_tree, keep_tree, read_tree
from tests.maxent_results import build_results, write_results
from tests.maxent_toys import find_visited

HOSTILE = "</script><script>alert(1)</script><!-- & ' \" \u2028 \U0001f600 __DATA__ __TITLE__"


def reward(answer):
    """Any reward: deterministic, different for different answers."""
    return RewardResult(float(np.sin(sum((at + 1) * (one + 1) for at, one in enumerate(answer.tokens)))), {"odd": 1.0})


def find(method="dts", rollouts=30, model=None, max_tokens=6, **settings):
    model = model or ToyModel(5, seed=1)
    settings = {"lam": 0.3, "prior": Prior(1.0, None, 1.0), "seed": 2, **settings}
    asked = SearchSettings(method=method, num_rollouts=rollouts, max_tokens=max_tokens, **settings)
    return model, search(model, "q", reward, asked)


def show(method="dts", most=10_000, **settings):
    model, result = find(method, **settings)
    tree = json.loads(json.dumps(describe_tree(result, model.decode)))
    return model, result, prune(tree, [describe_rollout(one) for one in result.rollouts], most)


def way_to(shown, node):
    way = []
    while node > 0:
        way.append(node)
        node = shown["parent"][node]
    return way[::-1]


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and the text of the data and of the title."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


# ------------------------------------------------------------------------------------------------------------- as files


@pytest.mark.parametrize("method", METHODS)
def test_a_kept_tree_is_the_search_s(method, tmp_path):
    model, result = find(method)
    path = keep_tree(tmp_path / "wandb_experiments_1.json", {"model": "toy", "method": method}, 4, result, model.decode)
    assert path == tmp_path / "wandb_experiments_1" / f"toy_{method}" / "tree_4.json"
    kept, tree = read_tree(path), result.tree
    for name in ("parent", "token", "visits"):
        assert kept[name] == getattr(tree, name)
    np.testing.assert_allclose(kept["prior"], tree.prior, rtol=1e-5)
    assert [one is None for one in kept["value"]] == [not seen for seen in tree.visits]
    seen = [node for node in range(len(tree)) if tree.visits[node]]
    np.testing.assert_allclose([kept["value"][n] for n in seen], [tree.value[n] for n in seen], rtol=1e-5, atol=1e-12)
    assert kept["answer"] == result.best.leaf and kept["lam"] == 0.3
    assert [kept["texts"][place] for place in kept["text"][1:]] == [model.decode([token]) for token in tree.token[1:]]


def test_tokens_are_spelled_by_what_they_add():
    words = ["a", "b", "\n", "the", "end"]

    def joined(tokens):  # as tokenizers do: the space before a word is lost at the beginning
        return " ".join(words[token] for token in tokens if token != 4)

    speller = Speller(joined)
    assert speller.texts[speller.place(-1, 0)] == "a"
    assert speller.texts[speller.place(0, 3)] == " the"
    assert speller.texts[speller.place(-1, -1)] == "" == speller.texts[speller.place(0, 4)]
    merging = Speller(lambda tokens: {(1,): "x", (2,): "\ufffd", (1, 2): "\u00e9"}[tuple(tokens)])
    assert merging.texts[merging.place(1, 2)] == "\ufffd"  # what two tokens make together is not the second's


def test_actions_and_numbers_are_texts_too():
    names = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
    speller = Speller(lambda tokens: " ".join(names[token] for token in tokens))
    assert [speller.texts[speller.place(a, b)] for a, b in ((-1, 2), (2, 0), (0, 0))] == ["forward", " left", " left"]
    numbers = Speller(lambda tokens: " ".join(map(str, tokens)))
    assert numbers.texts[numbers.place(7, 12)] == " 12"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tree: "{", "found no JSON"),
        (lambda tree: json.dumps([1]), "found 'list'"),
        (lambda tree: json.dumps({**tree, "schema_version": 2}), "found 2"),
        (lambda tree: json.dumps({**tree, "visits": tree["visits"][1:]}), "found others in visits"),
        (lambda tree: json.dumps({k: v for k, v in tree.items() if k != "texts"}), "'texts' is missing"),
        (lambda tree: json.dumps({**tree, "parent": [-1, *range(1, len(tree["parent"]))]}), "do not make a tree"),
        (lambda tree: json.dumps({**tree, "answer": 10**6}), "do not make a tree"),
    ],
)
def test_trees_that_cannot_be_read(spoil, words, tmp_path):
    model, result = find()
    path = tmp_path / "tree.json"
    path.write_text(spoil(describe_tree(result, model.decode)))
    with pytest.raises(TreeFileError, match=re.escape(words)):
        read_tree(path)
    assert read_tree(tmp_path / "none.json") is None


# ------------------------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("method", ["dts", "greedy", "beam", "mh", "mcts"])
def test_the_way_is_the_answer_and_leaves_are_the_rollouts(method):
    _model, result, shown = show(method)
    way = way_to(shown, shown["answer"])
    assert tuple(shown["token"][node] for node in way) == result.best.tokens
    assert "".join(shown["texts"][shown["text"][node]] for node in way) == result.best.text
    assert shown["value"][shown["answer"]] == pytest.approx(result.best.reward, rel=1e-5)
    indices = sorted(index for ended in shown["ended"].values() for index in ended["rollouts"])
    assert indices == list(range(1, len(result.rollouts) + 1))
    for leaf, ended in shown["ended"].items():
        for index in ended["rollouts"]:
            rollout = result.rollouts[index - 1]
            assert tuple(shown["token"][node] for node in way_to(shown, leaf)) == rollout.tokens
            assert ended["reward"] == rollout.reward and ended["parts"] == {"odd": 1.0}


def test_the_rest_is_the_mass_of_what_no_rollout_has_taken():
    _, result, shown = show(rollouts=40)
    tree = result.tree
    inner = [node for node in range(len(shown["parent"])) if shown["choices"][node]]
    assert len(inner) > 5
    for node in inner:
        tokens = way_to(shown, node)
        mine = find_visited(tree, tuple(shown["token"][one] for one in tokens))
        taken = [child for child in tree.children[mine].values() if tree.visits[child]]
        assert shown["rest"][node] == pytest.approx(1 - sum(tree.prior[child] for child in taken), abs=2e-4)
        assert shown["choices"][node] == len(tree.distribution[mine].ids) == 5
    everything = show(rollouts=400, max_tokens=2)[2]
    assert all(
        everything["rest"][node] == 0 for node in range(len(everything["parent"])) if everything["choices"][node]
    )


def test_large_trees_are_shown_in_part():
    model, result = find(rollouts=600)
    tree, rollouts = describe_tree(result, model.decode), [describe_rollout(one) for one in result.rollouts]
    whole, part = prune(tree, rollouts, 10_000), prune(tree, rollouts, 120)
    assert len(whole["parent"]) - 1 == whole["nodes"] == part["nodes"] > 500 and not any(whole["hidden"])
    assert 60 < len(part["parent"]) <= 120
    assert part["parent"][0] == -1 and all(0 <= parent < node for node, parent in enumerate(part["parent"]) if node)
    assert tuple(part["token"][node] for node in way_to(part, part["answer"])) == result.best.tokens
    children = np.bincount(part["parent"][1:], minlength=len(part["parent"])) + part["hidden"]
    paths = {tuple(whole["token"][one] for one in way_to(whole, n)): n for n in range(len(whole["parent"]))}
    every = np.bincount(whole["parent"][1:], minlength=len(whole["parent"]))
    for node in range(len(part["parent"])):
        same = paths[tuple(part["token"][one] for one in way_to(part, node))]
        assert children[node] == every[same] and part["rest"][node] == whole["rest"][same]
    rewards = sorted({rollout.reward for rollout in result.rollouts}, reverse=True)[:5]
    assert set(rewards) <= {ended["reward"] for ended in part["ended"].values()}
    least = prune(tree, rollouts, 1)
    assert [least["token"][node] for node in range(1, len(least["parent"]))] == list(result.best.tokens)


# ------------------------------------------------------------------------------------------------------------ the page


def build(content, trees):
    return build_page(content, content["runs"][0], trees, [("Toy, dts", "a.html"), ("Toy, mh", "b.html")])


def build_sample(result, **others):
    rollouts = [describe_rollout(one) for one in result.rollouts]
    answer = {"rollout": result.best.index, "text": result.best.text, "reward": result.best.reward}
    sample = {"id": "one", "prompt": "q", "label": None, "best_reward": max(result.rewards), "answer": answer}
    return {**sample, "monotonicity": None, "time": 1.0, "rollouts": rollouts, **others}


def test_a_page_is_html_with_all_numbers_and_needs_no_network():
    model, result = find()
    content = build_results(samples=0)
    content["runs"][0]["samples"] = [build_sample(result), build_sample(result, id="two")]
    tree = describe_tree(result, model.decode)
    text = build(content, [tree, None])
    page = Page(text)
    assert page.open == [] and page.texts["title"] == "Trees: Toy, dts"
    data = json.loads(page.texts["data"])
    first, second = data["samples"]
    assert first["tree"] == json.loads(json.dumps(prune(tree, content["runs"][0]["samples"][0]["rollouts"], 5000)))
    assert second["tree"] is None and second["id"] == "two"
    assert (first["best"], first["rollouts"], first["tokens"]) == (max(result.rewards), 30, result.cost.new)
    assert data["facts"] == ["M4, synthetic data", "weights: toy", "reward: claims"]
    assert "://" not in text and not any({"src", "href"} & set(attrs) for _, attrs in page.tags)
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert text == build(content, [tree, None])


def test_the_page_is_installed_with_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    assert any(tree_page._TEMPLATE.match(pattern) for pattern in patterns)


def test_whatever_a_text_holds_it_stays_text():
    _model, result = find()
    content = build_results(samples=0)
    sample = build_sample(result, id=HOSTILE, prompt=HOSTILE, label=HOSTILE)
    content["runs"][0].update(samples=[sample], display_name=HOSTILE)
    content["data"]["name"] = HOSTILE
    tree = describe_tree(result, lambda tokens: HOSTILE * len(tokens))
    page = Page(build(content, [tree]))
    assert [tag for tag, _ in page.tags].count("script") == 2  # the data, and the program
    data = json.loads(page.texts["data"])
    assert (data["samples"][0]["prompt"], data["samples"][0]["label"], data["samples"][0]["id"]) == (HOSTILE,) * 3
    assert data["title"] == f"{HOSTILE}, dts" and HOSTILE in data["samples"][0]["tree"]["texts"]
    assert page.texts["title"] == f"Trees: {HOSTILE}, dts"
    assert json.loads(embed(HOSTILE)) == HOSTILE and not set("<>&\u2028") & set(embed(HOSTILE))


def test_long_prompts_and_seeds_of_levels():
    _, result = find()
    content = build_results(samples=0)
    content["runs"][0]["samples"] = [build_sample(result, prompt="x" * 30_000), build_sample(result, prompt=7, label=3)]
    found = json.loads(Page(build(content, [None, None])).texts["data"])["samples"]
    assert found[0]["prompt"].endswith("x ... (30,000 characters)") and len(found[0]["prompt"]) < 21_000
    assert (found[1]["prompt"], found[1]["label"]) == ("7", "3")


def test_pages_share_their_nodes(monkeypatch):
    model, result = find(rollouts=600)
    content = build_results(samples=0)
    content["runs"][0]["samples"] = [build_sample(result)] * 3
    for name, value in (("MOST_IN_PAGE", 300), ("MOST_NODES", 200), ("LEAST_NODES", 50)):
        monkeypatch.setattr(tree_page, name, value)
    tree = describe_tree(result, model.decode)
    shown = json.loads(Page(build(content, [tree] * 3)).texts["data"])["samples"]
    assert all(60 < len(sample["tree"]["parent"]) <= 100 for sample in shown)


def test_pages_of_a_folder_name_each_other_and_what_could_not_be_read(tmp_path, capsys):
    model, result = find()
    content = build_results(("toy", "more"), ("dts", "mh"), samples=0)
    for run in content["runs"]:
        run["samples"] = [build_sample(result)] * 2
    path = write_results(tmp_path, content)
    for run in content["runs"][:3]:
        keep_tree(path, run, 1, result, model.decode)
    find_tree(path, "toy", "mh", 0).write_text("{")
    pages, problems = write_pages(path, tmp_path / "out")
    names = ["trees_toy_dts.html", "trees_toy_mh.html", "trees_more_dts.html"]
    assert [page.name for page in pages] == names
    assert len(problems) == 1 and "toy_mh" in problems[0]
    for page in pages:
        data = json.loads(Page(page.read_text()).texts["data"])
        assert [link["file"] for link in data["links"]] == names and data["self"] == page.name
        assert [sample["tree"] is None for sample in data["samples"]] == [True, False]
    assert command.main([str(path), "--output_dir", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("failed: ")


# ------------------------------------------------------------------------------------------------------ of experiments

TINY = ("--models", "toy", "--num_samples", "2", "--num_rollouts", "3", "--max_tokens", "4", "--no_wandb")


def run(folder, *flags):
    return experiment.main([*TINY, "--data_source", "synthetic", "--output_dir", str(folder), *flags])


def test_an_experiment_keeps_the_tree_of_each_sample_also_when_it_goes_on(tmp_path):
    assert run(tmp_path, "--no_charts") == 0
    (path,) = tmp_path.glob("wandb_experiments_*.json")
    trees = [find_tree(path, "toy", "dts", index) for index in range(2)]
    kept = [tree.read_bytes() for tree in trees]
    content = json.loads(path.read_text())
    for tree, sample in zip(trees, content["runs"][0]["samples"], strict=True):
        assert len(read_tree(tree)["parent"]) == sample["nodes"] + 1
    content["runs"][0]["samples"].pop()
    content["runs"][0]["status"] = "running"
    path.write_text(json.dumps(content))
    trees[1].unlink()
    assert run(tmp_path, "--no_charts", "--resume") == 0
    assert [tree.read_bytes() for tree in trees] == kept


def test_a_tree_that_cannot_be_written_loses_nothing_else(tmp_path, capsys, monkeypatch):
    def refuse(path, _text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("maxent.trees.write_text", refuse)
    assert run(tmp_path, "--no_charts") == 1
    (path,) = tmp_path.glob("wandb_experiments_*.json")
    content = json.loads(path.read_text())
    assert content["status"] == "done" and len(content["runs"][0]["samples"]) == 2
    told = capsys.readouterr()
    assert "tree of sample 1 not kept: " in told.out + told.err and "No space left on device" in told.out + told.err


# -------------------------------------------------------------------------------------------------------- in a browser

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ROWS = "return [...document.querySelectorAll('[role=treeitem]')].filter(i => i.offsetParent).map(i => i.innerText)"
FOCUS = "return document.activeElement.querySelector('.row').innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that calls nobody."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update "
    flags += f"disable-sync disable-dev-shm-usage user-data-dir={tmp_path_factory.mktemp('profile')}"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of selenium are its own
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver")
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_in_a_browser(width, browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    model, result = find(rollouts=60)
    content = build_results(samples=0)
    content["runs"][0]["samples"] = [build_sample(result, prompt=HOSTILE), build_sample(result, id="two")]
    (tmp_path / "page.html").write_text(build(content, [describe_tree(result, model.decode), None]))
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"file://{tmp_path / 'page.html'}")
    get = browser.find_element
    assert get(By.ID, "prompt").get_attribute("textContent") == HOSTILE
    first = browser.execute_script(ROWS)
    root = browser.execute_script("return document.querySelector('[role=treeitem] > .row').innerText").split("\n")
    assert root[-2:] == [f"v {result.tree.value[0]:.3f}", "60 visits"]
    (answer,) = [row for row in first if "\u2605 answer" in row and "visits" not in row.split("\u2605")[0]]
    assert f"reward {result.best.reward:.3f}" in answer
    way = "return [...document.querySelectorAll('.way > .row bdi:not(.special)')].map(e => e.textContent).join('')"
    assert browser.execute_script(way) == result.best.text
    get(By.ID, "open").click()
    rows = browser.execute_script(ROWS)
    assert len(rows) > len(first)
    shown = "return [...document.querySelectorAll('.end')].map(e => e.textContent)"
    leaves = browser.execute_script(shown)
    assert len(leaves) == len({rollout.leaf for rollout in result.rollouts})
    get(By.ID, "single").click()
    get(By.ID, "open").click()
    assert len(browser.execute_script(ROWS)) == sum(map(bool, result.tree.visits))
    get(By.ID, "shut").click()
    assert len(browser.execute_script(ROWS)) == 1
    item = get(By.CSS_SELECTOR, "[role=treeitem]")
    item.send_keys(Keys.ARROW_RIGHT)
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert browser.execute_script(FOCUS) != browser.execute_script("return document.querySelector('.row').innerText")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".table")) == 1
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) == 0
    get(By.ID, "after").click()
    assert get(By.ID, "note").text == "The tree of this sample was not kept."
    assert browser.current_url.endswith("#2")
    assert browser.get_log("browser") == []
