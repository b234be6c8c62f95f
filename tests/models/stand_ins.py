"""Small models with the signatures, names, shapes and class lists of the real ones.

What they compute can be said in a line of NumPy: embeddings are mean squares of equal parts of
a window, logits are samples of the window.  `expected` computes the same without TensorFlow
and ONNX.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

N_BIRDNET_V3 = 11560
N_REEF = 38
WHALES = (
    *("Oo", "Mn", "Eg", "Be", "Bp", "Bm", "Ba"),
    *("Upcall", "Call", "Gunshot", "Echolocation", "Whistle"),
)

N_YAMNET = 521


class Expected(NamedTuple):
    embeddings: np.ndarray
    scores: np.ndarray | None


def powers(windows: np.ndarray, parts: int) -> np.ndarray:
    """Mean squares of equal parts of windows; what is left over at the end is ignored."""
    length = windows.shape[1] // parts
    return np.square(windows[:, : parts * length].reshape(len(windows), parts, length)).mean(2)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def perch_loudness(windows: np.ndarray) -> np.ndarray:
    centered = windows - windows.mean(1, keepdims=True)
    peak = np.abs(centered).max(1, keepdims=True)
    return 0.25 * np.divide(centered, peak, out=np.zeros_like(centered), where=peak > 0)


def _perch(windows: np.ndarray, n_classes: int) -> Expected:
    x = perch_loudness(windows)
    return Expected(powers(x, 1280), sigmoid(20 * x[:, :n_classes]))


def _perch_v2(windows: np.ndarray) -> Expected:
    x = perch_loudness(windows)
    return Expected(powers(x, 1536), softmax(20 * x[:, :14795]))


def _birdnet_v3(windows: np.ndarray) -> Expected:
    parts = powers(windows, 1280)
    with np.errstate(invalid="ignore"):
        embeddings = parts / parts.mean(1, keepdims=True)
    silent = np.isnan(embeddings).any(1)
    scores = sigmoid(20 * windows[:, :N_BIRDNET_V3])
    embeddings[silent] = scores[silent] = 0
    return Expected(embeddings, scores)


def _whale_spectrogram(windows: np.ndarray) -> np.ndarray:
    frames = windows[:, : 128 * 937].reshape(len(windows), 128, 937)[:, :, :896]
    return np.square(frames.reshape(len(windows), 128, 128, 7)).mean(3)


def _google_humpback(windows: np.ndarray) -> Expected:
    frames = np.lib.stride_tricks.sliding_window_view(windows, 1024, axis=1)[:, ::300]
    spectrogram = np.square(frames.reshape(len(windows), 128, 64, 16)).mean(3)
    logits = 100 * spectrogram[:, :, :1].mean(1)
    return Expected(spectrogram.reshape(len(windows), -1)[:, :2048], sigmoid(logits))


def _yamnet(windows: np.ndarray) -> Expected:
    return Expected(powers(windows, 1024), sigmoid(20 * windows[:, :N_YAMNET]))


def _google_whale(windows: np.ndarray) -> Expected:
    spectrogram = _whale_spectrogram(windows)
    logits = 100 * spectrogram[:, :, :12].mean(1)
    return Expected(spectrogram.reshape(len(windows), -1)[:, :1280], sigmoid(logits))


expected: dict[str, Callable[[np.ndarray], Expected]] = {
    "birdnet_v3": _birdnet_v3,
    "google_humpback": _google_humpback,
    "google_whale": _google_whale,
    "hbdet": lambda windows: Expected(powers(np.pad(windows, ((0, 0), (0, 437))), 2048), None),
    "perch_bird": lambda windows: _perch(windows, 10932),
    "perch_v2": _perch_v2,
    "perch_v2_headless": lambda windows: Expected(_perch_v2(windows).embeddings, None),
    "surfperch": lambda windows: _perch(windows, N_REEF),
    "vggish": lambda windows: Expected(powers(windows, 128), None),
    "yamnet": _yamnet,
}
"""What each stand-in gives for windows of shape (n, samples)."""

ONNX_MODELS = ("birdnet_v3", "perch_v2", "perch_v2_headless")
TF_MODELS = (
    *("google_humpback", "google_whale", "hbdet", "perch_bird", "surfperch", "vggish", "yamnet"),
)


def write_list(path: Path, header: str, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[header], *([name] for name in names)])


def build(name: str, base: Path) -> None:
    """Write the stand-in of a model where its checkpoint belongs."""
    folder = base / name
    folder.mkdir(parents=True)
    {
        "birdnet_v3": build_birdnet_v3,
        "google_humpback": build_google_humpback,
        "google_whale": build_google_whale,
        "hbdet": build_hbdet,
        "perch_bird": lambda f: build_perch(f, "label", 10932, "ebird2021"),
        "perch_v2": build_perch_v2,
        "perch_v2_headless": build_perch_v2_headless,
        "surfperch": lambda f: build_perch(f, "reef_label", N_REEF, "reef"),
        "vggish": build_vggish,
        "yamnet": build_yamnet,
    }[name](folder)


# --- ONNX -----------------------------------------------------------------------------------


def _save_onnx(
    path: Path,
    given: tuple[str, list[Any]],
    outputs: dict[str, list[Any]],
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    element: int | None = None,
) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    element = element or TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "stand_in",
        [helper.make_tensor_value_info(given[0], element, given[1])],
        [helper.make_tensor_value_info(name, element, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def build_perch_v2(folder: Path, *, rows: int | str = "batch", labels: int = 14795) -> None:
    from onnx import helper

    def part(source: str, target: str, stop: str) -> Any:
        return helper.make_node("Slice", [source, "zero", stop, "one"], [target])

    nodes = [
        part("inputs", "even", "n_even"),
        helper.make_node("Reshape", ["even", "to_parts"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "two"], ["embedding"], keepdims=0),
        part("inputs", "head", "n_classes"),
        helper.make_node("Mul", ["head", "gain"], ["label"]),
        part("inputs", "grid", "n_grid"),
        helper.make_node("Reshape", ["grid", "to_grid"], ["spatial_embedding"]),
        part("inputs", "frames", "n_frames"),
        helper.make_node("Reshape", ["frames", "to_frames"], ["spectrogram"]),
    ]
    ints = {
        "zero": [0],
        "one": [1],
        "two": [2],
        "n_even": [1536 * 104],
        "to_parts": [-1, 1536, 104],
        "n_classes": [14795],
        "n_grid": [16 * 4 * 1536],
        "to_grid": [-1, 16, 4, 1536],
        "n_frames": [500 * 128],
        "to_frames": [-1, 500, 128],
    }
    constants = {name: np.array(value, np.int64) for name, value in ints.items()}
    constants["gain"] = np.array(20, np.float32)
    outputs: dict[str, list[Any]] = {
        "embedding": [rows, 1536],
        "spatial_embedding": [rows, 16, 4, 1536],
        "spectrogram": [rows, 500, 128],
        "label": [rows, 14795],
    }
    _save_onnx(
        folder / "perch_v2_no_dft.onnx", ("inputs", [rows, 160000]), outputs, nodes, constants
    )
    if labels:
        names = [f"Genus species{i}" for i in range(labels)]
        write_list(folder / "labels.csv", "inat2024_fsd50k", names)


def build_perch_v2_headless(folder: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("Slice", ["inputs", "zero", "n_even", "one"], ["even"]),
        helper.make_node("Reshape", ["even", "to_parts"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "two"], ["embedding"], keepdims=0),
    ]
    ints = {
        "zero": [0],
        "one": [1],
        "two": [2],
        "n_even": [1536 * 104],
        "to_parts": [-1, 1536, 104],
    }
    constants = {name: np.array(value, np.int64) for name, value in ints.items()}
    path = folder / "perch_v2_no_dft_embedding_only.onnx"
    _save_onnx(
        path, ("inputs", ["batch", 160000]), {"embedding": ["batch", 1536]}, nodes, constants
    )


def build_birdnet_v3(folder: Path, *, element: int | None = None) -> None:
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(element) if element else np.dtype(np.float32)
    nodes = [
        helper.make_node("Slice", ["input", "zero", "n_even", "one"], ["even"]),
        helper.make_node("Reshape", ["even", "to_parts"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "two"], ["powers"], keepdims=0),
        helper.make_node("ReduceMean", ["powers", "one"], ["power"], keepdims=1),
        # Silence: 0 / 0.
        helper.make_node("Div", ["powers", "power"], ["embeddings"]),
        helper.make_node("Slice", ["input", "zero", "n_classes", "one"], ["head"]),
        helper.make_node("Mul", ["head", "gain"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["predictions"]),
    ]
    ints = {
        "zero": [0],
        "one": [1],
        "two": [2],
        "n_even": [96000],
        "to_parts": [-1, 1280, 75],
        "n_classes": [N_BIRDNET_V3],
    }
    constants = {name: np.array(value, np.int64) for name, value in ints.items()}
    constants["gain"] = np.array(20, dtype)
    outputs: dict[str, list[Any]] = {
        "embeddings": ["batch", 1280],
        "predictions": ["batch", N_BIRDNET_V3],
    }
    given = ("input", ["batch", "samples"])
    _save_onnx(folder / "model.onnx", given, outputs, nodes, constants, element)
    # With the mark that some editors put at the beginning, as the published one.
    with (folder / "labels.csv").open("w", encoding="utf-8-sig") as file:
        file.write("id;sci_name;com_name;gbif;class;order\n")
        for i in range(N_BIRDNET_V3):
            common = "" if i == 1 else f"Common {i}"
            file.write(f"{i};Genus species{i};{common};{i};Aves;Passeriformes\n")


# --- TensorFlow -----------------------------------------------------------------------------


def _tf_powers(batch: Any, parts: int) -> Any:
    import tensorflow as tf

    length = batch.shape[1] // parts
    cut = tf.reshape(batch[:, : parts * length], (-1, parts, length))
    return tf.reduce_mean(tf.square(cut), axis=2)


def build_perch(
    folder: Path,
    head: str,
    n_classes: int,
    vocabulary: str,
    *,
    rows: int | None = None,
    labels: int | None = None,
    pair: bool = False,
) -> None:
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((rows, 160000), tf.float32, "inputs")])
    def infer_tf(inputs: Any) -> Any:
        logits, embedding = 20 * inputs[:, :n_classes], _tf_powers(inputs, 1280)
        if pair:
            return logits, embedding
        return {
            head: logits,
            "embedding": embedding,
            "family": inputs[:, :249],
            "genus": inputs[:, :2333],
            "order": inputs[:, :41],
        }

    @tf.function(input_signature=[tf.TensorSpec((rows, 160000), tf.float32, "inputs")])
    def serving(inputs: Any) -> Any:
        outputs = infer_tf(inputs)
        return {"output_0": outputs[0], "output_1": outputs[1]} if pair else outputs

    module.infer_tf = infer_tf
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serving})
    n_labels = n_classes if labels is None else labels
    if n_labels:
        names = [f"code{i}" for i in range(n_labels)]
        write_list(folder / f"assets/{head}.csv", vocabulary, names)
        write_list(folder / "assets/genus.csv", f"{vocabulary}_genera", ["turdus", "parus"])


def build_google_whale(folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, None, 1), tf.float32)])
    def front_end(waveform: Any) -> Any:
        frames = tf.signal.frame(waveform[:, :, 0], 937, 937)[:, :, :896]
        shape = tf.shape(frames)
        return tf.reduce_mean(tf.square(tf.reshape(frames, (shape[0], shape[1], 128, 7))), axis=3)

    @tf.function(input_signature=[tf.TensorSpec((None, 128, 128), tf.float32)])
    def features(spectrogram: Any) -> Any:
        return tf.reshape(spectrogram, (-1, 128 * 128))[:, :1280]

    @tf.function(input_signature=[tf.TensorSpec((None, 128, 128), tf.float32)])
    def logits(spectrogram: Any) -> Any:
        return 100 * tf.reduce_mean(spectrogram[:, :, :12], axis=1)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 1), tf.float32, "waveform"),
            tf.TensorSpec((), tf.int64, "context_step_samples"),
        ]
    )
    def score(waveform: Any, context_step_samples: Any) -> Any:
        step = tf.cast(context_step_samples, tf.int32)
        contexts = tf.signal.frame(waveform[:, :, 0], 120000, step, axis=1)
        flat = tf.reshape(contexts, (-1, 120000, 1))
        scores = tf.sigmoid(logits(front_end(flat)))
        return {"score": tf.reshape(scores, (tf.shape(waveform)[0], -1, 12))}

    @tf.function(input_signature=[])
    def metadata() -> Any:
        return {
            "input_sample_rate": tf.constant(24000, tf.int64),
            "context_width_samples": tf.constant(120000, tf.int64),
            "class_names": tf.constant(WHALES),
        }

    module.front_end, module.features, module.logits = front_end, features, logits
    module.score, module.metadata = score, metadata
    tf.saved_model.save(
        module,
        str(folder),
        signatures={"serving_default": score, "score": score, "metadata": metadata},
    )


def build_google_humpback(folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, None, 1), tf.float32)])
    def front_end(waveform: Any) -> Any:
        frames = tf.signal.frame(waveform[:, :, 0], 1024, 300)
        shape = tf.shape(frames)
        return tf.reduce_mean(tf.square(tf.reshape(frames, (shape[0], shape[1], 64, 16))), axis=3)

    @tf.function(input_signature=[tf.TensorSpec((None, 128, 64), tf.float32)])
    def features(spectrogram: Any) -> Any:
        return tf.reshape(spectrogram, (-1, 128 * 64))[:, :2048]

    @tf.function(input_signature=[tf.TensorSpec((None, 128, 64), tf.float32)])
    def logits(spectrogram: Any) -> Any:
        return 100 * tf.reduce_mean(spectrogram[:, :, :1], axis=1)

    @tf.function(input_signature=[])
    def metadata() -> Any:
        return {
            "input_sample_rate": tf.constant(10000, tf.int64),
            "context_width_samples": tf.constant(39124, tf.int64),
            "class_names": tf.constant(["Mn"]),
        }

    module.front_end, module.features, module.logits = front_end, features, logits
    tf.saved_model.save(module, str(folder), signatures={"metadata": metadata})


def build_hbdet(folder: Path, *, output: str = "pool", channels: bool = False) -> None:
    import tensorflow as tf

    module = tf.Module()
    shape = (None, 7755, 1) if channels else (None, 7755)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, "input_1")])
    def serving(input_1: Any) -> Any:
        flat = input_1[:, :, 0] if channels else input_1
        return {output: _tf_powers(tf.pad(flat, ((0, 0), (0, 437))), 2048)}

    module.serving = serving
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serving})


def build_vggish(folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def call(waveform: Any) -> Any:
        # An example needs 0.975 s; a shorter waveform gives none.
        examples = tf.signal.frame(waveform, 15600, 15360)[:, :15360]
        return tf.reduce_mean(tf.square(tf.reshape(examples, (-1, 128, 120))), axis=2)

    module.__call__ = call
    tf.saved_model.save(module, str(folder))


def build_yamnet(folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def call(waveform: Any) -> Any:
        # Examples begin every 0.48 s.
        examples = tf.signal.frame(waveform, 15600, 7680)
        return (
            tf.sigmoid(20 * examples[:, :N_YAMNET]),
            _tf_powers(examples[:, :15360], 1024),
            tf.reshape(waveform[: 64 * 96], (96, 64)),
        )

    module.__call__ = call
    table = folder / "yamnet_class_map.csv"
    with table.open("w", encoding="utf-8") as file:
        file.write("index,mid,display_name\n")
        for i in range(N_YAMNET):
            name = '"Child speech, kid speaking"' if i == 1 else f"Sound {i}"
            file.write(f"{i},/m/{i},{name}\n")
    module.labels = tf.saved_model.Asset(str(table))
    tf.saved_model.save(module, str(folder))
    table.unlink()
