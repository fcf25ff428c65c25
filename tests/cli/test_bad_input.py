"""What people get wrong, and what goes wrong around them: a coded error that names the place, and nothing earned lost."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from assay import catalog
from assay.evidence.ledger import Ledger

BUMPY = '''\
import torch
from pathlib import Path
from torch import nn

HERE = Path(__file__).parent


class Net(nn.Module):
    """Raises on one call where a file says so; sleeps where another does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]]))
        self.bias = nn.Parameter(torch.tensor([0.0, -0.5]))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if (HERE / "fails").exists() and self.calls == int((HERE / "fails").read_text()):
            raise ValueError(f"bad luck on batch {self.calls}")
        if (HERE / "stalls").exists() and self.calls >= int((HERE / "stalls").read_text()):
            import time

            (HERE / "stalled").touch()
            time.sleep(60)
        return nn.functional.linear(x, self.weight, self.bias)


def build():
    return Net().eval()
'''

ATTACKS = '''attacks = [{ name = "pgd", steps = 5 }]'''


def without_time(found: list[dict]) -> list[dict]:
    return [{**e, "cost": {**e["cost"], "seconds": 0}} for e in found]


def refused(said, code: str, exit_code: int, *words: str) -> None:
    """One coded message on stderr, nothing on stdout."""
    assert said.code == exit_code, said
    assert said.err.startswith(f"{code}  "), said.err
    assert "Traceback" not in said.err
    assert f"assay explain {code}" in said.err
    assert said.out == ""
    for word in words:
        assert word in said.err, (word, said.err)


def not_run(said, code: str, exit_code: int, *words: str) -> None:
    """No evidence but trials that did not run, each with the coded reason."""
    assert said.code == exit_code, said
    found = said.json["evidence"]
    assert {e["kind"] for e in found} == {"not run"}
    assert all(e["error"].startswith(f"{code}  ") and e["bounds"] == [] for e in found), found
    for word in words:
        assert word in found[0]["error"], (word, found[0]["error"])
    assert {claim["verdict"] for claim in said.json["claims"]} == {"undecided"}


# The plan


def test_an_unknown_key(cli, project) -> None:
    project.edit("threat = {", "thraet = {}\nthreat = {")
    refused(cli("run"), "CFG102", 2, "unknown key 'thraet'; did you mean 'threat'?", "audit.toml, [[trial]] 1")


def test_an_unknown_key_deep_inside(cli, project) -> None:
    project.edit('{ budget =', '{ acces = "scores", budget =')
    refused(cli("run"), "CFG102", 2, "unknown key 'acces'; did you mean 'access'?", "[[trial]] 1 threat.acces")


def test_a_value_of_the_wrong_type(cli, project) -> None:
    project.edit("chunk = 10", 'chunk = "ten"')
    refused(cli("run"), "CFG104", 2, "chunk = 'ten'", "audit.toml, [[trial]] 1 chunk")


def test_a_key_that_is_missing(cli, project) -> None:
    project.edit('load = "points.npz"', "")
    refused(cli("run"), "CFG103", 2, "'load'", "[data] load")


def test_text_that_is_not_toml(cli, project) -> None:
    project.edit("[data]", "[data")
    refused(cli("run"), "CFG101", 2, "audit.toml", "line")


def test_a_plan_that_is_not_there(cli) -> None:
    refused(cli("run", "audti.toml"), "CFG100", 2, "audti.toml", "did you mean 'audit.toml'?")


def test_an_unknown_attack(cli, project) -> None:
    project.edit('"pgd"', '"pdg"')
    refused(cli("run"), "CFG131", 2, "no attack called 'pdg'; did you mean 'pgd'?", "[[trial]] trial-1, attacks")


def test_an_unknown_parameter(cli, project) -> None:
    project.edit("steps = 5", "restrats = 5")
    refused(cli("run"), "CFG133", 2, "evasion.pgd has no parameter 'restrats'; did you mean 'restarts'?")


def test_a_parameter_of_the_wrong_type(cli, project) -> None:
    project.edit("steps = 5", 'steps = "many"')
    refused(cli("run"), "CFG134", 2, "evasion.pgd: steps = 'many'")


def test_a_budget_without_a_norm(cli, project) -> None:
    project.edit("linf 0.1", "8/255")
    refused(cli("run"), "THR104", 2, "cannot read the budget '8/255'")


def test_a_budget_below_zero(cli, project) -> None:
    project.edit("linf 0.1", "linf -0.1")
    refused(cli("run"), "THR104", 2, "-0.1")


def test_a_claim_that_cannot_be_read_is_said_before_anything_is_spent(cli, project) -> None:
    project.edit("robust accuracy >= 0.40", "robust accuracy is fine")
    refused(cli("run"), "CFG120", 2, "cannot read the claim 'robust accuracy is fine'", "claim ROB-1")
    assert [entry["kind"] for entry in project.lines()] == ["plan"]


def test_a_format_that_is_not_known(cli) -> None:
    refused(cli("run", "--format", "htlm"), "CFG107", 2, "there is no format 'htlm'; did you mean 'html'?")


def test_a_suite_that_is_not_known(cli) -> None:
    refused(cli("run", "--suite", "quik"), "CFG131", 2, "there is no suite called 'quik'; did you mean 'quick'?")


def test_a_flag_that_is_not_known(cli) -> None:
    said = cli("run", "--jsno")
    assert said.code == 2
    assert "No such option" in said.err
    assert "--json" in said.err


# The data


def test_a_file_that_is_not_there(cli, project) -> None:
    project.edit("points.npz", "pionts.npz")
    refused(cli("run"), "DAT103", 2, "pionts.npz")


def test_a_label_out_of_range(cli, project) -> None:
    x, y = project.data()
    y[7] = 5
    project.points(x, y)
    not_run(cli("run", "--json"), "DAT114", 3, "label 5 at row 7", "in 0 ... 1 for 2 classes", "points.npz")


def test_nan_in_the_data(cli, project) -> None:
    x, y = project.data()
    x[11, 2] = np.nan
    project.points(x, y)
    refused(cli("run"), "DAT111", 2, "row 11", "index [2]", "points.npz")


def test_an_input_outside_the_declared_bounds(cli, project) -> None:
    x, y = project.data()
    x[13, 1] = 255
    project.points(x, y)
    refused(cli("run", "--json"), "DAT115", 2, "row 13", "255.0", "[0, 1]", "points.npz")


# The target


def test_a_module_that_is_not_there(cli, project) -> None:
    project.edit("net.py:build", "ent.py:build")
    refused(cli("run"), "CFG140", 2, "there is no file 'ent.py'; did you mean 'net.py'?", str(project.folder))


def test_a_builder_that_raises(cli, project) -> None:
    project.edit("sign=1.0):", "sign=1.0):\n    raise KeyError('weights')", file="net.py")
    refused(cli("run"), "CFG140", 2, "net.py:build: KeyError: 'weights'", "[target] load")


def test_a_model_that_returns_the_wrong_shape(cli, project) -> None:
    project.edit("nn.Sequential(layer)", "nn.Sequential(layer, nn.Flatten(0))", file="net.py")
    not_run(cli("run", "--json"), "TGT102", 3, "build returned shape (32,) for 16 rows")


def test_a_model_made_for_other_inputs(cli, project) -> None:
    x, y = project.data()
    project.points(x[:, :3], y)
    not_run(cli("run", "--json"), "TGT101", 3, "build failed on input of shape (16, 3)")


def test_a_model_that_returns_nan(cli, project) -> None:
    project.edit("-0.5 * sign", "float('nan')", file="net.py")
    not_run(cli("run", "--json"), "TGT103", 3, "16 of 16 rows")


def test_a_model_without_weights(cli, project) -> None:
    project.edit('load = "net.py:build"', 'load = "net.py:build"\ndevice = "meta"')
    refused(cli("run"), "TGT101", 2, "'0.weight' is on the meta device")


def test_a_device_that_is_not_there(cli, project) -> None:
    project.edit('load = "net.py:build"', 'load = "net.py:build"\ndevice = "cuba"')
    refused(cli("run"), "CFG104", 2, "device = 'cuba'", "[target] device")


def test_a_model_spread_over_two_devices(cli, project) -> None:
    project.edit("return nn.Sequential(layer)", "layer.bias = nn.Parameter(layer.bias.to('meta'))\n    return nn.Sequential(layer)",
                 file="net.py")
    refused(cli("run"), "TGT101", 2, "'0.bias' is on the meta device")


def weighted(project, name: str, *, allow: bool = False) -> Path:
    project.edit('load = "net.py:build"', f'load = "net.py:build"\nweights = "{name}"\nallow_pickle = {str(allow).lower()}')
    return project.folder / name


STATE = {"0.weight": torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]]), "0.bias": torch.tensor([0.0, -0.5])}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_whole_weights_load(cli, project, name: str) -> None:
    path = weighted(project, name)
    save_file(STATE, path) if name.endswith("safetensors") else torch.save(STATE, path)
    assert cli("run", "--json").code == 0


def test_weights_that_are_not_there(cli, project) -> None:
    save_file(STATE, project.folder / "w.safetensors")
    weighted(project, "v.safetensors")
    refused(cli("run"), "CFG100", 2, "there is no file 'v.safetensors'; did you mean 'w.safetensors'?")


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_pickle_where_safetensors_is_expected(cli, project, write: str) -> None:
    path = weighted(project, "w.safetensors")
    path.write_bytes(pickle.dumps({"0.bias": [0.0]})) if write == "pickle" else torch.save(STATE, path)
    refused(cli("run"), "CFG142", 2, "is a pickle", "w.safetensors")


def test_a_truncated_safetensors_file(cli, project) -> None:
    path = weighted(project, "w.safetensors")
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-7])
    refused(cli("run"), "CFG141", 2, "not a whole safetensors file", "w.safetensors")


@pytest.mark.parametrize("left", [0, 1, 40, 700, -5])
def test_a_truncated_pth_file(cli, project, left: int) -> None:
    path = weighted(project, "w.pth")
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:left])
    refused(cli("run"), "CFG141", 2, "not a whole torch file", "w.pth")


def test_a_whole_model_pickled_needs_permission_and_is_on_record(cli, project) -> None:
    path = weighted(project, "w.pth")
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 2)).eval(), path)
    refused(cli("run"), "CFG142", 2, "needs unpickling", "w.pth")
    project.edit("allow_pickle = false", "allow_pickle = true")
    said = cli("run", "--json")
    assert {e["provenance"]["pickle"] for e in said.json["evidence"]} == {"allowed"}


def test_a_permitted_pickle_whose_code_is_missing(cli, project) -> None:
    path = weighted(project, "w.pth", allow=True)
    path.write_bytes(b"\x80\x02cno_such_module\nNoSuchClass\n)R.")
    refused(cli("run"), "CFG141", 2, "no_such_module", "w.pth")


def test_weights_of_another_architecture(cli, project) -> None:
    path = weighted(project, "w.safetensors")
    save_file({"0.weight": torch.zeros(2, 5), "0.bias": torch.zeros(2)}, path)
    refused(cli("run"), "CFG141", 2, "do not fit", "0.weight", "w.safetensors")


# Third parties


def test_an_attack_that_raises_does_not_stop_the_others(cli, project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "third_party.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n\nfrom assay.targets import Access\n\n\n"
        "@dataclass(frozen=True)\nclass Rude:\n"
        "    needs: ClassVar[Access] = Access.LABELS\n    norms: ClassVar[frozenset[float]] = frozenset({float('inf')})\n\n"
        "    def perturb(self, view, x, y, budget, rng):\n        raise ZeroDivisionError('no luck')\n")
    monkeypatch.syspath_prepend(str(project.folder))
    card = catalog.Card(name="evasion.rude", kind="attack", entry="third_party:Rude", summary="Raises.", needs="labels")
    monkeypatch.setattr(catalog, "CARDS", (*catalog.CARDS, card))
    catalog.cards.cache_clear()
    project.edit(ATTACKS, 'attacks = ["rude", { name = "pgd", steps = 5 }]')
    said = cli("run", "--json")
    monkeypatch.undo()
    catalog.cards.cache_clear()
    rude, pgd, ibp = said.json["evidence"]
    assert said.code == 3
    assert (rude["kind"], rude["error"], rude["error_exit"]) == ("not run", "RUN101  ZeroDivisionError: no luck", 3)
    assert [(e["kind"], e["bounds"][-1]["estimate"]) for e in (pgd, ibp)] == [("played", 0.75), ("proved", 0.75)]


def test_a_broken_plugin_is_named(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("rude", "no_such_module:CARD", catalog.ENTRY_POINTS)
    monkeypatch.setattr(catalog, "entry_points", lambda group: (point,))
    catalog.cards.cache_clear()
    said = cli("list")
    catalog.cards.cache_clear()
    refused(said, "CFG130", 2, "the plugin 'rude' failed to load", "no_such_module")


# What breaks on the way


def bumpy(project) -> None:
    (project.folder / "net.py").write_text(BUMPY)
    project.edit('attacks = [{ name = "pgd", steps = 5 }]\nproofs = ["ibp"]',
                 'attacks = [{ name = "pgd", steps = 5 }, { name = "bim", steps = 5 }]')


@pytest.mark.parametrize("call", [3, 4, 11, 37, 50])
def test_a_model_that_raises_once_is_resumed_and_ends_where_it_would_have(cli, project, call: int) -> None:
    bumpy(project)
    calm = cli("run", "--json", "--ledger", "calm")
    assert calm.code == 0
    (project.folder / "fails").write_text(str(call))
    failed = cli("run", "--json")
    assert failed.code == 3
    lost = [e for e in failed.json["evidence"] if e["kind"] == "not run"]
    assert lost
    assert {e["error"] for e in lost} <= {f"RUN101  ValueError: bad luck on batch {call}",
                                          f"TGT101  build failed on input of shape (16, 4): bad luck on batch {call}"}
    earned = project.parts()
    (project.folder / "fails").unlink()
    healed = cli("run", "--json")
    assert healed.code == 0
    assert without_time(healed.json["evidence"]) == without_time(calm.json["evidence"])
    assert healed.json["claims"] == calm.json["claims"]
    assert project.parts()[: len(earned)] == earned
    assert len(set(project.parts())) == len(project.parts())
    assert cli("verify").code == 0


def test_a_full_disk_keeps_what_was_earned(cli, project) -> None:
    bumpy(project)
    calm = cli("run", "--json", "--ledger", "calm")
    limit = 3000
    said = project.process("run", "--json", "--quiet", code=f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    refused(said, "LGR101", 2, "cannot write", "assay-ledger")
    earned = project.parts()
    assert 0 < len(earned) < 12
    assert (project.folder / "assay-ledger" / "ledger.jsonl").stat().st_size <= limit
    assert not list((project.folder / "assay-ledger" / "artefacts").glob("*.partial"))
    again = cli("run", "--json")
    assert again.code == 0
    assert without_time(again.json["evidence"]) == without_time(calm.json["evidence"])
    assert project.parts()[: len(earned)] == earned


def interrupted(project, stop: int) -> tuple[int, str, list[str]]:
    """A run that is sent a signal in the middle of its third chunk: exit code, stderr, parts on disk."""
    (project.folder / "stalls").write_text("30")
    process = project.spawn("run", "--json", "--quiet")
    for _ in range(1200):
        if (project.folder / "stalled").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(stop)
    out, err = process.communicate(timeout=60)
    assert out == ""
    (project.folder / "stalls").unlink()
    return process.returncode, err, project.parts()


def resumes(cli, project, earned: list[str]) -> None:
    assert 0 < len(earned) < 12
    with Ledger.open(project.folder / "assay-ledger") as book:
        assert book.verify() > 0
    calm = cli("run", "--json", "--ledger", "calm")
    again = cli("run", "--json")
    assert (calm.code, again.code) == (0, 0)
    assert without_time(again.json["evidence"]) == without_time(calm.json["evidence"])
    assert again.json["claims"] == calm.json["claims"]
    assert project.parts()[: len(earned)] == earned
    assert len(set(project.parts())) == len(project.parts()) == 12


def test_ctrl_c_exits_130_and_is_resumed(cli, project) -> None:
    bumpy(project)
    code, err, earned = interrupted(project, signal.SIGINT)
    assert code == 130
    assert err == "\ninterrupted; what was earned is in the ledger, and the same command resumes\n"  # below the ^C
    resumes(cli, project, earned)


def test_kill_9_is_resumed(cli, project) -> None:
    bumpy(project)
    code, err, earned = interrupted(project, signal.SIGKILL)
    assert (code, err) == (-9, "")
    resumes(cli, project, earned)


def test_a_line_torn_by_a_crash_is_cut_off(cli, project) -> None:
    calm = cli("run", "--json")
    book = project.folder / "assay-ledger" / "ledger.jsonl"
    whole = book.read_bytes()
    book.write_bytes(whole[: whole.rindex(b'{"seq"') + 40])
    again = cli("run", "--json")
    assert again.json == calm.json
    assert cli("verify").code == 0


def test_two_runs_do_not_write_one_ledger(cli, project) -> None:
    with Ledger.open(project.folder / "assay-ledger"):
        refused(cli("run"), "LGR102", 2, "assay-ledger")


def test_a_reader_that_went_away_is_no_error(project) -> None:
    command = " ".join(f"'{part}'" for part in project.command("list", "--json"))
    found = subprocess.run(["bash", "-c", f"{command} | head -c 1; exit ${{PIPESTATUS[0]}}"], cwd=project.folder,
                           capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "[", "")


def test_a_report_that_cannot_be_written_loses_no_evidence(cli, project) -> None:
    said = cli("run", "--json", "--out", "net.py")
    assert said.code == 2
    assert "CFG108  cannot write net.py/report.html" in said.err
    assert [claim["verdict"] for claim in json.loads(said.out)["claims"]] == ["proven"]
    assert cli("check", "--json").code == 0
