"""Conventions fitted to models: what is refused, what overrides, which tokens are scored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway import Document
from fairway.errors import ProtocolError
from fairway.normalise import lm_eval_pages, lm_eval_wikitext, rows
from fairway.protocol import (
    CONVENTIONS,
    PAGE,
    Plan,
    Tokenizing,
    convention,
    normaliser,
    prepare,
    resolve,
)

LLAMA = Tokenizing(bos=1, eos=2, adds=(1,), positions=4096)
GPT2 = Tokenizing(bos=9, eos=9, adds=(), positions=1024)
QWEN = Tokenizing(bos=None, eos=7, adds=(), positions=4096)
BYTES = Tokenizing(bos=None, eos=None, adds=(), positions=None)


def plan(name: str, facts: Tokenizing = LLAMA, **settings: object) -> Plan:
    return resolve(convention(name), facts, **settings)  # type: ignore[arg-type]


# What is refused


def test_an_unknown_convention_names_the_known() -> None:
    with pytest.raises(ProtocolError) as problem:
        convention("lm_eval")
    assert "'lm_eval'" in str(problem.value)
    assert all(name in str(problem.value) for name in CONVENTIONS)


@pytest.mark.parametrize(
    ("name", "facts", "settings", "reason"),
    [
        ("gptq", GPT2, {}, "max_length 2048 is what gptq needs, .* at most 1024 positions"),
        ("paloma", GPT2, {}, "max_length 2048 is what paloma needs"),
        ("llama.cpp", Tokenizing(1, 2, (), 256), {}, "512 is what llama.cpp needs"),
        ("fairway", GPT2, {"max_length": 2000}, "max_length 2000 was asked for"),
        ("fairway", GPT2, {"stride": 2000}, "stride 2000 must lie between 1 and"),
        ("fairway", GPT2, {"stride": 0}, "stride 0 must lie between"),
        ("fairway", GPT2, {"max_length": 8, "stride": 9}, "stride 9"),
        ("fairway", GPT2, {"max_length": 1}, "no room for a token to predict"),
        ("lm-eval", GPT2, {"stride": 100}, "lm-eval has disjoint windows"),
        ("gptq", LLAMA, {"stride": 100}, "gptq has disjoint windows"),
        ("llama.cpp", LLAMA, {"stride": 100}, "llama.cpp has disjoint windows"),
        ("hf-evaluate", LLAMA, {"stride": 100}, "does not cut texts"),
        ("fairway", GPT2, {"prefix": "begin"}, "'begin' is not a prefix policy"),
        ("fairway", QWEN, {"prefix": "bos"}, "has no BOS token"),
        ("fairway", BYTES, {"prefix": "eos"}, "has no EOS token"),
        ("lm-eval", BYTES, {}, "lm-eval needs a BOS or EOS token"),
        ("paloma", BYTES, {}, "has no EOS token"),
    ],
)
def test_refusals_say_why(
    name: str, facts: Tokenizing, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ProtocolError, match=reason):
        plan(name, facts, **settings)


@pytest.mark.parametrize(
    ("name", "tokens", "reason"),
    [
        ("llama.cpp", 1023, r"two chunks \(1024 tokens\), and the text has 1023"),
        ("gptq", 2047, "one row of 2048 tokens, and the text has 2047"),
        ("hf-evaluate", 4096, "does not cut texts, and a text of 4096 tokens exceeds"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(name: str, tokens: int, reason: str) -> None:
    fitted = plan(name)
    with pytest.raises(ProtocolError, match=reason):
        fitted.cut(tokens)
    assert fitted.cut(tokens + 1 if name != "hf-evaluate" else tokens - 1)


# What each gives by itself, and what overrides it


@pytest.mark.parametrize(
    ("name", "facts", "prefix", "leading", "length", "stride"),
    [
        ("fairway", LLAMA, (1,), (), 2048, 1024),
        ("fairway", GPT2, (9,), (), 1024, 512),
        ("fairway", QWEN, (7,), (), 2048, 1024),
        ("fairway", BYTES, (), (), 2048, 1024),
        ("hf-doc", LLAMA, (), (1,), 4096, 512),
        ("hf-doc", GPT2, (), (), 1024, 512),
        ("hf-doc", Tokenizing(1, 2, (), 100), (), (), 100, 100),
        ("hf-evaluate", LLAMA, (1,), (), None, None),
        ("hf-evaluate", QWEN, (), (), None, None),
        ("lm-eval", LLAMA, (1,), (1,), 4096, 4096),
        ("lm-eval", QWEN, (7,), (), 4096, 4096),
        ("lm-eval", Tokenizing(1, 2, (), None, 1024), (1,), (), 1024, 1024),
        ("lm-eval", Tokenizing(1, 2, (), None), (1,), (), 2048, 2048),
        ("llama.cpp", LLAMA, (1,), (1,), 512, 512),
        ("llama.cpp", GPT2, (), (), 512, 512),
        ("gptq", LLAMA, (), (1,), 2048, 2048),
        ("paloma", LLAMA, (2,), (), 2048, 2048),
    ],
)
def test_defaults(
    name: str,
    facts: Tokenizing,
    prefix: tuple[int, ...],
    leading: tuple[int, ...],
    length: int | None,
    stride: int | None,
) -> None:
    fitted = plan(name, facts)
    assert (fitted.prefix, fitted.leading) == (prefix, leading)
    assert (fitted.max_length, fitted.stride) == (length, stride)


@pytest.mark.parametrize("name", [n for n in CONVENTIONS if n != "hf-evaluate"])
def test_a_given_length_overrides_and_is_signed(name: str) -> None:
    fitted = plan(name, max_length=300)
    assert fitted.max_length == 300 and fitted.fields()["length"] == 300
    assert fitted.fields() != plan(name).fields()
    for window in fitted.cut(2000):
        assert window.end - window.begin - 1 + len(fitted.prefix) * window.prefix <= 300


@pytest.mark.parametrize("name", list(CONVENTIONS))
@pytest.mark.parametrize("policy", ["bos", "eos", "none"])
def test_a_given_prefix_overrides_and_is_signed(name: str, policy: str) -> None:
    fitted = plan(name, prefix=policy)
    assert fitted.prefix == {"bos": (1,), "eos": (2,), "none": ()}[policy]
    signed = str(fitted.fields()["prefix"])
    assert signed == policy
    windows = fitted.cut(4090)
    # A prefix that is signed is read: at least by the first window.
    assert windows[0].prefix or policy == "none"


def test_a_given_prefix_never_doubles_the_tokenizers_own() -> None:
    for name in CONVENTIONS:
        fitted = plan(name, prefix="bos")
        # llama.cpp's stands over the first token, which is the tokenizer's.
        assert not fitted.leading or fitted.cut(4090)[0].begin == 1
        assert not fitted.doubled


def test_a_given_stride_overrides_and_is_signed() -> None:
    for name in ("fairway", "hf-doc", "hf-doc-as-published"):
        assert plan(name, stride=100).fields()["stride"] == 100
        assert plan(name, stride=100).cut(5000) != plan(name).cut(5000)


def test_the_longest_text_that_hf_evaluate_takes_can_be_lowered() -> None:
    fitted = plan("hf-evaluate", max_length=10)
    assert fitted.cut(9)
    with pytest.raises(ProtocolError, match="the 10 positions there are"):
        fitted.cut(10)


def test_fields_tell_the_conventions_apart() -> None:
    seen = {}
    for name in CONVENTIONS:
        fields = plan(name).fields()
        assert fields.pop("protocol") == name
        seen[name] = tuple(sorted((k, str(v)) for k, v in fields.items()))
    assert len(set(seen.values())) == len(seen)
    assert plan("lm-eval").fields()["prefix"] == "bos-doubled"
    assert plan("lm-eval", GPT2).fields()["prefix"] == "bos"
    assert plan("hf-evaluate").fields()["length"] == "all"
    assert plan("hf-doc").fields()["join"] == "blank-line"
    assert plan("llama.cpp").fields()["windows"] == "second-halves"
    assert plan("lm-eval").fields()["bytes"] == "lm-eval"
    assert plan("fairway").fields()["bytes"] is None


# Which tokens are scored

lengths = st.integers(3, 40).flatmap(
    lambda length: st.tuples(st.just(length), st.integers(1, length))
)
models = st.sampled_from([LLAMA, GPT2, QWEN])


@given(st.sampled_from(list(CONVENTIONS)), models, lengths, st.integers(0, 300))
def test_each_token_is_scored_at_most_once_and_as_claimed(
    name: str, facts: Tokenizing, size: tuple[int, int], tokens: int
) -> None:
    length, stride = size
    like = convention(name)
    settings: dict[str, object] = {} if like.windowing == "single" else {"max_length": length}
    if like.windowing == "rolling":
        settings["stride"] = stride
    fitted = plan(name, facts, **settings)
    least = {"second_halves": 2 * length, "rows": length}.get(like.windowing, 0)
    if tokens < least:
        with pytest.raises(ProtocolError):
            fitted.cut(tokens)
        return
    windows = fitted.cut(tokens)
    scored = [index for w in windows for index in range(w.score_from, w.end)]
    assert scored == sorted(set(scored))
    assert set(scored) == claimed(like.windowing, tokens, length, stride, bool(fitted.prefix))
    for window in windows:
        # Something is read before what is scored.
        assert window.score_from > window.begin or window.prefix
        read = window.end - 1 - window.begin + len(fitted.prefix) * window.prefix
        assert like.windowing == "single" or read <= length


def claimed(windowing: str, tokens: int, length: int, stride: int, prefix: bool) -> set[int]:
    """The tokens that a convention says it scores, worked out one by one."""
    everything = set(range(tokens))
    if windowing == "single":
        return everything if prefix else everything - {0}
    if windowing == "harness":
        return everything
    if windowing == "second_halves":
        whole = tokens - tokens % length
        return {i for i in range(whole) if i % length > length // 2}
    if windowing == "rows":
        return {i for i in range(tokens - tokens % length) if i % length}
    if prefix:
        return everything
    return {i for i in everything if i % length} if stride == length else everything - {0}


@given(st.integers(2, 40), st.integers(1, 200))
def test_harness_windows_read_as_much_as_lm_eval_does(length: int, tokens: int) -> None:
    windows = plan("lm-eval", max_length=length).cut(tokens)
    for number, window in enumerate(windows):
        read = window.end - 1 - window.begin + window.prefix
        if number:
            # Filled up with earlier tokens; the prefix is read only at the start.
            assert read == length and not window.prefix
        else:
            assert window.prefix and window.begin == 0


# What becomes of a corpus


def documents(*texts: str) -> list[Document]:
    return [Document(str(number), text) for number, text in enumerate(texts)]


def test_documents_stay_apart_where_a_convention_does_not_join() -> None:
    kept = documents("a\n\nb", "c\n")
    for name in ("fairway", "hf-evaluate", "lm-eval", "paloma"):
        assert list(prepare(convention(name), kept)) == kept


def test_rows_are_joined_by_blank_lines() -> None:
    for name in ("hf-doc", "hf-doc-as-published", "gptq"):
        (joined,) = prepare(convention(name), documents("a\n", "", "b"))
        assert joined.text == "a\n\n\n\n\nb"
        (alone,) = prepare(convention(name), documents(" \n = A = \n \n text\x0b \u2028 on \n"))
        assert alone.text == "\n\n = A = \n\n\n\n\n text\x0b \u2028 on \n"


def test_llama_cpp_reads_the_file_without_its_last_newline() -> None:
    (alone,) = prepare(convention("llama.cpp"), documents("a\n\nb\n\n"))
    assert alone.text == "a\n\nb\n"
    (joined,) = prepare(convention("llama.cpp"), documents("a", "b"))
    assert joined.text == "a\nb"
    assert list(prepare(convention("llama.cpp"), [])) == []


def test_rows_of_the_data_set() -> None:
    assert rows("a\n \n\nb\u2028c\rd") == ["a\n", "", "", "b\u2028c\rd"]
    assert rows("") == []


@given(st.text(alphabet="a =\n", max_size=60))
def test_pages_hold_the_whole_text(text: str) -> None:
    pages = [page for _, page in lm_eval_pages([("x", text)])]
    whole = text if text.endswith("\n") else text + "\n"
    assert "\n".join(pages).strip() == whole.strip()
    again = [page for _, page in lm_eval_pages([("x", "\n".join(pages))])]
    assert again == pages


def test_pages_are_cut_detokenised_and_counted_as_they_were() -> None:
    text = " \n = A = \n \n 1 @,@ 5 ( x ) . \n \n = B = \n \n text , more . \n"
    like = convention("lm-eval")
    first, second = prepare(like, documents(text), wikitext=True)
    assert first.metadata[PAGE] == " = A = \n \n 1 @,@ 5 ( x ) . \n "
    assert first.text == lm_eval_wikitext(str(first.metadata[PAGE]))
    assert "1,5 (x)." in first.text
    assert str(second.metadata[PAGE]).endswith("more . \n")
    assert normaliser(like, True) == "lm-eval-wikitext"
    assert normaliser(like, False) is None
    assert normaliser(convention("paloma"), True) is None
    # Not a user's field of that name.
    (kept,) = prepare(like, [Document("x", "text", metadata={"page": 7})])
    assert PAGE not in kept.metadata
