"""Other tools' logs read as runs: real ones of lm-eval, and shapes of vLLM's and inspect_ai's."""

from __future__ import annotations

import copy
import gzip
import json
import math
import shutil
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import fairway
from fairway import comparable
from fairway.cli import app
from fairway.errors import FairwayError, InputError, ProtocolError
from fairway.logs import detect, untrusted
from fairway.logs.prompts import begin
from fairway.normalise import lm_eval_wikitext
from fairway.protocol import PAGE
from fairway.record import key
from fairway.scores import Score

HERE = Path(__file__).parent / "data" / "logs"
FLOAT32, BFLOAT16 = HERE / "lm_eval" / "float32", HERE / "lm_eval" / "bfloat16"
TEXTS = [
    "Once upon a time a café stood by the sea.",
    "The committee met on Tuesday,\nand nobody spoke. 日本語 🙂 end",
    "plain words",
]


def samples(task: str, folder: Path = FLOAT32) -> Path:
    (path,) = folder.glob(f"samples_{task}_*.jsonl")
    return path


def results(folder: Path = FLOAT32) -> dict[str, Any]:
    (path,) = folder.glob("results_*.json")
    return dict(json.loads(path.read_text("utf-8")))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read(path: Path) -> Any:
    found = detect.read(path)
    assert found is not None
    return found


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


# lm-eval


@pytest.mark.parametrize("folder", [FLOAT32, BFLOAT16], ids=lambda path: path.name)
@pytest.mark.parametrize("task", ["local_wikitext", "local_texts"])
def test_figures_are_those_that_lm_eval_printed(task: str, folder: Path) -> None:
    _, report, records = read(samples(task, folder))
    printed = results(folder)["results"][task]
    for name in ("bits_per_byte", "byte_perplexity", "word_perplexity"):
        assert report.metrics[name] == pytest.approx(printed[f"{name},none"], rel=1e-9), name
    assert report.totals.documents == len(records) == printed["sample_len"]
    assert report.signature["model"] == "stories260K"
    assert report.signature["dtype"] == folder.name
    assert report.signature["length"] == "512"
    assert report.signature["source"] == "lm-eval-0.4.13"
    assert math.isnan(report.metrics["perplexity"]) and report.reasons["perplexity"]
    pairs = [
        (-one["byte_perplexity"][0], one["byte_perplexity"][1])
        for one in lines(samples(task, folder))
    ]
    rate = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
    error = math.sqrt(4 / 3 * sum((a - rate * b) ** 2 for a, b in pairs)) / sum(b for _, b in pairs)
    high = (rate + 3.182446305284263 * error) / math.log(2)  # Student's t, 3 degrees of freedom
    assert report.intervals["bits_per_byte"].high == pytest.approx(high, rel=1e-9)
    assert "perplexity" not in report.intervals
    assert any("half precision" in note for note in report.notes) == (folder == BFLOAT16)


def test_pages_are_paired_by_the_text_that_was_scored() -> None:
    _, report, records = read(samples("local_wikitext"))
    assert report.signature["norm"] == "lm-eval-wikitext"
    for row, kept in zip(lines(samples("local_wikitext")), records, strict=True):
        page = row["doc"]["page"]
        wanted = fairway_document(lm_eval_wikitext(page), {PAGE: page})
        assert kept.key == key(wanted)


def fairway_document(text: str, metadata: dict[str, Any] | None = None, context: str = "") -> Any:
    from fairway.corpus import Document

    return Document("x", text, context, metadata=metadata or {})


def test_continuations_are_scored_after_their_context() -> None:
    _, report, records = read(samples("local_last_word"))
    rows = lines(samples("local_last_word"))
    mine = [float(row["filtered_resps"][0][0]) for row in rows]
    printed = results()["results"]["local_last_word"]["perplexity,none"]
    # lm-eval's perplexity of such a task is per continuation.
    assert math.exp(-math.fsum(mine) / len(mine)) == pytest.approx(printed, rel=1e-12)
    assert report.totals.nll == pytest.approx(-math.fsum(mine), rel=1e-15)
    assert report.totals.bytes == sum(len(row["doc"]["word"].encode()) for row in rows)
    for row, kept in zip(rows, records, strict=True):
        document = fairway_document(row["doc"]["word"], context=row["doc"]["context"])
        assert kept.key == key(document)


def test_of_choices_the_right_one_counts(tmp_path: Path) -> None:
    _, report, records = read(samples("local_choice"))
    rows = lines(samples("local_choice"))
    for row, kept in zip(rows, records, strict=True):
        assert kept.totals.nll == -float(row["resps"][row["doc"]["gold"]][0][0])
        assert kept.totals.bytes == len((" " + row["doc"]["choices"][row["doc"]["gold"]]).encode())
    # acc_mutual_info asks for the choices once more, without context.
    row = rows[3]
    for i in range(3):
        choice = row["arguments"][f"gen_args_{i}"]["arg_1"]
        row["arguments"][f"gen_args_{i + 3}"] = {"arg_0": "", "arg_1": choice}
        row["filtered_resps"].append(["-1.0", "False"])
    rows[0]["target"] = "Lily"
    rows[1]["target"] = "[0, 1]"
    path = write(tmp_path / samples("local_choice").name, rows)
    _, changed, kept = read(path)
    assert [one.totals for one in kept] == [records[i].totals for i in (0, 2, 3)]
    assert changed.skipped_total == 1 and "[0, 1]" in changed.skipped_rows[0]["reason"]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("task", ["local_texts", "local_choice", "local_last_word"])
