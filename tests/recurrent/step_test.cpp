#include "support/catch.hpp"

#include <heed/position/rerope.hpp>
#include <heed/recurrent/step.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/counting_allocator.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

// recurrent_attention: the same as attention, row by row, with a state that does not grow.

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T>
struct sequence {
  tensor<T, 3> q, k, v;

  sequence(index heads_q, index heads_kv, index n, index dim, index dim_v, std::uint64_t seed = 1) {
    generator random(seed);
    q = normal_tensor<T, 3>({heads_q, n, dim}, random);
    k = normal_tensor<T, 3>({heads_kv, n, dim}, random);
    v = normal_tensor<T, 3>({heads_kv, n, dim_v}, random);
  }

  index length() const { return q.extent(1); }
  recurrent_attention<arithmetic_t<T>> network() const {
    return recurrent_attention<arithmetic_t<T>>(q.extent(2), v.extent(2), q.extent(0), k.extent(0));
  }
};

/// Rows [first, last) of every head.
template <class T>
view<T const, 3> rows(tensor<T, 3> const& x, index first, index last) {
  return {x.data() + first * x.stride(1), {x.extent(0), last - first, x.extent(2)}, x.strides()};
}

template <class T>
auto rows_of(sequence<T> const& s) {
  return [&s](index j) { return std::pair(rows(s.k, j, j + 1), rows(s.v, j, j + 1)); };
}

/// Every row of the sequence, by rereading, against the reference's decode of the same row with the same modifiers.
template <class T, class... Ms>
void check_rows(sequence<T> const& s, double tolerance, Ms const&... ms) {
  auto network = s.network();
  for (index i = 0; i < s.length(); ++i) {
    tensor<T, 3> out({s.q.extent(0), 1, s.v.extent(2)});
    tensor<double, 3> expected(out.extents());
    network.reread(rows(s.q, i, i + 1), i, rows_of(s), out, ms...);
    using wide = std::conditional_t<std::is_same_v<T, double>, long double, double>;
    reference::attention<wide>(rows(s.q, i, i + 1), rows(s.k, 0, i + 1), rows(s.v, 0, i + 1), expected, ms...);
    difference const d = difference_of(out, expected, 1);
    INFO("row " << i << ": " << d.message());
    REQUIRE(d.absolute <= tolerance);
  }
}

struct kerple {
  static constexpr auto stage = score_stage::bias;
  template <class S, class Site>
  S apply(S s, Site const& at) const {
    return s - 0.5f * heed::log(S(1.0f) + heed::abs(at.distance()));
  }
};
struct even_keys {
  template <class Site>
  auto visible(Site const& at) const {
    auto const half = at.key() * 0.5f;
    return heed::abs(half - at.query() * 0.5f) != half + 1000.0f;
  }
};

}  // namespace

TEST_CASE("A step of the recurrent network is attention, whatever the modifiers", "[identities][contract]") {
  sequence<double> const s(4, 2, 23, 12, 7);
  sequence<float> const narrow(4, 2, 23, 12, 7);
  rotary const turn{frequencies::standard(12), layout::half};
  std::vector<double> const sinks{0.5, -1, 2, 0}, per_head{0.3, -0.2, 0.05, 1};
  std::vector<float> const table{0.1f, 0.4f, -0.2f, 1};
  view<float const, 2> const biases(table.data(), {1, 4});
  auto const both = [&](auto const&... ms) {
    check_rows(s, 2e-14, ms...);
    check_rows(narrow, 1e-5, ms...);
  };
  both();
  both(causal{});
  both(causal{}, scale{-0.7});
  both(log_n{8});
  both(log_n_clamped{20, 4}, turn);
  both(log_n_beyond{5}, turn);
  both(scalable{per_head});
  both(window{4, 0}, sink_tokens{2}, log_n{5});
  both(window{3, 3}, causal{});
  both(turn);
  both(rotary{frequencies(std::vector<double>{1, 0.3}, 1.2), layout::interleaved});
  both(rerope{turn, 5}, softcap{2});
  both(rerope{rotary{frequencies(std::vector<double>{1, 0.3}, 1.2), layout::interleaved}, 3});
  both(leaky_rerope{turn, 4, 3.5}, alibi::standard(4));
  both(self_extend{turn, 6, 3});
  both(softcap{0.8}, relative_bias{biases, 0}, score{[](auto x, auto at) { return x + 0.01f * at.distance(); }});
  both(kerple{}, even_keys{}, sink_logits{sinks});
  both(squared_relu{fixed{3}});
  both(squared_relu{visible{}}, turn);
  both(squared_relu{row_sum{}}, window{5, 0});
  both(l2_softmax{}, alibi::standard(4), turn);
}

