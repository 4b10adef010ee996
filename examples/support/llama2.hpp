#pragma once

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

/// Reads a model in the "legacy" float32 format of llama2.c.
///
///     int32: dim, hidden, layers, heads_q, heads_kv, vocabulary, train_len  (vocabulary < 0: with an output matrix)
///     float: embedding, the layers' tensors one kind after the other, final norm, two unused tables, [output]

namespace example {

/// A file that is missing or not what it should be; the message is one line that names it.
struct file_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using weight_matrix = Eigen::Map<matrix const>;  // [outputs, inputs]
using weight_row = Eigen::Map<Eigen::RowVectorXf const>;

/// A whole file in memory.
/// @throws file_error
inline std::vector<char> read_file(std::string const& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::streamoff const size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  // A folder opens, and then claims an absurd size.
  if (size < 0 || size > std::streamoff{1} << 40)
    throw file_error("cannot read " + path);
  std::vector<char> bytes(static_cast<std::size_t>(size));
  file.seekg(0);
  if (!file.read(bytes.data(), size))
    throw file_error("cannot read " + path);
  return bytes;
}

struct llama2_shape {
  std::int32_t dim, hidden, layers, heads_q, heads_kv, vocabulary, train_len;

  Eigen::Index head_dim() const { return dim / heads_q; }
  Eigen::Index kv_dim() const { return head_dim() * heads_kv; }
};

struct llama2_layer {
  weight_row attention_norm;     // [dim]
  weight_matrix wq, wk, wv, wo;  // [dim, dim], [kv_dim, dim], [kv_dim, dim], [dim, dim]
  weight_row feed_forward_norm;  // [dim]
  weight_matrix w1, w2, w3;      // [hidden, dim], [dim, hidden], [hidden, dim]
};

class llama2 {
 public:
  /// @throws file_error
  explicit llama2(std::string const& path);
  llama2(llama2 const&) = delete;  // the maps point into floats_
  llama2& operator=(llama2 const&) = delete;

  llama2_shape const& shape() const { return shape_; }
  std::vector<llama2_layer> const& layers() const { return layers_; }
  weight_matrix embedding() const { return {floats_.data(), shape_.vocabulary, shape_.dim}; }
  weight_row final_norm() const { return {final_norm_, shape_.dim}; }
  weight_matrix output() const { return {output_, shape_.vocabulary, shape_.dim}; }

 private:
  static llama2_shape read_shape(std::vector<char> const& bytes, std::string const& path, bool& tied);
  std::int64_t find_tensors();

  llama2_shape shape_{};
  std::vector<float> floats_;
  std::vector<llama2_layer> layers_;
  float const* final_norm_ = nullptr;
  float const* output_ = nullptr;
};

inline llama2_shape llama2::read_shape(std::vector<char> const& bytes, std::string const& path, bool& tied) {
  llama2_shape s{};
  if (bytes.size() < sizeof s)
    throw file_error(path + " is not a llama2.c model: it has " + std::to_string(bytes.size()) + " bytes");
  std::copy_n(bytes.data(), sizeof s, reinterpret_cast<char*>(&s));
  tied = s.vocabulary > 0;
  if (!tied && s.vocabulary > -(1 << 24))
    s.vocabulary = -s.vocabulary;
  // Far beyond any such model, and small enough that no product below overflows 64 bits.
  auto const plausible = [](std::int32_t n, std::int32_t most) { return 0 < n && n <= most; };
  bool const sound = plausible(s.dim, 1 << 16) && plausible(s.hidden, 1 << 18) && plausible(s.layers, 1 << 10) &&
                     plausible(s.heads_q, s.dim) && plausible(s.heads_kv, s.heads_q) &&
                     plausible(s.vocabulary, 1 << 24) && plausible(s.train_len, 1 << 24) && s.dim % s.heads_q == 0 &&
                     s.heads_q % s.heads_kv == 0 && s.head_dim() % 2 == 0;
  if (!sound)
    throw file_error(path + " is not a llama2.c model: its header makes no sense");
  return s;
}

/// Walks through the tensors in the file's order and returns how many floats they are without the output matrix.
/// Computes addresses only: nothing is read.
inline std::int64_t llama2::find_tensors() {
  auto const& s = shape_;
  std::int64_t at = std::int64_t{s.vocabulary} * s.dim;
  auto const take = [&](std::int64_t rows, std::int64_t cols) {  // one kind of tensor, all layers
    std::int64_t const begin = at;
    at += s.layers * rows * cols;
    return [begin, rows, cols, base = floats_.data()](std::int64_t layer) {
      return weight_matrix(base + begin + layer * rows * cols, rows, cols);
    };
  };
  auto const attention_norm = take(1, s.dim);
  auto const wq = take(s.dim, s.dim), wk = take(s.kv_dim(), s.dim), wv = take(s.kv_dim(), s.dim);
  auto const wo = take(s.dim, s.dim);
  auto const feed_forward_norm = take(1, s.dim);
  auto const w1 = take(s.hidden, s.dim), w2 = take(s.dim, s.hidden), w3 = take(s.hidden, s.dim);
  std::int64_t const final_norm = at;
  at += s.dim + std::int64_t{s.train_len} * s.head_dim();  // the norm; cos and sin tables, which heed needs no file for
  if (floats_.empty())
    return at;

  auto const row = [](weight_matrix const& m) { return weight_row(m.data(), m.cols()); };
  for (std::int64_t l = 0; l < s.layers; ++l)
    layers_.push_back(
        {row(attention_norm(l)), wq(l), wk(l), wv(l), wo(l), row(feed_forward_norm(l)), w1(l), w2(l), w3(l)});
  final_norm_ = floats_.data() + final_norm;
  output_ = at < static_cast<std::int64_t>(floats_.size()) ? floats_.data() + at : floats_.data();
  return at;
}

inline llama2::llama2(std::string const& path) {
  std::vector<char> const bytes = read_file(path);
  bool tied = true;
  shape_ = read_shape(bytes, path, tied);
  std::int64_t const floats = find_tensors() + (tied ? 0 : std::int64_t{shape_.vocabulary} * shape_.dim);
  std::int64_t const expected = static_cast<std::int64_t>(sizeof shape_) + 4 * floats;
  if (static_cast<std::int64_t>(bytes.size()) != expected)
    throw file_error(path + " is damaged: its header asks for " + std::to_string(expected) + " bytes, it has " +
                     std::to_string(bytes.size()));
  floats_.resize(static_cast<std::size_t>(floats));
  std::copy_n(bytes.data() + sizeof shape_, 4 * floats, reinterpret_cast<char*>(floats_.data()));
  if (!Eigen::Map<Eigen::ArrayXf const>(floats_.data(), floats).allFinite())
    throw file_error(path + " is damaged: it holds numbers that are not finite");
  find_tensors();
}

}  // namespace example