def test_older_shapes_give_the_same(task: str, whole: bool, tmp_path: Path) -> None:
    """Until 0.4.2 arguments were lists and numbers were numbers, in one JSON list per file."""
    rows = lines(samples(task))
    for row in rows:
        row["arguments"] = [list(one.values()) for one in row["arguments"].values()]
        row["resps"] = json.loads(json.dumps(row["resps"]), parse_float=float)
        row["filtered_resps"] = [
            [float(one[0]), one[1] == "True"] if isinstance(one, list) else float(one)
            for one in row["filtered_resps"]
        ]
    if whole:
        path = tmp_path / f"pretrained__stories_{task}.jsonl"
        path.write_text(json.dumps(rows, indent=2), "utf-8")
    else:
        path = write(tmp_path / samples(task).name, rows)
    _, report, records = read(path)
    _, wanted, before = read(samples(task))
    assert [one.totals for one in records] == [one.totals for one in before]
    assert [one.key for one in records] == [one.key for one in before]
    assert report.signature["model"] == "unknown"
    assert any("no results_*.json" in note for note in report.notes)
    assert wanted.signature["model"] == "stories260K"


def test_a_folder_or_its_results_stand_for_their_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 tasks or dates; name one: .*local_choice"):
        detect.read(FLOAT32)
    folder = tmp_path / "out" / "model"
    folder.mkdir(parents=True)
    (found,) = FLOAT32.glob("results_*.json")
    shutil.copy(found, folder)
    shutil.copy(samples("local_texts"), folder)
    for path in (folder, folder.parent, folder / found.name):
        assert read(path)[1].data == "local_texts"
    assert detect.read(tmp_path / "none") is None


def test_damaged_results_are_named(tmp_path: Path) -> None:
    shutil.copy(samples("local_texts"), tmp_path)
    (found,) = FLOAT32.glob("results_*.json")
    (tmp_path / found.name).write_text('{"config": ', "utf-8")
    with pytest.raises(InputError, match="results_.*: it is not JSON"):
        read(tmp_path / samples("local_texts").name)
    (tmp_path / found.name).write_text('{"config": 5, "max_length": "x", "configs": []}', "utf-8")
    assert read(tmp_path / samples("local_texts").name)[1].signature["length"] == "unknown"
    shown = results()
    shown["n-samples"]["local_texts"]["effective"] = 9
    (tmp_path / found.name).write_text(json.dumps(shown), "utf-8")
    notes = read(tmp_path / samples("local_texts").name)[1].notes
    assert any("count 9 samples, and the log has 4" in note for note in notes)


def test_without_text_pages_are_paired_by_hash(tmp_path: Path) -> None:
    paths = []
    for folder in (FLOAT32, BFLOAT16):
        rows = lines(samples("local_texts", folder))
        for row in rows:
            row["doc"] = row["target"] = row["arguments"]["gen_args_0"]["arg_0"] = None
        (tmp_path / folder.name).mkdir()
        paths.append(write(tmp_path / folder.name / samples("local_texts", folder).name, rows))
    found = fairway.compare(paths[0], paths[1])
    whole = fairway.compare(samples("local_texts"), samples("local_texts", BFLOAT16))
    assert found.byte.value == pytest.approx(whole.byte.value, rel=1e-12)
    assert any("paired by their doc_hash" in one for one in found.warnings)
    assert not any("doc_hash" in one for one in whole.warnings)
    report = read(paths[0])[1]
    assert math.isnan(report.metrics["bits_per_char"]) and report.totals.chars == 0
    with pytest.raises(InputError, match="is scored in"):
        fairway.compare(paths[0], samples("local_texts"))


def test_logs_are_compared_and_shown_from_the_command_line() -> None:
    a, b = str(samples("local_texts")), str(samples("local_texts", BFLOAT16))
    out = run("compare", a, b, "--json")
    assert out.exit_code == 0, out.output
    found = json.loads(out.stdout)
    left, right = (read(Path(one))[1].metrics["bits_per_byte"] for one in (a, b))
    assert found["bits_per_byte"]["difference"] == pytest.approx(right - left, rel=1e-9)
    assert found["nll_per_token"] == {}
    assert any("does not record tok, prefix, digest" in one for one in found["warnings"])
    assert any("dtypes differ" in one for one in found["warnings"])
    assert not any("versions" in one or "tokenizers" in one for one in found["warnings"])
    shown = run("show", a)
    assert shown.exit_code == 0
    assert "1.3162" in shown.stdout and "not in the log" in shown.stdout
    assert "tokens not counted" in shown.stdout and "cite as" in shown.stdout
    for form in ("--json", "--md", "--csv", "--latex", "--explain"):
        out = run("show", a, form)
        assert out.exit_code == 0 and out.stdout, form
    assert run("show", a, b).exit_code == 0


