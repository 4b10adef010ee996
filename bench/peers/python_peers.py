"""PyTorch's scaled_dot_product_attention or ONNX Runtime's Attention, one thread, speaking serve.hpp's lines.

    python python_peers.py torch|onnxruntime
"""

import sys
import time

import numpy as np


def numbers(n, seed):
    """Uniform in [-1, 1), the same as serve.hpp's fill: x_i = a^i x_0 + c (1 + a + … + a^(i−1)) mod 2^32."""
    start = np.uint32((seed * 2654435761 + 1) % 2**32)
    powers = np.full(n + 1, 1664525, np.uint32)
    powers[0] = 1
    powers = np.cumprod(powers, dtype=np.uint32)
    sums = np.cumsum(powers[:-1], dtype=np.uint32)
    states = powers[1:] * start + np.uint32(1013904223) * sums
    return states.view(np.int32).astype(np.float32) * np.float32(2.0**-31)


# torch_peers(call), onnxruntime_peers(call): {name: function}. What it returns goes through its `ordered`, if it has
# one, to become an array [heads, len, dim]: that is for `sample` alone and is not timed.


class Call:
    def __init__(self, words):
        self.heads_q, self.heads_kv, self.q_len, self.kv_len, self.dim = map(int, words[:5])
        self.causal, self.storage = words[5] == "1", words[6]
        self.q_shape = (1, self.heads_q, self.q_len, self.dim)
        self.kv_shape = (1, self.heads_kv, self.kv_len, self.dim)

    def inputs(self):
        shapes = [self.q_shape, self.kv_shape, self.kv_shape]
        return [numbers(int(np.prod(shape)), seed).reshape(shape) for seed, shape in enumerate(shapes, 1)]


def torch_peers(call):
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    kind = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}[call.storage]
    q, k, v = (torch.from_numpy(x).to(kind) for x in call.inputs())
    grouped = {"enable_gqa": True} if call.heads_q != call.heads_kv else {}
    attend = torch.nn.functional.scaled_dot_product_attention
    name = "torch_" + ".".join(torch.__version__.split(".")[:2])
    run = lambda: attend(q, k, v, is_causal=call.causal, **grouped)
    run.ordered = lambda out: out.float().numpy()
    return {name: run}


def onnx_graph(call, kind):
    """A graph of the standard's Attention alone (opset 23)."""
    from onnx import TensorProto, helper

    element = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}[kind]
    node = helper.make_node("Attention", ["q", "k", "v"], ["out"], is_causal=int(call.causal))
    values = [helper.make_tensor_value_info(name, element, shape)
              for name, shape in [("q", call.q_shape), ("k", call.kv_shape), ("v", call.kv_shape)]]
    out = helper.make_tensor_value_info("out", element, call.q_shape)
    graph = helper.make_graph([node], "attention", values, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def onnx_contrib_graph(call):
    """ONNX Runtime's own MultiHeadAttention, whose kernel is a flash one. q, k, v are [batch, len, heads · dim]."""
    from onnx import TensorProto, helper

    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft",
                            num_heads=call.heads_q, unidirectional=int(call.causal))
    wide = call.heads_q * call.dim
    shapes = {"q": call.q_len, "k": call.kv_len, "v": call.kv_len, "out": call.q_len}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, n, wide)) for name, n in shapes.items()}
    out = values.pop("out")
    graph = helper.make_graph([node], "attention", list(values.values()), [out])
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def onnxruntime_peers(call):
    import onnxruntime

    if call.storage == "bfloat16":
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    version = ".".join(onnxruntime.__version__.split(".")[:2])
    kind = np.float16 if call.storage == "half" else np.float32
    inputs = [x.astype(kind) for x in call.inputs()]

    def session(model):
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    all_peers = {}
    try:
        plain = session(onnx_graph(call, kind))
        feed = dict(zip("qkv", inputs))
        all_peers[f"onnxruntime_{version}"] = lambda: plain.run(None, feed)[0]
    except Exception as error:  # an operator that this version does not have
        print(f"onnxruntime: {error}", file=sys.stderr)
    if kind == np.float32 and call.heads_q == call.heads_kv:
        own = session(onnx_contrib_graph(call))
        flat = {name: np.ascontiguousarray(x[0].transpose(1, 0, 2)).reshape(1, x.shape[2], -1)
                for name, x in zip("qkv", inputs)}
        # The result is [1, len, heads · dim].
        heads = (call.q_len, call.heads_q, call.dim)
        run = lambda: own.run(None, flat)[0]
        run.ordered = lambda out: out.reshape(heads).transpose(1, 0, 2)
        all_peers[f"onnxruntime_{version}_mha"] = run
    return all_peers


def main():
    prepare = {"torch": torch_peers, "onnxruntime": onnxruntime_peers}[sys.argv[1]]
    peers = {}
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "quit":
            break
        answer = ""
        if word == "shape":
            peers = prepare(Call(rest))
            for run in peers.values():
                run()
            answer = " ".join(peers)
        elif word == "run":
            run, calls = peers[rest[0]], int(rest[1])
            start = time.process_time()
            for _ in range(calls):
                run()
            answer = str((time.process_time() - start) / calls)
        elif word == "sample":
            run = peers[rest[0]]
            out = getattr(run, "ordered", lambda x: x)(run()).ravel()
            answer = " ".join(str(float(out[i * (out.size - 1) // 60])) for i in range(61))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
