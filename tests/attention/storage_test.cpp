#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/random.hpp"

#include <cstring>

// float, half and bfloat16, each in each place; accuracy against the naive composition.

namespace heed::test {
namespace {

template <class Q, class K, class V, class Out>
void check_mix(char const* name, index q_len) {
  INFO(name << ", q_len " << q_len);
  generator random(91);
  auto const q = normal_tensor<Q, 4>({1, 4, q_len, 40}, random);
  auto const k = normal_tensor<K, 4>({1, 2, 133, 40}, random);
  auto const v = normal_tensor<V, 4>({1, 2, 133, 24}, random);
  tensor<Out, 4> out({1, 4, q_len, 24});
  tensor<double, 4> expected(out.extents());
  attention(q, k, v, out, causal{});
  reference::attention(q, k, v, expected, causal{});
  auto const result = accuracy_of(out, expected, v, reference::scores(q, k, causal{}));
  INFO(result.message());
  CHECK(result.within_bound());
}

template <class T>
void check_naive(index q_len, index kv_len, index dim, bool triangle) {
  generator random(92);
  auto const q = normal_tensor<T, 4>({1, 2, q_len, dim}, random);
  auto const k = normal_tensor<T, 4>({1, 1, kv_len, dim}, random);
  auto const v = normal_tensor<T, 4>({1, 1, kv_len, dim}, random);
  using wide = std::conditional_t<std::same_as<T, double>, long double, double>;
  tensor<T, 4> out({1, 2, q_len, dim});
  tensor<double, 4> expected(out.extents());
  window const all{unbounded, triangle ? 0 : unbounded};
  attention(q, k, v, out, all);
  reference::attention<wide>(q, k, v, expected, all);
  auto const scores = reference::scores<wide>(q, k, all);
  auto const naive = naive_composition<T>(q.view(), k.view(), v.view(), scores);
  auto const result = accuracy_of(out, expected, v, scores, naive);
  INFO("q_len " << q_len << ", kv_len " << kv_len << ", dim " << dim << ", " << result.message());
  CHECK(result.within_bound());
  CHECK(result.within_naive());
}

/// Rows with a layout of their own: 0 row-major, 1 with gaps, 2 column-major, 3 every second channel.
template <class T>
struct stored_rows {
  tensor<T, 4> memory;
  view<T const, 4> rows;

