#!/usr/bin/env python3
"""Makes tests/golden/layers/*.safetensors: each layer kind computed by torch.nn, as the numbers ours must repeat.

A file holds one case: metadata `layer` (the layer of the job spec, as JSON) and `training`; tensors `input`, `state.*`
(before), `output`, `output_gradient`, `gradient.input`, `gradient.*` of the parameters, and `after.*` of the buffers.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = pathlib.Path(__file__).resolve().parent / "layers"


def encoder(**arguments):
    return nn.TransformerEncoderLayer(batch_first=True, **arguments)


def batch_norm(module):
    def make(num_features, momentum=0.1, **arguments):
        return module(num_features, momentum=None if momentum == -1 else momentum, **arguments)

    return make


def softmax(dim=-1):
    return nn.Softmax(dim=dim)


# Case, kind, module, arguments as in a job spec, shape of the input, in training.
CASES = [
    ("linear", "linear", nn.Linear, {"in_features": 5, "out_features": 3}, (4, 5), True),
    ("linear_no_bias", "linear", nn.Linear, {"in_features": 5, "out_features": 3, "bias": False}, (2, 3, 5), True),
    ("conv_2d", "conv_2d", nn.Conv2d, {"in_channels": 3, "out_channels": 4, "kernel_size": 3}, (2, 3, 6, 7), True),
    ("conv_2d_all", "conv_2d", nn.Conv2d, {"in_channels": 4, "out_channels": 6, "kernel_size": [3, 2], "stride": [2, 1],
     "padding": [1, 2], "dilation": [1, 2], "groups": 2, "bias": False}, (2, 4, 9, 8), True),
    ("embedding", "embedding", nn.Embedding, {"num_embeddings": 7, "embedding_dim": 4}, (3, 5), True),
    ("embedding_padding", "embedding", nn.Embedding,
     {"num_embeddings": 7, "embedding_dim": 4, "padding_idx": 2}, (3, 5), True),
    ("layer_norm", "layer_norm", nn.LayerNorm, {"normalized_shape": [6]}, (3, 4, 6), True),
    ("layer_norm_two", "layer_norm", nn.LayerNorm, {"normalized_shape": [4, 6], "eps": 0.01, "bias": False},
     (3, 4, 6), True),
    ("layer_norm_plain", "layer_norm", nn.LayerNorm, {"normalized_shape": [6], "elementwise_affine": False},
     (3, 6), True),
    ("batch_norm_1d", "batch_norm_1d", batch_norm(nn.BatchNorm1d), {"num_features": 4}, (5, 4), True),
    ("batch_norm_1d_long", "batch_norm_1d", batch_norm(nn.BatchNorm1d),
     {"num_features": 4, "momentum": 0.3, "eps": 0.01, "affine": False}, (3, 4, 5), True),
    ("batch_norm_1d_cumulative", "batch_norm_1d", batch_norm(nn.BatchNorm1d), {"num_features": 4, "momentum": -1},
     (5, 4), True),
    ("batch_norm_1d_evaluation", "batch_norm_1d", batch_norm(nn.BatchNorm1d), {"num_features": 4}, (5, 4), False),
    ("batch_norm_2d", "batch_norm_2d", batch_norm(nn.BatchNorm2d), {"num_features": 3}, (2, 3, 4, 5), True),
    ("batch_norm_2d_untracked", "batch_norm_2d", batch_norm(nn.BatchNorm2d),
     {"num_features": 3, "track_running_stats": False}, (2, 3, 4, 5), False),
    ("dropout_evaluation", "dropout", nn.Dropout, {}, (3, 4), False),
    ("dropout_all", "dropout", nn.Dropout, {"p": 1.0}, (3, 4), True),
    ("relu", "relu", nn.ReLU, {}, (3, 4), True),
    ("gelu", "gelu", nn.GELU, {}, (3, 4), True),
    ("gelu_tanh", "gelu", nn.GELU, {"approximate": "tanh"}, (3, 4), True),
    ("tanh", "tanh", nn.Tanh, {}, (3, 4), True),
    ("sigmoid", "sigmoid", nn.Sigmoid, {}, (3, 4), True),
    ("softmax", "softmax", softmax, {}, (3, 4, 5), True),
    ("softmax_dim", "softmax", softmax, {"dim": 1}, (3, 4, 5), True),
    ("max_pool_2d", "max_pool_2d", nn.MaxPool2d, {"kernel_size": 2}, (2, 3, 6, 7), True),
    ("max_pool_2d_all", "max_pool_2d", nn.MaxPool2d, {"kernel_size": [3, 2], "stride": [2, 1], "padding": 1,
     "dilation": [1, 2], "ceil_mode": True}, (2, 3, 8, 7), True),
    ("avg_pool_2d", "avg_pool_2d", nn.AvgPool2d, {"kernel_size": 2}, (2, 3, 6, 7), True),
    ("avg_pool_2d_all", "avg_pool_2d", nn.AvgPool2d, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True,
     "count_include_pad": False}, (2, 3, 6, 7), True),
    ("flatten", "flatten", nn.Flatten, {}, (2, 3, 4, 5), True),
    ("flatten_some", "flatten", nn.Flatten, {"start_dim": 2, "end_dim": 3}, (2, 3, 4, 5, 2), True),
    ("transformer", "transformer_encoder_layer", encoder,
     {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "dropout": 0.0}, (2, 5, 8), True),
    ("transformer_all", "transformer_encoder_layer", encoder,
     {"d_model": 8, "nhead": 4, "dim_feedforward": 12, "dropout": 0.0, "activation": "gelu", "layer_norm_eps": 0.001,
      "norm_first": True, "bias": False}, (2, 5, 8), True),
    ("transformer_evaluation", "transformer_encoder_layer", encoder,
     {"d_model": 4, "nhead": 1}, (2, 3, 4), False),
]


def make_input(kind, shape):
    if kind == "embedding":
        return torch.randint(0, 7, shape)
    return torch.randn(shape).requires_grad_()


def compute(kind, make, arguments, shape, training):
    module = make(**arguments).train(training)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():  # Initial values such as 0 and 1 would hide a missing factor.
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor) * 0.5)
    tensors = {f"state.{n}": t.clone() for n, t in module.state_dict().items()}
    value = make_input(kind, shape)
    output = module(value)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    tensors |= {"input": value.detach(), "output": output.detach(), "output_gradient": gradient}
    if value.grad is not None:
        tensors["gradient.input"] = value.grad
    tensors |= {f"gradient.{n}": p.grad for n, p in module.named_parameters()}
    tensors |= {f"after.{n}": b.clone() for n, b in module.named_buffers()}
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def main():
    FOLDER.mkdir(exist_ok=True)
    for seed, (case, kind, make, arguments, shape, training) in enumerate(CASES):
        torch.manual_seed(seed)
        metadata = {"layer": json.dumps({kind: arguments}), "training": str(training).lower()}
        save_file(compute(kind, make, arguments, shape, training), FOLDER / f"{case}.safetensors", metadata)


if __name__ == "__main__":
    main()
