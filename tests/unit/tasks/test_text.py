"""Texts: what is taken, what is cut and said to be cut, how lengths are grouped, and vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtimes import onnx_writer
from tests.unit.tasks.conftest import ROOT, Served, served

from forebay.core.errors import InvalidRequest, Misconfigured, ModelFailed, UnsupportedMedia
from forebay.core.payload import JSON, TEXT, Payload
from forebay.tasks.text_codecs import mean_pool

TOKENIZER = ROOT / "models" / "text_classification" / "1" / "tokenizer.json"
TABLE = np.random.default_rng(7).normal(size=(6500, 4)).astype(np.float32)


def test_a_string_travels_as_plain_text_and_a_pair_as_json(sentences: Served) -> None:
    parse = sentences.task.parse_input
    assert parse("Grüße", sentences.spec) == Payload(media_type=TEXT, data="Grüße".encode())
    assert parse({"text": "a"}, sentences.spec) == Payload(media_type=JSON, data=b'{"text":"a"}')
    pair = {"text_pair": "b", "text": "a"}
    assert parse(pair, sentences.spec) == Payload(media_type=JSON, data=b'{"text":"a","text_pair":"b"}')


def test_the_ways_of_sending_a_text_are_one(sentences: Served) -> None:
    plain, wrapped = sentences.answer(["I love this."]), sentences.answer([{"text": "I love this."}])
    raw = sentences.task.parse_body("I love this.".encode("utf-16"), "text/plain; charset=UTF-16", sentences.spec)
    assert plain == wrapped == sentences.answer_payloads([raw])
    # A record that some other producer put on the queue, in its own encoding.
    foreign = Payload(media_type="text/plain;charset=latin1", data=b"I love this.")
    assert sentences.answer_payloads([foreign]) == plain


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        (3, "invalid_request", ""),
        (["a"], "invalid_request", ""),
        ({"txt": "a"}, "invalid_request", ""),
        ({"text": "a", "more": 1}, "invalid_request", ""),
        ({"text": None}, "invalid_request", ""),
        ("\ud800", "bad_text", ""),
        ({"text": "\udfff"}, "bad_text", "/text"),
        ("a" * 100_001, "text_too_long", ""),
        ({"text": "a", "text_pair": "a" * 100_001}, "text_too_long", "/text_pair"),
    ],
)
def test_what_is_no_text_is_refused(sentences: Served, value: Any, code: str, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sentences.task.parse_input(value, sentences.spec)
    assert (refused.value.code, refused.value.pointer) == (code, pointer)


@pytest.mark.parametrize("charset", ["latin1", "latin-1", "Latin-1", "iso-8859-1"])
def test_latin_1_goes_by_all_of_its_names(sentences: Served, charset: str) -> None:
    payload = sentences.task.parse_body(b"caf\xe9", f"text/plain; charset={charset}", sentences.spec)
    assert payload.data == "café".encode()


def test_a_body_in_an_encoding_that_nobody_knows_is_refused(sentences: Served) -> None:
    parse = sentences.task.parse_body
    for body, media_type in ((b"\xff", TEXT), (b"a", "text/plain; charset=klingon"), (b"a", "text/plain; charset=zip")):
        with pytest.raises(InvalidRequest) as refused:
            parse(body, media_type, sentences.spec)
        assert refused.value.code == "bad_text"
    assert "the charset 'zip' is not known here; send UTF-8" in refused.value.message
    with pytest.raises(UnsupportedMedia):
        parse(b"<p>a", "text/html", sentences.spec)


@settings(deadline=None)
@given(
    data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"text": text}).encode()),
    media_type=st.sampled_from([TEXT, JSON, "text/plain; charset=utf-16", "image/png"]),
)
def test_any_record_is_decoded_or_refused(sentences: Served, data: bytes, media_type: str) -> None:
    try:
        item = sentences.codec.decode(data, media_type, {})
    except InvalidRequest:
        return
    assert 0 < sentences.codec.collate([item])["input_ids"].size <= 256


def test_a_text_that_was_cut_is_said_to_be(sentences: Served) -> None:
    short, long = sentences.answer(["fine " * 254, "fine " * 255], {"top_k": 2})
    assert [entry.get("truncated") for entry in short] == [None, None]
    assert [entry.get("truncated") for entry in long] == [True, True]


def test_only_texts_of_like_length_share_a_bucket(sentences: Served) -> None:
    items = [sentences.codec.decode(("word " * words).encode(), TEXT, {}) for words in range(255)]
    buckets: dict[Any, list[int]] = {}
    for item in items:
        buckets.setdefault(sentences.codec.bucket(item), []).append(len(item.tokens.ids))
    assert len(buckets) <= 14
    assert all(max(lengths) <= 1.5 * min(lengths) for lengths in buckets.values())


def write_encoder(folder: Path, *, toml: str = "", **model: Any) -> Path:
    version = folder / "encoder" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(onnx_writer.encoder(TABLE, **model))
    (version / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "max_position_embeddings": 12}))
    (version.parent / "model.toml").write_text(toml)
    shutil.copy(TOKENIZER, version)
    return folder


def encoder(folder: Path, **more: Any) -> Served:
    return served(write_encoder(folder, **more), "encoder")


def vectors(one: Served, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The rows of the table that the text's tokens choose."""
    found: np.ndarray[Any, np.dtype[np.float32]] = TABLE[one.codec.decode(text.encode(), TEXT, {}).ids]
    return found