TEST_CASE("Extra outputs, masks and gates of a reread", "[identities][contract]") {
  sequence<double> const s(2, 1, 30, 8, 5, 3);
  generator random(4);
  index const i = 29;
  auto const holes = mask_tensor<2>({1, 30}, random);
  auto added = normal_tensor<double, 3>({2, 1, 30}, random), u = normal_tensor<double, 3>({2, 1, 5}, random);
  added(0, 0, 3) = -infinity;
  std::vector<std::int32_t> const own{1}, keys(30, 1);
  std::vector<double> const sinks{0.5, -1};
  tensor<double, 3> out({2, 1, 5}), expected({2, 1, 5});
  tensor<double, 2> got_lse({2, 1}), want_lse({2, 1}), got_entropy({2, 1}), want_entropy({2, 1});
  auto network = s.network();
  auto const together = [&](auto const& l, auto const& h) {
    return modifiers(
        mask{holes}, bias{added}, gate{u}, sink_logits{sinks}, l, h, log_n{10},
        segments{view<std::int32_t const, 2>(own.data(), {1, 1}), view<std::int32_t const, 2>(keys.data(), {1, 30})});
  };
  network.reread(rows(s.q, i, i + 1), i, rows_of(s), out, together(lse{got_lse}, entropy{got_entropy}));
  reference::attention<long double>(rows(s.q, i, i + 1), s.k, s.v, expected,
                                    together(lse{want_lse}, entropy{want_entropy}));
  CHECK(difference_of(out, expected).absolute < 1e-14);
  CHECK(difference_of(got_lse, want_lse).absolute < 1e-14);
  CHECK(difference_of(got_entropy, want_entropy).absolute < 1e-13);
}

TEMPLATE_TEST_CASE("Rereading equals the rows of causal prefill", "[identities]", double, float) {
  using T = TestType;
  sequence<T> const s(2, 2, 150, 16, 16, 5);
  rotary const turn{frequencies::standard(16), layout::half};
  auto const rules = modifiers(rerope{turn, 40}, log_n_beyond{64}, causal{});
  tensor<T, 3> whole({2, 150, 16}), out({2, 1, 16});
  attention(s.q, s.k, s.v, whole, rules);
  auto network = s.network();
  for (index i = 0; i < 150; ++i) {
    network.reread(rows(s.q, i, i + 1), i, rows_of(s), out, rules);
    CHECK(difference_of(out, rows(whole, i, i + 1), 1).absolute < (sizeof(T) == 8 ? 1e-12 : 2e-6));
  }
}

TEST_CASE("Golden rows, read one key at a time", "[contract]") {
  golden_rows const rows;
  recurrent_attention<double> network(4, 3);
  Eigen::VectorXd out(3), entropies(1);
  // Rows by value, as Eigen vectors: what a source that computes them would return.
  auto const source = [&](index j) {
    return std::pair<Eigen::VectorXd, Eigen::VectorXd>(rows.k.row(j), rows.v.row(j));
  };
  auto const last = [&](auto const&... ms) {
    Eigen::VectorXd const query = rows.q.row(5);
    network.reread(query, 5, source, out, ms...);
    return out;
  };
  view<double, 1> const h(entropies.data(), {1});
  CHECK((last(entropy{h}) - Eigen::Vector3d(0.25677934, 0.24021222, 0.07793559)).norm() < 1e-8);
  CHECK(entropies(0) == Approx(1.70866262).margin(1e-8));
  rotary const turn{frequencies::standard(4), layout::interleaved};
  CHECK((last(turn) - Eigen::Vector3d(0.30245705, 0.52669168, 0.43144220)).norm() < 1e-8);
  CHECK((last(rerope{turn, 2}) - Eigen::Vector3d(0.23981179, 0.54439716, 0.51875852)).norm() < 1e-8);
  CHECK((last(leaky_rerope{turn, 2, 2}) - Eigen::Vector3d(0.24763989, 0.57099272, 0.54798903)).norm() < 1e-8);
}