def test_what_is_shown_keeps_the_contract() -> None:
    import jsonschema

    schema = json.loads(
        (Path(fairway.__file__).parent / "data" / "report.schema.json").read_text("utf-8")
    )
    for task in ("local_texts", "local_choice"):
        jsonschema.validate(json.loads(run("show", str(samples(task)), "--json").stdout), schema)


@pytest.mark.parametrize("task", ["local_wikitext", "local_texts"])
def test_a_run_like_lm_eval_equals_the_log(task: str, stories: str, tmp_path: Path) -> None:
    if task == "local_wikitext":
        data = tmp_path / "wikitext-2" / "wiki.test.raw"
        data.parent.mkdir()
        pages = [row["page"] for row in lines(HERE / "tasks" / "pages.jsonl")]
        data.write_text("\n".join(pages), "utf-8")
        corpus = {"split": "wikitext"}
    else:
        data, corpus = HERE / "tasks" / "texts.jsonl", {}
    report = fairway.evaluate(
        stories, data, like="lm-eval", dtype="float32", out=tmp_path / "run", corpus=corpus
    )
    _, theirs, _ = read(samples(task))
    for name in ("bits_per_byte", "byte_perplexity", "word_perplexity", "bits_per_char"):
        assert report.metrics[name] == pytest.approx(theirs.metrics[name], rel=1e-6), name
    for first, second in (
        (tmp_path / "run", samples(task)),
        (samples(task), tmp_path / "run"),
    ):
        found = fairway.compare(first, second)
        assert found.byte.documents == 4 and abs(found.byte.value) < 1e-6
        assert found.word is not None and found.token is None
        assert not found.allowed
    out = run("compare", str(tmp_path / "run"), str(samples(task)))
    assert out.exit_code == 0 and "the same numbers up to rounding" in " ".join(out.stdout.split())


@pytest.mark.parametrize("task", ["local_last_word", "local_choice"])
def test_continuations_equal_a_run_with_contexts(task: str, stories: str, tmp_path: Path) -> None:
    """Continuations follow one BOS there, where rolling texts of the same model follow two."""
    rows = []
    for row in lines(samples(task)):
        asked = row["arguments"][f"gen_args_{row['doc'].get('gold', 0)}"]
        rows.append({"context": asked["arg_0"], "text": asked["arg_1"]})
    data = write(tmp_path / "rows.jsonl", rows)
    fairway.evaluate(
        stories, data, like="lm-eval", prefix="bos", dtype="float32", out=tmp_path / "run",
        corpus={"context_field": "context"},
    )  # fmt: skip
    found = fairway.compare(tmp_path / "run", samples(task))
    assert found.byte.documents == len(rows)
    assert abs(found.byte.value) < 1e-6 and found.word is None


def test_another_convention_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    rows = [{"text": row["target"]} for row in lines(samples("local_texts"))]
    data = write(tmp_path / "texts.jsonl", rows)
    fairway.evaluate("builtin", data, out=tmp_path / "run")
    for order in (
        (tmp_path / "run", samples("local_texts")),
        (samples("local_texts"), tmp_path / "run"),
    ):
        with pytest.raises(ProtocolError, match="Evaluate run again with --like lm-eval"):
            fairway.compare(*order)


# vLLM, with numbers of the built-in model in the shapes that vLLM's source has


def spelt(score: Score, place: int) -> str:
    """Spell a token as decoding it alone would: what is part of a character shows as U+FFFD."""
    start, end = score.offsets[place]
    shared = [i for i, (s, e) in enumerate(score.offsets) if s < end and e > start and i != place]
    return "\ufffd" if shared else score.text[start:end]


def entry(score: Score, place: int, rank: int = 7) -> dict[str, Any]:
    return {
        "logprob": float(score.logprobs[place]), "rank": rank, "decoded_token": spelt(score, place)
    }  # fmt: skip


def listed(score: Score, several: bool = False, first: bool = False) -> list[Any]:
    """Write ``prompt_logprobs``: null for BOS, or for the first token where none stood in front."""
    out: list[Any] = [None]
    for place in range(int(not first), len(score)):
        own = {str(int(score.ids[place])): entry(score, place)}
        if several:
            own["90001"] = {"logprob": -0.5, "rank": 1, "decoded_token": "x"}
            own["90002"] = {"logprob": -0.9, "rank": 2, "decoded_token": "y"}
        out.append(own)
    return out


def scores(prefix: str | None = None) -> list[Score]:
    options = {} if prefix is None else {"prefix": prefix}
    return [fairway.score(text, **options) for text in TEXTS]


