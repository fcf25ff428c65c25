"""The main path, from a plan to every file and exit code that it ends in."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

from assay.audits.plan import Plan
from assay.errors import findings

SERVER = Path(__file__).parents[1] / "targets" / "servers" / "v2_app.py"
GOLDEN = Path(__file__).parents[1] / "reports" / "golden" / "schema.json"

LOGGED = '''\
import torch
from pathlib import Path
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]]))
        self.bias = nn.Parameter(torch.tensor([0.0, -0.5]))

    def forward(self, x):
        with Path(__file__).with_name("calls.log").open("a") as log:
            log.write(f"{len(x)}\\n")
        return nn.functional.linear(x, self.weight, self.bias)


def build():
    return Net().eval()
'''


def robust(said) -> dict[tuple[str, str], float]:
    """Robust accuracy on these points by kind of evidence and side."""
    return {(e["kind"], b["side"]): b["estimate"] for e in said.json["evidence"] for b in e["bounds"]
            if b["quantity"] == "robust accuracy"}


def without_time(evidence: list[dict]) -> list[dict]:
    return [{**e, "cost": {**e["cost"], "seconds": 0}} for e in evidence]


def test_run_json_is_what_the_schema_says(cli) -> None:
    said = cli("run", "--json")
    published = cli("schema")
    assert (said.code, published.code) == (0, 0)
    assert published.json == json.loads(GOLDEN.read_text())
    jsonschema.Draft202012Validator.check_schema(published.json)
    jsonschema.Draft202012Validator(published.json).validate(said.json)
    assert list(said.json) == ["evidence", "claims"]
    declared = published.json["$defs"]
    for evidence in said.json["evidence"]:
        assert set(evidence) == set(declared["evidence"]["properties"])
        assert set(evidence["threat"]) == set(declared["threat"]["properties"])
        assert set(evidence["cost"]) == set(declared["cost"]["properties"])
        assert all(set(bound) == set(declared["bound"]["properties"]) for bound in evidence["bounds"])
    assert all(set(claim) == set(declared["claim"]["properties"]) for claim in said.json["claims"])


def test_a_proven_claim_exits_0_with_the_known_numbers(cli, project) -> None:
    said = cli("run", "--json")
    assert said.code == 0
    assert robust(said) == {("played", "at most"): 0.75, ("proved", "at least"): 0.75}
    (claim,) = said.json["claims"]
    assert (claim["id"], claim["claim"], claim["verdict"]) == ("ROB-1", "robust accuracy >= 0.4", "proven")
    assert "IBP() proves robust accuracy at least 0.75 on 40 points" in claim["because"]
    assert (project.folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "wrote report.html" in said.err


def test_a_broken_claim_exits_1(cli, project) -> None:
    project.edit(">= 0.40", ">= 0.95")
    said = cli("run", "--json")
    assert said.code == 1
    (claim,) = said.json["claims"]
    assert claim["verdict"] == "broken"
    assert "PGD(steps=5) shows robust accuracy at most 0.75 on 40 points" in claim["because"]


def test_too_few_points_for_the_claim_exits_3(cli, project) -> None:
    project.edit(">= 0.40", ">= 0.80")
    said = cli("run", "--json")
    assert said.code == 3
    assert said.json["claims"][0]["verdict"] == "undecided"
    assert "DBT109" in said.json["claims"][0]["because"]


def test_a_claim_about_these_points_alone_is_broken_by_them(cli, project) -> None:
    project.edit('>= 0.40"', '>= 0.80"\nabout = "points"')
    assert cli("run", "--json").code == 1


def test_attacks_alone_leave_a_claim_standing(cli, project) -> None:
    project.edit('proofs = ["ibp"]\n', "")
    said = cli("run", "--json")
    assert (said.code, said.json["claims"][0]["verdict"]) == (0, "standing")


def test_the_summary_is_for_people(cli) -> None:
    said = cli("run")
    assert said.code == 0
    assert "ROB-1" in said.out
    assert "proven" in said.out.lower()
    assert "\x1b" not in said.out


def test_stdout_is_data_and_stderr_is_talk_in_a_real_process(project) -> None:
    said = project.process("run", "--json")
    assert said.code == 0
    assert [claim["verdict"] for claim in said.json["claims"]] == ["proven"]
    assert "PGD(steps=5)" in said.err
    assert "IBP()" in said.err
    assert "wrote report.html" in said.err
    assert "\x1b" not in said.err


def test_quiet_says_only_what_was_written(cli) -> None:
    assert cli("run", "--json", "--quiet").err == "wrote report.html\n"


def test_a_broken_claim_exits_1_in_a_real_process(project) -> None:
    project.edit(">= 0.40", ">= 0.95")
    assert project.process("run", "--json").code == 1


def test_check_judges_again_without_a_target(cli, project) -> None:
    project.edit(">= 0.40", ">= 0.95")
    ran = cli("run", "--json")
    (project.folder / "net.py").unlink()
    (project.folder / "points.npz").unlink()
    said = cli("check", "--format", "junit,sarif,json,markdown", "--out", "out", "--json")
    assert (ran.code, said.code) == (1, 1)
    assert said.json == ran.json
    suite = ElementTree.parse(project.folder / "out" / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    sarif = json.loads((project.folder / "out" / "assay.sarif").read_text())
    assert sarif["version"] == "2.1.0"
    assert [(r["ruleId"], r["level"]) for r in sarif["runs"][0]["results"]] == [("ASSAY-CLAIM", "error")]
    assert json.loads((project.folder / "out" / "report.json").read_text()) == ran.json
    assert "ROB-1" in (project.folder / "out" / "report.md").read_text()


def test_check_judges_the_claims_of_another_plan(cli, project) -> None:
    assert cli("run", "--json").code == 0
    project.edit(">= 0.40", ">= 0.95")
    assert cli("check", "audit.toml", "--json").code == 1
    assert cli("check", "--json").code == 0


def test_require(cli, project) -> None:
    project.edit(">= 0.40", ">= 0.80")
    assert cli("run", "--json").code == 3
    required = cli("check", "--json", "--require", "ROB-1")
    assert required.code == 3
    assert "ROB-1 undecided: robust accuracy >= 0.8" in required.err
    unknown = cli("check", "--json", "--require", "ROB-2")
    assert unknown.code == 2
    assert unknown.err.startswith("CFG121  there is no claim 'ROB-2'; there are ['ROB-1']")
    project.edit(">= 0.80", ">= 0.40")
    assert cli("run", "--json").code == 0
    assert cli("check", "--json", "--require", "ROB-1").code == 0


def test_a_second_run_resumes_and_attacks_nothing(cli, project) -> None:
    (project.folder / "net.py").write_text(LOGGED)
    project.edit('proofs = ["ibp"]\n', "")
    log = project.folder / "calls.log"

    def rows() -> int:
        total = sum(int(line) for line in log.read_text().split())
        log.unlink()
        return total

    first, spent = cli("run", "--json"), rows()
    parts = project.parts()
    second, again = cli("run", "--json"), rows()
    third, still = cli("run", "--json"), rows()
    assert first.json == second.json == third.json
    assert project.parts() == parts
    assert len(parts) == 8
    (evidence,) = first.json["evidence"]
    moved = 10  # the points the attack broke, at which the referee looks again
    assert spent - again == 40 + evidence["cost"]["forwards"] + moved
    assert again == still


def test_another_seed_is_another_trial(cli, project) -> None:
    first = cli("run", "--json")
    project.edit("chunk = 10", "chunk = 10\nseed = 1")
    second = cli("run", "--json")
    assert {e["trial"] for e in first.json["evidence"]}.isdisjoint(e["trial"] for e in second.json["evidence"])
    assert [e["seed"] for e in second.json["evidence"]] == [1, 1]


def test_replay_holds_until_the_weights_change(cli, project) -> None:
    ran = cli("run", "--json")
    said = cli("replay", "--json")
    assert said.code == 0
    assert said.json == [{"id": ran.json["evidence"][0]["id"], "attack": "PGD(steps=5)", "held": 10, "total": 10, "why": ""}]
    assert cli("replay").out == f"{ran.json['evidence'][0]['id']}  10 of 10 hold  PGD(steps=5)\n"
    project.edit("-0.5 * sign", "-0.6 * sign", file="net.py")
    changed = cli("replay", "--json")
    assert changed.code == 5
    assert (changed.json[0]["held"], changed.json[0]["total"]) == (5, 10)
    assert changed.err.startswith("LGR106  PGD(steps=5): 5 of 10 hold")


def test_replay_notices_other_data(cli, project) -> None:
    cli("run", "--json")
    x, y = project.data()
    project.points(x[::-1], y[::-1])
    changed = cli("replay", "--json")
    assert changed.code == 5
    assert changed.json[0]["why"] == "the data are not those of the evidence"


def test_verify_the_untouched_ledger(cli, project) -> None:
    cli("run", "--json")
    said = cli("verify")
    assert said.code == 0
    lines = project.lines()
    assert re.fullmatch(rf"{len(lines)} entries and \d+ arrays are whole; head {lines[-1]['hash']}\n", said.out)


def test_verify_finds_an_altered_line(cli, project) -> None:
    cli("run", "--json")
    book = project.folder / "assay-ledger" / "ledger.jsonl"
    book.write_text(book.read_text().replace('"estimate":0.75', '"estimate":0.95', 1))
    said = cli("verify")
    assert said.code == 5
    assert said.err.startswith("LGR103  ")
    assert "ledger.jsonl, line" in said.err


def test_verify_finds_an_altered_array(cli, project) -> None:
    cli("run", "--json")
    array = next((project.folder / "assay-ledger" / "artefacts").iterdir())
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(bytes(data))
    said = cli("verify")
    assert said.code == 5
    assert said.err.startswith("LGR104  ")
    assert array.name in said.err


def test_verify_where_there_is_no_ledger(cli, project) -> None:
    said = cli("verify")
    assert said.code == 2
    assert said.err.startswith("CFG106  ")
    assert not (project.folder / "assay-ledger").exists()


def test_compare_sets_the_evidence_side_by_side(cli) -> None:
    ran = cli("run", "--json")
    said = cli("compare")
    assert said.code == 0
    head, *rows = said.out.splitlines()
    assert head.split() == ["method", "target", "budget", "bound", "forwards/pt", "backwards/pt", "seconds", "doubts"]
    assert [row.split("  ")[0] for row in rows] == ["PGD(steps=5)", "IBP()"]
    assert "robust accuracy at most 75.00%" in rows[0]
    assert "robust accuracy at least 75.00%" in rows[1]
    one = cli("compare", ran.json["evidence"][1]["id"], "--json")
    assert [row["attack"] for row in one.json] == ["IBP()"]
    assert cli("compare", "no-such-id").err.startswith("CFG106  no evidence has the id 'no-such-id'")


@pytest.mark.parametrize(("name", "start"), [("html", "<!DOCTYPE html>"), ("markdown", "#"), ("junit", "<?xml"), ("json", "{"), ("sarif", "{")])
def test_report_to_stdout(cli, name: str, start: str) -> None:
    cli("run", "--json")
    said = cli("report", "--format", name, "--out", "-")
    assert said.code == 0
    assert said.out.startswith(start)
    assert said.err == ""


def test_report_to_a_file(cli, project) -> None:
    cli("run", "--json")
    said = cli("report", "--out", "deep/page.html")
    assert (said.code, said.out, said.err) == (0, "", "wrote deep/page.html\n")
    assert (project.folder / "deep" / "page.html").exists()


def test_suite_quick_cuts_the_points_and_fills_in_methods(cli, project) -> None:
    project.edit('attacks = [{ name = "pgd", steps = 5 }]\nproofs = ["ibp"]\n', "")
    x = np.tile(np.array([[0.8, 0.5, 0.5, 0.5], [0.2, 0.5, 0.5, 0.5]], dtype=np.float32), (60, 1))
    project.points(x, np.tile([1, 0], 60))
    said = cli("run", "--suite", "quick", "--json")
    assert said.code == 0
    assert [e["attack"] for e in said.json["evidence"]] == ["APGD(steps=20, loss='dlr')", "CROWNIBP()"]
    assert {b["n"] for e in said.json["evidence"] for b in e["bounds"]} == {100}
    assert robust(said) == {("played", "at most"): 1.0, ("proved", "at least"): 1.0}


def test_suite_standard_is_what_a_plan_without_methods_gets(cli, project) -> None:
    project.edit('attacks = [{ name = "pgd", steps = 5 }]\nproofs = ["ibp"]\n', "")
    project.points(*(part[:10] for part in project.data()))
    said = cli("run", "--json")
    assert [e["attack"] for e in said.json["evidence"]] == ["AutoAttack()", "CROWN()"]
    assert robust(said) == {("played", "at most"): 0.0, ("proved", "at least"): 0.0}
    assert said.code == 1


@pytest.mark.parametrize(("suite", "attack"), [
    ("quick", "HopSkipJump(queries=500)"), ("standard", "HopSkipJump()"), ("thorough", "HopSkipJump(queries=20000)"),
])
def test_suites_play_by_labels_where_nothing_else_is_granted(cli, project, suite: str, attack: str) -> None:
    project.edit('attacks = [{ name = "pgd", steps = 5 }]\nproofs = ["ibp"]\n', "")
    project.edit('budget = "linf 0.1"', 'access = "labels", budget = "linf 0.1", queries = 100')
    said = cli("run", "--suite", suite, "--json")
    played, proved = said.json["evidence"]
    assert (played["attack"], played["error"]) == (attack, "")
    assert proved["kind"] == "proved"
    assert robust(said) == {("played", "at most"): 0.75, ("proved", "at least"): 0.75}
    assert played["cost"]["queries"] <= 40 * 100


def test_list_json(cli) -> None:
    said = cli("list", "--json")
    assert said.code == 0
    assert {"evasion.game", "evasion.apgd", "evasion.crown", "evasion.smoothing"} <= {card["name"] for card in said.json}
    assert {card["kind"] for card in cli("list", "--json", "--kind", "proof").json} == {"proof"}
    assert {card["stage"] for card in cli("list", "--json", "--stage", "training").json} == {"training"}
    assert cli("list", "--json", "--wing", "nothing").json == []


def test_list_for_people_has_a_line_a_card(cli) -> None:
    assert len(cli("list").out.splitlines()) == len(cli("list", "--json").json)


def test_explain_a_code(cli) -> None:
    finding = findings()["TGT102"]
    said = cli("explain", "tgt102")
    assert said.code == 0
    assert said.out == f"TGT102  {finding.title}\n\nWhy it matters\n  {finding.why}\n\nWhat to do\n  {finding.fix}\n"


@pytest.mark.parametrize("name", ["evasion.apgd", "apgd"])
def test_explain_a_method(cli, name: str) -> None:
    said = cli("explain", name)
    assert said.code == 0
    assert said.out.startswith("evasion.apgd (attack): ")
    assert "*Cost*" in said.out
    assert "AML.T0043.000" in said.out


def test_explain_something_unknown(cli) -> None:
    said = cli("explain", "evasion.apdg")
    assert said.code == 2
    assert said.err.startswith("CFG131  there is no code or method called 'evasion.apdg'; did you mean 'evasion.apgd'?")


def test_init_writes_a_plan_that_parses(cli, project) -> None:
    said = cli("init", "fresh.toml")
    assert (said.code, said.out) == (0, "")
    text = (project.folder / "fresh.toml").read_text()
    assert Plan.parse(text).trial[0].attacks == ["auto-attack"]
    assert tomllib.loads(text)["claim"] == [{"id": "ROB-1", "that": "robust accuracy >= 0.40"}]
    again = cli("init", "fresh.toml")
    assert again.code == 2
    assert again.err.startswith("CFG105  fresh.toml exists")
    assert cli("init", "fresh.toml", "--force").code == 0


def test_init_where_nothing_can_be_written(cli) -> None:
    said = cli("init", "net.py/audit.toml")
    assert said.code == 2
    assert said.err.startswith("CFG108  cannot write net.py/audit.toml")


def test_an_onnx_file_from_a_plan(cli, project) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.array([[0, 1], [0, 0], [0, 0], [0, 0]], dtype=np.float32), "w")
    bias = numpy_helper.from_array(np.array([0, -0.5], dtype=np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["scores"])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])], [weight, bias])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), project.folder / "net.onnx")
    project.edit('load = "net.py:build"', 'kind = "onnx"\nload = "net.onnx"')
    said = cli("run", "--json")
    assert said.code == 0
    assert robust(said) == {("played", "at most"): 0.75, ("proved", "at least"): 0.75}
    assert {e["target"] for e in said.json["evidence"]} == {"net"}


def test_a_sklearn_model_from_a_plan(cli, project) -> None:
    (project.folder / "fitted.py").write_text(
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n\n\ndef build():\n"
        "    data = np.load(__file__.replace('fitted.py', 'points.npz'))\n"
        "    return LogisticRegression(C=1e6).fit(data['x'], data['y'])\n")
    project.edit('load = "net.py:build"', 'kind = "sklearn"\nload = "fitted.py:build"\noutputs = "scores"')
    project.edit('threat = { budget = "linf 0.1" }', 'threat = { access = "scores", budget = "linf 0.1" }')
    project.edit('attacks = [{ name = "pgd", steps = 5 }]\nproofs = ["ibp"]', 'attacks = [{ name = "square", queries = 200 }]')
    said = cli("run", "--json")
    assert said.code == 0
    assert robust(said) == {("played", "at most"): 0.75}
    assert {e["target"] for e in said.json["evidence"]} == {"LogisticRegression"}


@pytest.fixture
def server() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen([sys.executable, str(SERVER), str(listener.fileno())], pass_fds=[listener.fileno()])
    yield address
    process.terminate()
    process.wait(10)


HTTP = 'kind = "http"\nload = "{}"\noutputs = "scores"\nname = "served"\nhttp = {{ model = "linear", retries = 0, timeout = 20 }}'


def served(project, address: str) -> None:
    project.edit('load = "net.py:build"', HTTP.format(address))
    project.edit('threat = { budget = "linf 0.1" }', 'threat = { access = "scores", budget = "linf 0.4", queries = 60 }')
    project.edit('attacks = [{ name = "pgd", steps = 5 }]\nproofs = ["ibp"]', 'attacks = [{ name = "square", queries = 50 }]')
    weight = np.array([[1.0, -1.0, 0.5], [0.0, 2.0, -0.5], [-1.5, 0.25, 1.0], [0.5, 0.5, 0.5]])
    x = np.random.default_rng(0).random((12, 4)).astype(np.float32)
    project.points(x, (x @ weight).argmax(1))


def test_a_served_model_from_a_plan(cli, project, server: str) -> None:
    served(project, server)
    said = cli("run", "--json")
    (evidence,) = said.json["evidence"]
    assert (evidence["kind"], evidence["target"], evidence["error"]) == ("played", "served", "")
    clean = {b["side"]: b["estimate"] for b in evidence["bounds"] if b["quantity"] == "clean accuracy"}
    assert clean == {"at most": 1.0, "at least": 1.0}
    assert robust(said)["played", "at most"] < 1
    assert 0 < evidence["cost"]["queries"] <= 12 * 60


def test_a_dead_server_exits_4(cli, project) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        served(project, f"http://127.0.0.1:{held.getsockname()[1]}")
        said = cli("run", "--json")
    assert said.code == 4
    assert "TGT110" in said.out + said.err