TEST_CASE("Steps over a cache equal attention, raw or turned, in every storage", "[identities][contract]") {
  rotary const turn{frequencies::standard(16), layout::half};
  auto const check = [&]<class T>(T, double tolerance, auto const& make_cache, auto const& code, auto const&... ms) {
    sequence<T> const s(4, 2, 70, 16, 8, 6);
    auto cache = make_cache(T{});
    auto network = s.network();
    tensor<T, 3> whole({4, 70, 8}), out({4, 1, 8});
    attention(s.q, s.k, s.v, whole, causal{}, code);
    for (index i = 0; i < 70; ++i) {
      network.step(rows(s.q, i, i + 1), rows(s.k, i, i + 1), rows(s.v, i, i + 1), cache, out, ms...);
      CHECK(cache.size() == i + 1);
      difference const d = difference_of(out, rows(whole, i, i + 1), 1);
      INFO("row " << i << ": " << d.message());
      REQUIRE(d.absolute <= tolerance);
    }
    CHECK(network.visited() == 70 * 71 / 2);
  };
  auto const raw = []<class T>(T) { return kv_cache<T>(2, 16, 8, 70); };
  check(double{}, 1e-14, raw, turn, turn);
  check(float{}, 2e-6, raw, rerope{turn, 20}, rerope{turn, 20}, causal{});
  check(Eigen::half{}, 4e-3, raw, turn, turn);
  check(Eigen::bfloat16{}, 3e-2, raw, turn, turn);
  auto const with = [](auto const& code) { return [code]<class T>(T) { return kv_cache<T>(2, 16, 8, 70, code); }; };
  check(double{}, 1e-14, with(turn), turn);
  check(double{}, 1e-14, with(rerope{turn, 20}), rerope{turn, 20});
  check(double{}, 1e-14, with(leaky_rerope{turn, 9, 4}), leaky_rerope{turn, 9, 4}, causal{});
  check(float{}, 4e-6, with(self_extend{turn, 12, 4}), self_extend{turn, 12, 4});
}

TEST_CASE("Query i reads i + 1 keys, or what a window leaves", "[contract]") {
  sequence<float> const s(1, 1, 50, 4, 4);
  auto network = s.network();
  tensor<float, 3> out({1, 1, 4});
  std::vector<index> seen;
  auto const source = [&](index j) {
    seen.push_back(j);
    return std::pair(rows(s.k, j, j + 1), rows(s.v, j, j + 1));
  };
  for (index i = 0; i < 50; ++i) {
    seen.clear();
    index const before = network.visited();
    network.reread(rows(s.q, i, i + 1), i, source, out);
    CHECK(network.visited() - before == i + 1);
    for (index j = 0; j <= i; ++j)
      REQUIRE(seen[static_cast<std::size_t>(j)] == j);
  }
  seen.clear();
  network.reread(rows(s.q, 49, 50), 49, source, out, window{3, 0}, sink_tokens{2});
  CHECK(seen == std::vector<index>{0, 1, 46, 47, 48, 49});
}