def completion(score: Score, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": " and", "prompt_logprobs": listed(score, first=True), **more}
    return {"id": "cmpl-1", "object": "text_completion", "model": "org/m", "choices": [choice]}


@pytest.mark.parametrize("shape", ["beside", "request", "batch", "output", "echo"])
def test_every_shape_of_vllm_gives_the_sums(shape: str, tmp_path: Path) -> None:
    rows = []
    for score in scores():
        response = completion(score)
        if shape == "beside":
            rows.append({**response, "prompt": score.text})
        elif shape == "request":
            rows.append({"request": {"prompt": score.text}, "response": response})
        elif shape == "batch":
            body = {"body": {"prompt": score.text}, "response": {"body": response}}
            rows.append({"custom_id": "1", **body})
        elif shape == "echo":
            response["choices"][0]["text"] = score.text
            rows.append(response)
        else:
            rows.append({
                "request_id": "0", "prompt": score.text, "outputs": [],
                "prompt_token_ids": [1, *map(int, score.ids)],
                "prompt_logprobs": listed(score, several=True, first=True),
            })  # fmt: skip
    _, report, records = read(write(tmp_path / "dump.jsonl", rows))
    for score, kept in zip(scores(), records, strict=True):
        assert kept.totals.nll == pytest.approx(score.totals.nll, rel=1e-14)
        assert kept.totals == score.totals.__class__(
            kept.totals.nll, *(getattr(score.totals, n) for n in (
                "tokens", "tokens_skipped", "words", "chars", "bytes", "documents"))
        )  # fmt: skip
        assert kept.key == key(fairway_document(score.text))
    assert report.signature["model"] == ("unknown" if shape == "output" else "org/m")
    assert report.signature.get("bytes") is None


def test_an_unscored_first_token_is_not_counted(tmp_path: Path) -> None:
    plain = scores(prefix="none")
    rows = []
    for score in plain:
        choice = {"index": 0, "text": "", "prompt_logprobs": listed(score)}
        rows.append({"prompt": score.text, "model": "m", "choices": [choice]})
    _, report, records = read(write(tmp_path / "dump.jsonl", rows))
    for score, kept in zip(plain, records, strict=True):
        assert kept.totals.bytes == score.totals.bytes < len(score.text.encode())
        assert kept.totals.tokens_skipped == score.totals.tokens_skipped == 1
    assert any("the first token of 3 texts was not scored" in note for note in report.notes)


def test_without_text_bytes_are_those_of_the_spelling(tmp_path: Path) -> None:
    rows = [completion(score) for score in scores()]
    _, report, records = read(write(tmp_path / "dump.jsonl", rows[:1] + rows[2:]))
    assert report.signature["bytes"] == "tokens"
    assert report.totals.bytes == sum(len(TEXTS[i].encode()) for i in (0, 2))
    assert any("decoded tokens" in note for note in report.notes)
    # Half a character has no known bytes, and then no sum of bytes has a meaning.
    lost = write(tmp_path / "lost.jsonl", rows)
    assert "\ufffd" in json.loads(json.dumps(rows[1]))["choices"][0]["prompt_logprobs"].__str__()
    _, partial, kept = read(lost)
    assert partial.totals.bytes == 0 and all(one.totals.bytes == 0 for one in kept)
    assert partial.metrics["perplexity"] == pytest.approx(
        math.exp(math.fsum(s.totals.nll for s in scores()) / sum(s.totals.tokens for s in scores()))
    )
    assert "1 of 3 texts" in partial.reasons["bits_per_byte"]


def test_the_prompts_token_is_told_apart(tmp_path: Path) -> None:
    score = scores()[0]
    whole = listed(score, several=True, first=True)
    choice = {"index": 0, "text": "", "prompt_logprobs": whole}
    row: dict[str, Any] = {"prompt": score.text, "choices": [choice]}
    path = tmp_path / "dump.jsonl"
    wanted = pytest.approx(score.totals.nll, rel=1e-14)
    assert read(write(path, [row]))[1].totals.nll == wanted
    # Keys sorted by id: the rank beyond the list is the prompt's.
    choice["prompt_logprobs"] = [one and dict(sorted(one.items(), reverse=True)) for one in whole]
    assert read(write(path, [row]))[1].totals.nll == wanted
    # Sorted by rank, and the prompt's among the best: not to be told.
    best = {"logprob": -0.5, "rank": 1, "decoded_token": "x"}
    choice["prompt_logprobs"] = [
        one and {"90001": best, "2": {**next(iter(one.values())), "rank": 2}} for one in whole
    ] * 3
    choice["prompt_logprobs"] = [one for one in choice["prompt_logprobs"] if one]
    with pytest.raises(InputError, match="line 1: which of several tokens.*return_token_ids"):
        read(write(path, [row]))
    choice["prompt_logprobs"] = [None, *choice["prompt_logprobs"][: len(score)]]
    choice["prompt_token_ids"] = [1] + [2] * len(score)
    assert read(write(path, [row]))[1].totals.nll == wanted
    choice["prompt_token_ids"] = [1, 2]
    with pytest.raises(InputError, match="2 token ids"):
        read(write(path, [row]))
    choice["prompt_token_ids"] = [1] + [4] * len(score)
    with pytest.raises(InputError, match="lacks the prompt's own token"):
        read(write(path, [row]))


def echoed(score: Score, made: int = 0, null: bool = True) -> dict[str, Any]:
    first = [("<s>", None)] if null else []
    pairs = first + [(spelt(score, i), float(score.logprobs[i])) for i in range(len(score))]
    pairs += [(" more", -1.0)] * made
    return {
        "model": "m", "choices": [{"text": score.text + " more" * made, "logprobs": {
            "tokens": [t for t, _ in pairs], "token_logprobs": [p for _, p in pairs],
            "top_logprobs": None, "text_offset": [0] * len(pairs)}}],
        "usage": {"prompt_tokens": len(pairs) - made, "completion_tokens": made},
    }  # fmt: skip


@pytest.mark.parametrize("made", [0, 2])
def test_echoed_completions_count_the_prompt_alone(made: int, tmp_path: Path) -> None:
    rows = [echoed(score, made) for score in scores()]
    _, report, records = read(write(tmp_path / "echo.jsonl", rows))
    for score, kept in zip(scores(), records, strict=True):
        assert kept.totals.nll == pytest.approx(score.totals.nll, rel=1e-14)
        assert kept.totals.bytes == len(score.text.encode())
        assert kept.key == key(fairway_document(score.text))
    assert report.totals.tokens == sum(len(score) for score in scores())


def test_a_server_that_does_not_heed_echo_is_found_out(tmp_path: Path) -> None:
    row = echoed(scores()[0], null=False)
    row["usage"] = {"prompt_tokens": 9, "completion_tokens": len(scores()[0])}
    with pytest.raises(InputError, match="did not heed echo"):
        read(write(tmp_path / "echo.jsonl", [row]))
    row["choices"][0]["logprobs"] = None
    with pytest.raises(InputError, match="no log-probabilities of the prompt: ask for"):
        read(write(tmp_path / "echo.jsonl", [row]))


def test_a_dump_and_a_run_compare_where_that_is_allowed(tmp_path: Path) -> None:
    data = write(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    fairway.evaluate("builtin", data, out=tmp_path / "run")
    rows = [{**completion(score), "prompt": score.text} for score in scores()]
    dump = write(tmp_path / "dump.jsonl", rows)
    for order in ((tmp_path / "run", dump), (dump, tmp_path / "run")):
        with pytest.raises(ProtocolError, match="Pass --allow protocol"):
            fairway.compare(*order)
        found = fairway.compare(*order, allow=["protocol"])
        assert abs(found.byte.value) < 1e-6 and found.byte.documents == 3


# inspect_ai


def sample(score: Score, number: int, tokens: bool = True, **more: Any) -> dict[str, Any]:
    content = [
        {"token": spelt(score, i), "logprob": float(score.logprobs[i]), "bytes": None}
        for i in range(len(score)) if score.logprobs[i] == score.logprobs[i]
    ]  # fmt: skip
    total = sum(one["logprob"] for one in content)
    choice = {"message": {"role": "assistant", "content": " a"}, "stop_reason": "max_tokens"}
    if tokens:
        choice["prompt_logprobs"] = {"content": content}  # type: ignore[assignment]
    metadata = {"num_tokens": len(content), "sum_log_probs": total, "perplexity": 1.0}
    return {
        "id": number, "epoch": 1, "input": score.text, "target": "",
        "output": {"model": "m", "choices": [choice]},
        "scores": {"perplexity": {"value": 1.0, "metadata": metadata}}, **more,
    }  # fmt: skip


HEADER = {
    "version": 2, "status": "success",
    "eval": {
        "task": "prose", "model": "vllm-completions/org/m", "dataset": {"name": "prose"},
        "packages": {"inspect_ai": "0.3.250"}, "model_args": {"dtype": "bfloat16"},
    },
}  # fmt: skip


def archive(path: Path, rows: list[Any], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        out.writestr("header.json", json.dumps(HEADER))
        for row in rows:
            out.writestr(f"samples/{row['id']}_epoch_{row['epoch']}.json", json.dumps(row))
    return path


@pytest.mark.parametrize("form", ["eval", "json"])
@pytest.mark.parametrize("prefix", [None, "none"])
def test_inspect_ai_gives_the_sums(form: str, prefix: str | None, tmp_path: Path) -> None:
    made = scores(prefix)
    rows = [sample(score, i) for i, score in enumerate(made)]
    rows.append({**rows[0], "epoch": 2})
    if form == "eval":
        path = archive(tmp_path / "log.eval", rows)
    else:
        path = tmp_path / "log.json"
        path.write_text(json.dumps({**HEADER, "samples": rows}, indent=2), "utf-8")
    _, report, records = read(path)
    for score, kept in zip(made, records, strict=True):
        assert kept.totals.nll == pytest.approx(score.totals.nll, rel=1e-14)
        assert kept.totals.bytes == score.totals.bytes
        assert kept.totals.tokens_skipped == score.totals.tokens_skipped
        assert kept.key == key(fairway_document(score.text))
    assert report.signature["source"] == "inspect_ai-0.3.250"
    assert report.signature["dtype"] == "bfloat16"
    assert any("later epochs" in note for note in report.notes)
    assert run("show", str(path)).exit_code == 0


def test_targets_are_scored_after_their_context(tmp_path: Path) -> None:
    text = "The capital of France is Paris"
    score = fairway.score(text)
    row = sample(score, 1)
    content = row["output"]["choices"][0]["prompt_logprobs"]["content"]
    metadata = {"num_tokens": 2, "sum_log_probs": sum(one["logprob"] for one in content[-2:])}
    row["scores"] = {"target_perplexity": {"value": 1.0, "metadata": metadata}}
    _, report, (kept,) = read(archive(tmp_path / "log.eval", [row]))
    start = int(score.offsets[-2][0])
    assert kept.totals.bytes == len(text[start:]) and report.totals.tokens == 2
    assert kept.key == key(fairway_document(text[start:], context=text[:start]))


def test_sums_without_tokens_give_perplexity_alone(tmp_path: Path) -> None:
    rows = [sample(score, i, tokens=False) for i, score in enumerate(scores())]
    rows[0]["scores"] = {"perplexity": {
        "value": None, "explanation": "No prompt logprobs available. Ensure prompt_logprobs is set"}
    }  # fmt: skip
    _, report, _ = read(archive(tmp_path / "log.eval", rows))
    kept = scores()[1:]
    wanted = math.exp(sum(s.totals.nll for s in kept) / sum(s.totals.tokens for s in kept))
    assert report.metrics["perplexity"] == pytest.approx(wanted, rel=1e-12)
    assert "2 of 2 texts" in report.reasons["bits_per_byte"]
    assert report.skipped_rows[0]["reason"].startswith("No prompt logprobs")


def test_what_inspect_ai_did_not_score_is_refused(tmp_path: Path) -> None:
    row = {"id": 1, "epoch": 1, "input": "x", "scores": {"match": {"value": "C"}}}
    with pytest.raises(InputError, match=r"evaluate with the scorer perplexity\(\)"):
        read(archive(tmp_path / "log.eval", [row]))
    wrong = sample(scores()[0], 1)
    wrong["scores"]["perplexity"]["metadata"]["sum_log_probs"] -= 1
    with pytest.raises(InputError, match="its score says"):
        read(archive(tmp_path / "log.eval", [wrong]))


def test_archives_packed_with_zstandard_are_read(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    rows = [sample(score, i) for i, score in enumerate(scores())]
    parts = {"header.json": HEADER, **{f"samples/{r['id']}_epoch_1.json": r for r in rows}}
    path = tmp_path / "log.eval"
    data, central = b"", b""
    for name, value in parts.items():
        plain = json.dumps(value).encode()
        half = len(plain) // 2
        pack = zstandard.ZstdCompressor().compress
        packed = pack(plain[:half]) + pack(plain[half:])  # frames, as inspect_ai cuts large ones
        crc = zipfile.crc32(plain)  # type: ignore[attr-defined]
        fields = struct.pack("<IIIHH", crc, len(packed), len(plain), len(name), 0)
        central += (
            b"PK\x01\x02" + struct.pack("<HHHHHH", 63, 63, 0, 93, 0, 33) + fields
            + struct.pack("<HHHII", 0, 0, 0, 0, len(data)) + name.encode()
        )  # fmt: skip
        data += b"PK\x03\x04" + struct.pack("<HHHHH", 63, 0, 93, 0, 33) + fields + name.encode()
        data += packed
    end = struct.pack("<HHHHIIH", 0, 0, len(parts), len(parts), len(central), len(data), 0)
    path.write_bytes(data + central + b"PK\x05\x06" + end)
    _, report, _ = read(path)
    assert report.totals.bytes == sum(len(text.encode()) for text in TEXTS)


# files that nobody should trust

GOOD = samples("local_texts").read_text("utf-8").splitlines()


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(GOOD[0]), **values})


NAME = samples("local_texts").name
BAD: list[tuple[str, bytes | str, str]] = [
    (NAME, GOOD[0][:50], "line 1: it is not JSON"),
    (NAME, GOOD[0] + "\n" + GOOD[1][:50], "line 2: it is not JSON"),
    (NAME, b"\xff\xfe\x00", "line 1: it is not UTF-8"),
    (NAME, "[" * 100_000, "nested too deeply"),
    (NAME, "[1]", "entry 1: the sample is 1 and not an object"),
    (NAME, "", "holds nothing that was scored: it holds no sample"),
    (NAME, "{}", "'arguments' is None and not a list"),
    (NAME, changed(arguments=None), "'arguments' is None and not a list"),
    (NAME, changed(arguments={"gen_args_0": 5}), "is 5 and not an object"),
    (NAME, changed(filtered_resps=None), "'filtered_resps' is None and not a list"),
    (NAME, changed(filtered_resps=[]), "1 requests and 0 answers"),
    (NAME, changed(filtered_resps=[[]]), r"the log-likelihood is \[\] and not a number"),
    (NAME, changed(filtered_resps=["x"]), "is 'x' and not a number"),
    (NAME, changed(filtered_resps=[math.nan]), "is nan, of which no finite"),
    (NAME, changed(filtered_resps=["-inf"]), "is -inf, of which no finite"),
    (NAME, changed(filtered_resps=[3.5]), "is 3.5, and no log-probability is above 0"),
    (NAME, changed(filtered_resps=[True]), "is True and not a number"),
    (NAME, changed(filtered_resps=[-(10**400)]), "is inf, of which no finite"),
    (NAME, GOOD[0].replace("-14.41164779663086", "1" * 5000), "too many digits|not a number"),
    (NAME, changed(byte_perplexity=[-1, "x"]), "is 'x' and not a count"),
    (NAME, changed(byte_perplexity=[-1, -5]), "is -5 and not a count"),
    (NAME, changed(filtered_resps=["0.0"]), "every log-likelihood is exactly 0"),
    ("samples_qa_2026-01-01T00-00-00.jsonl",
     changed(arguments={"gen_args_0": {"arg_0": "q", "arg_1": {"until": []}}}),
     "'generate_until', which has no log-likelihoods"),
    ("x.jsonl", '{"choices": 5}', "neither a run nor a log"),
    ("x.jsonl", '{"text": "a"}', "neither a run nor a log that is known"),
    ("x.jsonl", '{"choices": [5]}', "a choice is 5 and not an object"),
    ("x.jsonl", '{"prompt_logprobs": 5}', "'prompt_logprobs' is 5 and not a list"),
    ("x.jsonl", '{"prompt_logprobs": [null, {"5": 4}]}', "position 1 is 4 and not an object"),
    ("x.jsonl", '{"prompt_logprobs": [null, {}]}', "position 1 is empty"),
    ("x.jsonl", '{"prompt_logprobs": [null, null]}', "position 1 has no log-probability"),
    ("x.jsonl", '{"prompt_logprobs": [null, {"5": {"logprob": NaN}}]}', "is nan"),
    ("x.jsonl", '{"prompt_logprobs": [null, {"5": {}}]}', "is None and not a number"),
    ("x.jsonl", '{"prompt_logprobs": [null]}', "no token but the first"),
    ("x.jsonl", '{"prompt_logprobs": null}', "ask for prompt_logprobs"),
    ("x.jsonl", '{"choices": [{"logprobs": {"token_logprobs": [null, -1], "tokens": ["a"]}}]}',
     "1 tokens and 2 log-probabilities"),
    ("x.jsonl", "{\"choices\": []}\n{", "line 2: it is not JSON"),
    ("x.eval", b"PK\x03\x04 broken", "the archive is damaged"),
    ("x.eval", b"nothing", "it is not JSON"),
    ("x.json", '{"eval": {}, "status": "success", "samples": 5}', "'samples' is 5 and not a list"),
    ("x.json", '{"eval": {}, "status": "success"}', "it holds no sample"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD)
@pytest.mark.parametrize("command", ["show", "compare"])
def test_damage_is_said_in_a_sentence(
    name: str, content: bytes | str, message: str, command: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as problem:
        if command == "show":
            read(path)
        else:
            comparable.read(path)
    said = str(problem.value)
    assert said.startswith(str(path)) and said.endswith((".", "?")) and len(said) < 600


def test_the_command_line_says_it_with_exit_code_2(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / NAME
    path.write_text(GOOD[0] + "\n{", "utf-8")
    out = subprocess.run(
        [sys.executable, "-m", "fairway", "show", str(path)], capture_output=True, text=True
    )
    assert out.returncode == 2 and "line 2: it is not JSON" in out.stderr
    assert "Traceback" not in out.stderr


def test_truncated_archives_are_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "log.eval", [sample(scores()[0], 1)]).read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 10):
        path = tmp_path / "cut.eval"
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="the archive is damaged"):
            read(path)
    flipped = bytearray(whole)
    place = whole.index(b"samples/1_epoch_1.json") + 200
    flipped[place : place + 20] = bytes(20)
    (tmp_path / "cut.eval").write_bytes(flipped)
    with pytest.raises(InputError, match="cannot be unpacked|not JSON|not UTF-8"):
        read(tmp_path / "cut.eval")


def test_packing_that_inspect_ai_has_not_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "log.eval", [sample(scores()[0], 1)], zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match="packed by method 14"):
        read(path)


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairway.logs import inspect_ai

    monkeypatch.setattr(inspect_ai, "MOST", 1 << 16)
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("header.json", json.dumps(HEADER))
        out.writestr("samples/1_epoch_1.json", b" " * (1 << 24))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(InputError, match="unpacks to over 65,536 bytes"):
        read(path)
    monkeypatch.setattr(inspect_ai, "TOTAL", 100)
    with pytest.raises(InputError, match="samples unpack to over 100 bytes"):
        read(archive(tmp_path / "log.eval", [sample(scores()[0], 1)]))
    monkeypatch.setattr(untrusted, "LINE", 100)
    with pytest.raises(InputError, match="line 1: it has more than 100 bytes"):
        read(samples("local_texts"))


def test_names_from_a_log_are_harmless(tmp_path: Path) -> None:
    row = {**completion(scores()[0]), "model": "\x1b[31mred\n" + "x" * 999, "prompt": TEXTS[0]}
    path = write(tmp_path / "dump.jsonl", [row])
    for words in (["show", str(path)], ["show", str(path), "--md"]):
        out = run(*words)
        assert out.exit_code == 0 and "\x1b" not in out.stdout


def test_what_is_no_log_is_left_to_the_reader_of_runs(tmp_path: Path) -> None:
    fairway.evaluate("builtin", TEXTS, out=tmp_path / "run")
    for path in (tmp_path / "run", tmp_path / "run" / "report.json"):
        assert detect.read(path) is None
        assert run("show", str(path)).exit_code == 0
    other = tmp_path / "x.bin"
    other.write_bytes(gzip.compress(b"x"))
    assert detect.read(other) is None


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["choices", "prompt_logprobs", "logprobs", "tokens", "token_logprobs",
                         "doc_id", "filtered_resps", "arguments", "target", "5", "logprob", "rank",
                         "decoded_token", "prompt", "response", "eval", "status", "samples",
                         "scores", "metadata", "num_tokens", "sum_log_probs", "output"]),
        inner, max_size=5),
    max_leaves=20))  # fmt: skip