  stored_rows(index heads, index len, index dim, int layout, generator& random)
      : memory(normal_tensor<T, 4>({1, heads, len, 2 * dim + 3}, random)) {
    index const step = layout == 3 ? 2 : 1, ld = layout == 1 ? dim + 3 : step * dim;
    rows = layout == 2 ? view<T const, 4>(memory.data(), {1, heads, len, dim}, {heads * len * dim, len * dim, 1, len})
                       : view<T const, 4>(memory.data(), {1, heads, len, dim}, {heads * len * ld, len * ld, ld, step});
  }
};

/// Every channel count, lengths around the vector and the key block, groups, layouts and windows by turns.
template <class T>
void check_rows() {
  constexpr index dims[] = {1, 2, 3, 8, 16, 40, 59, 64, 111, 128, 192, 256};
  constexpr index w = lanes<arithmetic_t<T>>;
  index const lengths[] = {1, w - 1, w, w + 1, 63, 64, 65, 131};
  using wide = std::conditional_t<std::same_as<T, double>, long double, double>;
  generator random(93);
  int turn = 0;
  for (index dim : dims)
    for (index len : lengths)
      for (index q_len : {1, 2, 21}) {
        index const group = 1 + turn % 4, dim_v = dims[turn % 12];
        int const layout = turn / 5 % 4;
        stored_rows<T> const k(2, len, dim, layout, random), v(2, len, dim_v, layout, random);
        auto const q = normal_tensor<arithmetic_t<T>, 4>({1, 2 * group, q_len, dim}, random);
        tensor<arithmetic_t<T>, 4> out({1, 2 * group, q_len, dim_v});
        tensor<double, 4> expected(out.extents());
        window const seen = turn % 2 == 0 ? window{unbounded, 0} : window{40, 3};
        attention(q, k.rows, v.rows, out, seen);
        reference::attention<wide>(q, k.rows, v.rows, expected, seen);
        auto const result = accuracy_of(out, expected, v.rows, reference::scores<wide>(q, k.rows, seen));
        INFO("q_len " << q_len << ", keys " << len << ", dim " << dim << ", dim_v " << dim_v << ", layout " << layout
                      << ": " << result.message());
        REQUIRE(result.within_bound());
        ++turn;
      }
}

/// A key and a value that the last query alone sees change no bit of the other rows, whatever they are: from their
/// channel `first_bad` on.
template <class T>
void check_hidden_from(float bad, index first_bad, index dim) {
  for (int layout : {0, 2})
    for (index q_len : {2, 3, 24}) {
      generator random(95);
      stored_rows<T> k(1, 90, dim, layout, random), v(1, 90, dim, layout, random);
      auto const q = normal_tensor<arithmetic_t<T>, 4>({1, 2, q_len, dim}, random);
      tensor<arithmetic_t<T>, 4> clean({1, 2, q_len, dim}), poisoned(clean.extents());
      attention(q, k.rows, v.rows, clean, causal{});
      for (stored_rows<T>* x : {&k, &v})
        for (index c = first_bad; c < dim; ++c)
          x->memory.data()[&x->rows(0, 0, 89, c) - x->memory.data()] = round_to<T>(bad);
      attention(q, k.rows, v.rows, poisoned, causal{});
      INFO("layout " << layout << ", q_len " << q_len << ", dim " << dim << ", " << bad << " from " << first_bad);
      int changed = 0, finite = 0;
      for (index h = 0; h < 2; ++h)
        for (index c = 0; c < dim; ++c) {
          for (index i = 0; i + 1 < q_len; ++i)
            changed += std::memcmp(&clean(0, h, i, c), &poisoned(0, h, i, c), sizeof(clean(0, h, i, c))) != 0;
          finite += c >= first_bad && std::isfinite(poisoned(0, h, q_len - 1, c));
        }
      CHECK(changed == 0);
      CHECK(finite == 0);
    }
}

template <class T>
void check_hidden(float bad) {
  for (index dim : {24, 59})
    for (index first_bad : {index{0}, dim - 1})
      check_hidden_from<T>(bad, first_bad, dim);
}

}  // namespace

TEMPLATE_TEST_CASE("Any storage, length, layout and group agrees with the reference, in both paths",
                   "[reference][contract]", float, double, Eigen::half, Eigen::bfloat16) {
  check_rows<TestType>();
}

TEMPLATE_TEST_CASE("Hidden keys and values of any storage change no bit", "[contract][edges]", float, double,
                   Eigen::half, Eigen::bfloat16) {
  check_hidden<TestType>(std::numeric_limits<float>::quiet_NaN());
  check_hidden<TestType>(std::numeric_limits<float>::infinity());
}

TEST_CASE("Storage types mix freely, each in each place", "[reference][contract]") {
  using half = Eigen::half;
  using brain = Eigen::bfloat16;
  for (index q_len : {2, 19, 70}) {
    check_mix<half, float, float, float>("half q", q_len);
    check_mix<float, half, float, float>("half k", q_len);
    check_mix<float, float, half, float>("half v", q_len);
    check_mix<float, float, float, half>("half out", q_len);
    check_mix<brain, float, float, float>("bfloat16 q", q_len);
    check_mix<float, brain, float, float>("bfloat16 k", q_len);
    check_mix<float, float, brain, float>("bfloat16 v", q_len);
    check_mix<float, float, float, brain>("bfloat16 out", q_len);
    check_mix<half, brain, half, brain>("all mixed", q_len);
    check_mix<double, double, double, double>("double", q_len);
  }
}

TEST_CASE("Few rows widen keys and values in registers", "[contract]") {
  generator random(94);
  auto const q = normal_tensor<float, 3>({4, 2, 40}, random);
  auto const k = normal_tensor<Eigen::half, 3>({2, 70, 40}, random);
  auto const v = normal_tensor<Eigen::bfloat16, 3>({2, 70, 24}, random);
  plan const few = explain(q, k, v, causal{});
  CHECK(few.path == path::few_rows);
  CHECK(few.keys == "half widened in registers");
  CHECK(few.values == "bfloat16 widened in registers");
  CHECK(explain(q, q, q).keys == "in place");
  auto const floats = normal_tensor<float, 3>({2, 70, 40}, random);
  CHECK(few.scratch_bytes <= explain(q, floats, floats).scratch_bytes);
  view<Eigen::half const, 3> const columns(k.data(), {2, 70, 40}, {2800, 1, 70});
  CHECK(explain(q, columns, v).keys == "half widened, channel stride 70 gathered, a block at a time");
}

TEST_CASE("Errors are at most twice the naive composition's", "[reference][contract]") {
  for (index q_len : {1, 70})
    for (index kv_len : {70, 513})
      for (index dim : {16, 64})
        for (bool triangle : {false, true}) {
          check_naive<float>(q_len, kv_len, dim, triangle);
          check_naive<double>(q_len, kv_len, dim, triangle);
          check_naive<Eigen::half>(q_len, kv_len, dim, triangle);
          check_naive<Eigen::bfloat16>(q_len, kv_len, dim, triangle);
        }
}

TEMPLATE_TEST_CASE("Heads side by side give the bits of heads one after the other", "[identities]", float, double,
                   Eigen::half) {
  using T = TestType;
  constexpr index kv_len = 530, dim = 24, heads = 2, row = 4096 / static_cast<index>(sizeof(T));
  generator random(97);
  auto const k = normal_tensor<T, 4>({1, heads, kv_len, dim}, random);
  auto const v = normal_tensor<T, 4>({1, heads, kv_len, dim}, random);
  tensor<T, 3> memory[2] = {tensor<T, 3>({kv_len, 1, row}), tensor<T, 3>({kv_len, 1, row})};
  auto const beside = [&](tensor<T, 4> const& x, tensor<T, 3>& to) {
    std::fill_n(to.data(), to.size(), std::numeric_limits<T>::quiet_NaN());
    for (index h = 0; h < heads; ++h)
      for (index j = 0; j < kv_len; ++j)
        std::copy_n(&x(0, h, j, 0), dim, &to(j, 0, h * dim));
    return view<T const, 4>(to.data(), {1, heads, kv_len, dim}, {kv_len * row, dim, row, 1});
  };
  view<T const, 4> const rows[2] = {beside(k, memory[0]), beside(v, memory[1])};
  for (index q_len : {1, 40, 520}) {
    auto const q = normal_tensor<T, 4>({1, heads, q_len, dim}, random);
    tensor<T, 4> out(q.extents()), expected(q.extents());
    attention(q, k, v, expected, causal{});
    attention(q, rows[0], rows[1], out, causal{});
    INFO("q_len " << q_len);
    CHECK(same_bits(out, expected));
    plan const p = explain(q, rows[0], rows[1], causal{});
    bool const copied = q_len == 520 && !std::same_as<T, Eigen::half>;
    CHECK((p.keys == "rows far apart copied, a block at a time") == copied);
    CHECK((p.values == "rows far apart copied, a block at a time") == copied);
  }
}

TEST_CASE("Stores round to nearest even, overflow to infinity, and keep NaN", "[edges][contract]") {
  for (index q_len : {1, 20}) {
    tensor<float, 2> q({q_len, 4}), k({1, 4}), v({1, 5});
    float const values[] = {2049.0f, 2051.0f, 70000.0f, -1e30f, std::numeric_limits<float>::quiet_NaN()};
    std::copy_n(values, 5, v.data());
    tensor<Eigen::half, 2> out({q_len, 5});
    attention(q, k, v, out);
    auto const last = [&](index c) { return static_cast<float>(out(q_len - 1, c)); };
    CHECK(last(0) == 2048);
    CHECK(last(1) == 2052);
    CHECK(last(2) == std::numeric_limits<float>::infinity());
    CHECK(last(3) == -std::numeric_limits<float>::infinity());
    CHECK(std::isnan(last(4)));
    tensor<Eigen::bfloat16, 2> brain({q_len, 5});
    v(0, 0) = 257, v(0, 1) = 259, v(0, 2) = 3.4e38f;
    attention(q, k, v, brain);
    CHECK(static_cast<float>(brain(0, 0)) == 256);
    CHECK(static_cast<float>(brain(0, 1)) == 260);
    CHECK(static_cast<float>(brain(0, 2)) == std::numeric_limits<float>::infinity());
    CHECK(std::isnan(static_cast<float>(brain(q_len - 1, 4))));
  }
}

}  // namespace heed::test
