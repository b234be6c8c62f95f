"""Bird-MAE in its smaller sizes, against the transformer of PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bacpipe.models.families import birdmae
from bacpipe.models.loading import load_model
from tests.models import parity

# Keys of a block in the authors' files, and in PyTorch's layer.
_NAMES = {
    "attn.qkv.": "self_attn.in_proj_",
    "attn.proj.": "self_attn.out_proj.",
    "mlp.fc1.": "linear1.",
    "mlp.fc2.": "linear2.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
}


def by_pytorch(state: dict[str, Tensor], x: Tensor, *, depth: int, heads: int) -> Tensor:
    """Embeddings of spectrograms (n, 1, 512, 128)."""
    patches = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 16)
    tokens = torch.cat([state["cls_token"].expand(len(x), -1, -1), patches.flatten(2).mT], dim=1)
    tokens = tokens + state["pos_embed"]
    width = tokens.shape[2]
    for i in range(depth):
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        layer.load_state_dict(
            {
                f"{theirs}{kind}": state[f"blocks.{i}.{ours}{kind}"]
                for ours, theirs in _NAMES.items()
                for kind in ("weight", "bias")
            }
        )
        tokens = layer(tokens)
    mean = tokens[:, 1:].mean(dim=1)
    return F.layer_norm(mean, (width,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6)


@pytest.mark.parametrize(
    ("name", "width", "size"), [("birdmae_base", 768, (12, 12)), ("birdmae_large", 1024, (24, 16))]
)
def test_embeddings_are_those_of_pytorch(
    name: str, width: int, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert birdmae.SIZES[width] == size
    heads = size[1]
    monkeypatch.setitem(birdmae.SIZES, width, (2, heads))
    shapes = {
        key: tuple(width * n // 1280 if n % 1280 == 0 else n for n in entry["shape"])
        for key, entry in parity.manifest("birdmae")["tensors"].items()
        if not key.startswith("blocks.") or key.split(".")[1] in "01"
    }
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(shape, generator=generator) / 20 for key, shape in shapes.items()}
    path = tmp_path / name / "model.safetensors"
    path.parent.mkdir()
    save_file(state, path)
    model = load_model(name, device="cpu", model_base_path=tmp_path)
    with torch.inference_mode():
        x = model.preprocess(parity.windows("birdmae"))
        embeddings = model(x)
        expected = by_pytorch(state, x, depth=2, heads=heads)
    assert embeddings.shape == (3, model.card.dim)
    torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-5)