def test_nothing_but_our_own_errors_comes_out(value: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in ("x.jsonl", "x.json", NAME):
            path = Path(folder) / name
            path.write_text(json.dumps(value), "utf-8")
            try:
                detect.read(path)
            except FairwayError as problem:
                assert str(path) in str(problem)


def spots(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [] if not before else [before]
    if isinstance(value, dict | list):
        for name, one in inner:
            found += spots(one, (*before, name)) if isinstance(one, dict | list) else [
                (*before, name)
            ]  # fmt: skip
    return found


@cache
def sound() -> list[tuple[str, Any]]:
    score = scores()[0]
    return [
        (NAME, json.loads(GOOD[0])),
        (samples("local_choice").name, lines(samples("local_choice"))[1]),
        ("x.jsonl", {**completion(score), "prompt": score.text}),
        ("x.jsonl", echoed(score, 2)),
        ("x.json", {**HEADER, "samples": [sample(score, 1)]}),
    ]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4), st.data())
def test_one_wrong_value_is_never_a_traceback(kind: int, data: Any) -> None:
    import tempfile

    name, row = copy.deepcopy(sound()[kind])
    spot = data.draw(st.sampled_from(spots(row)))
    holder = row
    for part in spot[:-1]:
        holder = holder[part]
    wrong = st.sampled_from(
        [None, True, "", "x", "\ud800", -1, 1 << 70, 1e308, math.nan, [], {}, [[]]]
    )
    holder[spot[-1]] = data.draw(wrong)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(json.dumps(row), "utf-8")
        try:
            found = detect.read(path)
        except FairwayError as problem:
            assert str(path) in str(problem)
        else:
            if found is not None:
                json.dumps(found[1].to_json(), allow_nan=False).encode("utf-8")