TEXTS = ["", "good", "a good day", "quite a good day for this", "word " * 40]


def test_a_text_becomes_the_mean_of_its_token_vectors(tmp_path: Path) -> None:
    one = encoder(tmp_path)
    alone, together = [one.answer([text])[0] for text in TEXTS], one.answer(TEXTS)
    for text, single, batched in zip(TEXTS, alone, together, strict=True):
        assert single["embedding"] == pytest.approx(vectors(one, text).mean(axis=0).tolist(), abs=1e-5)
        assert batched["embedding"] == pytest.approx(single["embedding"], abs=1e-4)
        assert batched["truncated"] is (text == TEXTS[-1])


@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_is_the_operators_choice(tmp_path: Path, normalize: bool) -> None:
    flag = "normalize = true" if normalize else ""
    first = encoder(tmp_path / "cls", toml=f'[options]\npooling = "cls"\n{flag}')
    every = encoder(tmp_path / "none", toml=f'[options]\npooling = "none"\n{flag}')
    expected = vectors(first, "a good day")
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    (cls, _), (none, longer) = first.answer(["a good day", "other"]), every.answer(["a good day", "a good day it is"])
    assert cls["embedding"] == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert np.array(none["embedding"]) == pytest.approx(expected, abs=1e-5)
    assert len(none["embedding"]) == 5  # [CLS], three words, [SEP]; none of the padding
    assert len(longer["embedding"]) == 7


def test_a_model_without_a_mask_gets_texts_of_one_length_at_a_time(tmp_path: Path) -> None:
    one = encoder(tmp_path, masked=False)
    items = [one.codec.decode(text.encode(), TEXT, {}) for text in ("good", "bad", "a good day")]
    assert [one.codec.bucket(item) for item in items] == [3, 3, 5]
    assert list(one.codec.collate(items[:2])) == ["input_ids"]


def test_a_model_of_fixed_length_gets_that_length(tmp_path: Path) -> None:
    one = encoder(tmp_path, length=8)
    batch = one.codec.collate([one.codec.decode(b"good", TEXT, {})])
    assert (batch["input_ids"].shape, batch["attention_mask"].tolist()) == ((1, 8), [[1, 1, 1, 0, 0, 0, 0, 0]])
    short, long = one.answer(["good", "word " * 7])
    assert (short["truncated"], long["truncated"]) == (False, True)


def test_max_length_is_the_least_that_anybody_says(tmp_path: Path) -> None:
    assert len(encoder(tmp_path / "a").codec.decode(b"word " * 40, TEXT, {}).ids) == 12
    assert len(encoder(tmp_path / "b", toml="[options]\nmax_length = 5").codec.decode(b"w " * 40, TEXT, {}).ids) == 5


def test_a_model_that_takes_what_no_tokenizer_gives_is_told(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    (tmp_path / "encoder/1/model.onnx").write_bytes(onnx_writer.doubling(["batch", 3]))
    with pytest.raises(Misconfigured, match="takes an input 'x'"):
        served(tmp_path, "encoder")


def test_a_tokenizer_that_is_none_is_told(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    (tmp_path / "encoder/1/tokenizer.json").write_text("{}")
    with pytest.raises(Misconfigured, match=r"encoder/1/tokenizer\.json cannot be read"):
        served(tmp_path, "encoder")


def test_an_output_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="The model has last_hidden_state; write output"):
        encoder(tmp_path, toml='[options]\noutput = "pooled"')


def test_feature_extraction_takes_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        encoder(tmp_path).codec.decode(b"a", TEXT, {"top_k": 1})
    assert refused.value.pointer == "/parameters"


def test_a_vector_that_is_not_finite_fails_alone(tmp_path: Path) -> None:
    one = encoder(tmp_path)
    items = [one.codec.decode(text.encode(), TEXT, {}) for text in ("good", "bad")]
    hidden = np.ones((2, 3, 4), np.float32)
    hidden[1, 0, 0] = np.nan
    fine, failed = one.codec.encode({"last_hidden_state": hidden}, items)
    assert isinstance(fine, Payload)
    assert isinstance(failed, ModelFailed)
    assert failed.code == "bad_output"
    with pytest.raises(ModelFailed, match="no vector for each text"):
        one.codec.encode({"last_hidden_state": hidden[:1]}, items)


def test_padding_has_no_part_in_a_mean() -> None:
    hidden = np.array([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    assert mean_pool(hidden, np.array([[1.0, 1.0, 0.0]])).tolist() == [[2.0, 3.0]]
    with pytest.raises(InvalidRequest, match="no token"):
        mean_pool(hidden, np.zeros((1, 3)))