TEST_CASE("The state does not grow with the length", "[resources][contract]") {
  recurrent_attention<float> network(8, 6, 2, 1);
  CHECK(network.state_numbers() == 2 * (6 + 2));
  CHECK(network.state_numbers(true) == 2 * (6 + 3));
  generator random(7);
  tensor<float, 1> key({8}), value({6});
  auto const q = normal_tensor<float, 2>({2, 8}, random);
  tensor<float, 2> out({2, 6});
  auto const source = [&](index j) {
    key(j % 8) = static_cast<float>(j % 5);
    value(j % 6) = 1;
    return std::pair<float const*, float const*>(key.data(), value.data());
  };
  rotary const turn{frequencies::standard(8), layout::half};
  network.reread(q, 3, source, out, turn);
  std::size_t const held = network.memory_bytes();
  for (index i : {100, 10000, 100000}) {
    allocation_count const asked;
    network.reread(q, i, source, out, turn);
    CHECK(asked.count() == 0);
    CHECK(network.memory_bytes() == held);
  }
}

TEST_CASE("Hidden keys do not reach a reread row, and empty rows are 0", "[edges][contract]") {
  sequence<double> s(1, 1, 10, 4, 3);
  auto network = s.network();
  tensor<double, 3> out({1, 1, 3}), clean({1, 1, 3});
  tensor<double, 2> l({1, 1});
  tensor<bool, 2> shown({1, 10});
  for (index j = 0; j < 10; ++j)
    shown(0, j) = j % 2 == 0;
  network.reread(rows(s.q, 9, 10), 9, rows_of(s), clean, mask{shown});
  for (index j = 1; j < 10; j += 2)
    s.k(0, j, 0) = s.v(0, j, 1) = std::numeric_limits<double>::quiet_NaN();
  network.reread(rows(s.q, 9, 10), 9, rows_of(s), out, mask{shown});
  CHECK(same_bits(out, clean));
  for (index j = 0; j < 10; ++j)
    shown(0, j) = false;
  network.reread(rows(s.q, 9, 10), 9, rows_of(s), out, mask{shown}, lse{l});
  for (index c = 0; c < 3; ++c)
    CHECK(out(0, 0, c) == 0);
  CHECK(l(0, 0) == -infinity);
  network.reread(rows(s.q, 0, 1), 0, rows_of(s), out, log_n{512});
  for (index c = 0; c < 3; ++c)
    CHECK(out(0, 0, c) == s.v(0, 0, c));  // one visible key, bit for bit
}

TEST_CASE("What does not fit is refused before anything happens", "[errors][contract]") {
  sequence<float> const s(2, 1, 5, 8, 4);
  auto network = s.network();
  tensor<float, 3> out({2, 1, 4}), wrong({2, 1, 5});
  auto const q = rows(s.q, 4, 5);
  CHECK_THROWS_AS(recurrent_attention<float>(4, 4, 3, 2), argument_error);
  CHECK_THROWS_AS(network.reread(q, -1, rows_of(s), out), argument_error);
  CHECK_THROWS_WITH(network.reread(q, 4, rows_of(s), wrong),
                    "recurrent_attention: out must have 2 * 4 numbers, got 10");
  CHECK_THROWS_AS(network.reread(q, 4, rows_of(s), out, softcap{-1}), argument_error);
  CHECK_THROWS_AS(network.reread(
                      q, 4, [&](index) { return std::pair(std::vector<float>(7), std::vector<float>(4)); }, out),
                  argument_error);
  kv_cache<float> cache(1, 8, 4, 2);
  auto const k = rows(s.k, 0, 1), v = rows(s.v, 0, 1);
  CHECK_THROWS_AS(network.step(q, k, v, cache, wrong), argument_error);
  CHECK_THROWS_AS(network.step(q, rows(s.k, 0, 2), v, cache, out), argument_error);
  CHECK(cache.size() == 0);
  network.step(q, k, v, cache, out);
  network.step(q, k, v, cache, out);
  CHECK_THROWS_AS(network.step(q, k, v, cache, out), argument_error);
  CHECK(cache.size() == 2);
  rotary const turn{frequencies::standard(8), layout::half};
  kv_cache<float> turned(1, 8, 4, 2, turn);
  CHECK_THROWS_WITH(network.step(q, k, v, turned, out, turn), ContainsSubstring("not both"));
}

}  // namespace heed::test