# tokens over a text

CHARS = st.text(st.sampled_from(list("ab é日🙂\n  ")), max_size=30)


@given(CHARS, st.data())
def test_tokens_find_their_place(text: str, data: Any) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    tokens = [text[a:b] for a, b in zip(places[:-1], places[1:], strict=True)]
    assert not text or begin(text, tokens) == 0
    if len(tokens) > 1:
        blanks = any(char.isspace() for char in "".join(tokens[1:]))
        wanted = places[1] if blanks else len(text[: places[1]].rstrip())
        assert begin(text, tokens[1:]) == wanted
    # Blanks that a decoder drops do not matter.
    dropped = ["".join(one.split()) for one in tokens]
    assert begin(text, dropped) == (0 if any(dropped) else None)
    if any(dropped[1:]):
        found = begin(text, dropped[1:])
        assert found is not None
        assert "".join(text[found:].split()) == "".join(dropped[1:])
        assert found == 0 or not text[found - 1].isspace()


def test_lost_characters_are_bridged() -> None:
    text = "日本 is far 🙂 away"
    assert begin(text, ["\ufffd", "\ufffd", "本", " is", " far", " \ufffd", "\ufffd", " away"]) == 0
    assert begin(text, [" is", " far", "\ufffd\ufffd", "away"]) == 2
    assert begin(text, ["\ufffd", " far", "\ufffd\ufffd", "away"]) is None
    assert begin(text, ["far", "\ufffd", "x"]) is None
    assert begin("aaaaaaaa 🙂", ["aa", "\ufffd"]) == 6
    assert begin(text, ["other"]) is None and begin(text, []) is None
