// One idea: softmax attention is a recurrent network that reads everything again for every token. Its state is dim_v +
// 2 numbers, and a stack of layers needs no cache at all, if one pays in time.

#include <heed/recurrent/constant_space.hpp>

#include <Eigen/Core>

#include <cstdio>

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using row_vector = Eigen::Matrix<double, 1, Eigen::Dynamic>;
using in_row = Eigen::Map<row_vector const>;
using out_row = Eigen::Map<row_vector>;

constexpr Eigen::Index channels = 16, len = 24;

struct layer {
  matrix q = 0.5 * matrix::Random(channels, channels), k = 0.5 * matrix::Random(channels, channels),
         v = matrix::Random(channels, channels);

  heed::constant_space_layer<double> functions() const {
    layer const w = *this;
    return {.dim = channels,
            .dim_v = channels,
            .query = [w](double const* x, double* to) { out_row(to, channels).noalias() = in_row(x, channels) * w.q; },
            .key_value =
                [w](double const* x, double* key, double* value) {
                  out_row(key, channels).noalias() = in_row(x, channels) * w.k;
                  out_row(value, channels).noalias() = in_row(x, channels) * w.v;
                },
            .combine = [](double const* x, double const* attended,
                          double* y) { out_row(y, channels) = in_row(x, channels) + in_row(attended, channels); }};
  }
  matrix whole(matrix const& x) const {  // the usual way: all rows at once, keys and values kept
    matrix const queries = x * q, keys = x * k, values = x * v;
    matrix out(x.rows(), channels);
    heed::attention(queries, keys, values, out, heed::causal{});
    return x + out;
  }
};

int main() {
  matrix const embedding = matrix::Random(len, channels);
  matrix x = embedding;
  std::vector<heed::constant_space_layer<double>> stack;
  bool same = true;
  std::printf("layers   cache, numbers   held, bytes   inner steps for token 24   with a cache   difference\n");
  for (int depth = 1; depth <= 3; ++depth) {
    layer const next;
    x = next.whole(x);
    stack.push_back(next.functions());
    heed::constant_space_stack<double> constant(channels, stack);
    row_vector last(channels);
    constant.evaluate(len - 1, [&](heed::index j) { return embedding.row(j).data(); }, last);
    double const difference = (last - x.row(len - 1)).cwiseAbs().maxCoeff();
    same = same && difference < 1e-12;
    std::printf("%6d %16td %13zu %26td %14td   %.0e\n", depth, 2 * depth * len * channels, constant.memory_bytes(),
                constant.steps(), depth * len, difference);
  }
  std::printf("\n%s. The cache grows with the text; the bytes held here do not. The price is about\n"
              "length^layers / layers! steps a token: a tale of space and time, not a way to serve a model.\n",
              same ? "The same rows" : "NOT the same rows");
  return same ? 0 : 1;
}
