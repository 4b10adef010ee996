#pragma once

#include "shapes.hpp"

#include <heed/core/tensor.hpp>

#include <Eigen/Dense>

#if defined(HEED_BENCH_OPENBLAS)
#include <cblas.h>
#endif

/// The honest floor: attention as fifty lines of matrix products, blocked over queries so that hidden keys cost little.

namespace bench {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using rows_view = Eigen::Map<matrix const>;
using rows_map = Eigen::Map<matrix>;

struct eigen_products {
  static void scores(rows_view const& q, rows_view const& k, float scale, rows_map s) {
    s.noalias() = (scale * q) * k.transpose();
  }
  static void values(rows_map const& w, rows_view const& v, rows_map o) { o.noalias() = w * v; }
};

#if defined(HEED_BENCH_OPENBLAS)
/// Of the calling thread alone, once `openblas_set_num_threads(1)` has been called.
struct openblas_products {
  static int size(Eigen::Index n) { return static_cast<int>(n); }
  static void scores(rows_view const& q, rows_view const& k, float scale, rows_map s) {
    int const dim = size(q.cols()), ld = size(s.cols());
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size(s.rows()), ld, dim, scale, q.data(), dim, k.data(), dim,
                0, s.data(), ld);
  }
  static void values(rows_map const& w, rows_view const& v, rows_map o) {
    int const dim = size(v.cols()), ld = size(w.cols());
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size(w.rows()), dim, ld, 1, w.data(), ld, v.data(), dim, 0,
                o.data(), dim);
  }
};
#endif

/// Per block of queries S = Q·Kᵀ over the keys that any of them sees, softmax of each row's own keys, then S·V.
/// `block` queries at a time, or as many as are quickest.
/// q [heads_q, q_len, dim], k and v [heads_kv, kv_len, dim], out as q, all contiguous.
template <class Products>
void composed_attention(shape const& call, visible sees, heed::view<float const, 3> q, heed::view<float const, 3> k,
                        heed::view<float const, 3> v, heed::view<float, 3> out, std::vector<float>& scratch,
                        heed::index block = 0) {
  // The best of 64, 128 and 256 for both libraries on the machine of the README's numbers; others cost 2–40 % more.
  heed::index const best = call.q_len <= 128 && sees != visible::full ? 64 : 128;
  heed::index const most = block > 0 ? block : best, dim = call.dim;
  float const scale = 1 / std::sqrt(static_cast<float>(dim));
  scratch.resize(static_cast<std::size_t>(most * call.kv_len));
  for (heed::index h = 0; h < call.heads_q; ++h) {
    heed::index const g = h / (call.heads_q / call.heads_kv);
    for (heed::index first = 0; first < call.q_len; first += most) {
      heed::index const rows = std::min(most, call.q_len - first);
      heed::index const begin = call.begin(sees, first), keys = call.end(sees, first + rows - 1) - begin;
      rows_map s(scratch.data(), rows, keys);
      Products::scores(rows_view(&q(h, first, 0), rows, dim), rows_view(&k(g, begin, 0), keys, dim), scale, s);
      for (heed::index i = 0; i < rows; ++i) {
        heed::index const lo = call.begin(sees, first + i) - begin, n = call.end(sees, first + i) - begin - lo;
        auto row = s.row(i).segment(lo, n).array();
        row = (row - row.maxCoeff()).exp();
        row *= 1 / row.sum();
        s.row(i).head(lo).setZero();
        s.row(i).tail(keys - lo - n).setZero();
      }
      Products::values(s, rows_view(&v(g, begin, 0), keys, dim), rows_map(&out(h, first, 0), rows, dim));
    }
  }
}

}  // namespace bench
