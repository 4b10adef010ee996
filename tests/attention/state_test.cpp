#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/attention/state.hpp>

#include "support/compare.hpp"
#include "support/random.hpp"

// softmax_state, and the merging of finished results.

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T>
struct owned_state {
  std::vector<T> memory;
  softmax_state<T> state;

  explicit owned_state(index dim_v, bool entropy = true)
      : memory(static_cast<std::size_t>(softmax_state<T>::numbers(dim_v, entropy)), T(99)),
        state(memory, dim_v, entropy) {
    state.clear();
  }
  owned_state(owned_state const& o) : memory(o.memory), state(memory, o.state.dim_v(), true) {}
};

struct row {
  std::vector<double> s, v;
  index dim_v;

  row(index n, index channels, double deviation, std::uint64_t seed) : dim_v(channels) {
    generator random(seed);
    for (index i = 0; i < n; ++i)
      s.push_back(random.normal(0, deviation));
    for (index i = 0; i < n * channels; ++i)
      v.push_back(random.normal());
  }
  void push(softmax_state<double>& to, index first, index last) const {
    to.push_block(s.data() + first, v.data() + first * dim_v, last - first, dim_v);
  }
};

}  // namespace

TEST_CASE("A state finishes to softmax, lse and entropy", "[reference][contract]") {
  for (double deviation : {0.3, 3.0, 100.0}) {
    row const r(200, 3, deviation, 81);
    owned_state<double> x(3);
    r.push(x.state, 0, 200);
    long double top = -INFINITY, l = 0, o[3] = {0, 0, 0}, h = 0;
    for (double s : r.s)
      top = std::max(top, static_cast<long double>(s));
    for (std::size_t i = 0; i < 200; ++i) {
      long double const w = std::exp(r.s[i] - top);
      l += w;
      for (std::size_t c = 0; c < 3; ++c)
        o[c] += w * r.v[3 * i + c];
    }
    for (double s : r.s) {
      long double const p = std::exp(s - top) / l;
      h -= p == 0 ? 0 : p * std::log(p);
    }
    double out[3];
    x.state.finish(out);
    for (int c = 0; c < 3; ++c)
      CHECK(out[c] == Approx(static_cast<double>(o[c] / l)).margin(1e-14));
    CHECK(x.state.lse() == Approx(static_cast<double>(top + std::log(l))).epsilon(1e-14));
    CHECK(x.state.entropy() == Approx(static_cast<double>(h)).margin(1e-13));
  }
}

TEST_CASE("Merging states is commutative to the bit, associative to rounding, with the empty one as identity",
          "[identities][contract]") {
  row const r(90, 4, 5, 82);
  auto const part = [&](index first, index last) {
    owned_state<double> x(4);
    r.push(x.state, first, last);
    return x;
  };
  auto const joined = [](owned_state<double> a, owned_state<double> const& b) {
    a.state.merge(b.state);
    return a;
  };
  auto const a = part(0, 30), b = part(30, 31), c = part(31, 90), none = part(0, 0), whole = part(0, 90);
  CHECK(joined(a, b).memory == joined(b, a).memory);
  CHECK(joined(a, c).memory == joined(c, a).memory);
  CHECK(joined(a, none).memory == a.memory);
  CHECK(joined(none, a).memory == a.memory);
  CHECK(joined(none, none).memory == none.memory);
  auto const left = joined(joined(a, b), c), right = joined(a, joined(b, c));
  for (std::size_t i = 0; i < whole.memory.size(); ++i) {
    CHECK(left.memory[i] == Approx(right.memory[i]).epsilon(1e-13).margin(1e-13));
    CHECK(left.memory[i] == Approx(whole.memory[i]).epsilon(1e-13).margin(1e-13));
  }
}

TEST_CASE("States at the edges: nothing, hidden keys, far scores, NaN", "[edges][contract]") {
  float const value[] = {2, -3};
  float out[2];
  owned_state<float> x(2);
  x.state.finish(out);
  CHECK(out[0] == 0);
  CHECK(static_cast<double>(x.state.lse()) == -infinity);
  CHECK(x.state.entropy() == 0);
  x.state.push(static_cast<float>(-infinity), value);
  x.state.finish(out);
  CHECK(out[1] == 0);
  CHECK(static_cast<double>(x.state.lse()) == -infinity);
  x.state.push(-1e5f, value);  // one key: its value, bit for bit
  x.state.finish(out);
  CHECK(out[0] == 2);
  CHECK(out[1] == -3);
  CHECK(x.state.entropy() == 0);
  x.state.push(1e5f, value);
  x.state.finish(out);
  CHECK(out[0] == 2);
  x.state.push(std::numeric_limits<float>::quiet_NaN(), value);
  x.state.finish(out);
  CHECK(std::isnan(out[0]));
  CHECK(softmax_state<float>::numbers(64) == 66);
  CHECK(softmax_state<float>::numbers(64, true) == 67);
  std::vector<float> small(3);
  CHECK_THROWS_AS(softmax_state<float>(small, 2), argument_error);
  owned_state<float> other(2, false);
  CHECK_THROWS_AS(x.state.merge(other.state), argument_error);
  CHECK_THROWS_AS(other.state.entropy(), argument_error);
}

TEST_CASE("Finished results of disjoint keys merge to the whole", "[identities][contract]") {
  generator random(83);
  auto const q = normal_tensor<float, 3>({2, 40, 16}, random), k = normal_tensor<float, 3>({2, 100, 16}, random),
             v = normal_tensor<float, 3>({2, 100, 8}, random);
  tensor<float, 3> whole({2, 40, 8}), a({2, 40, 8}), b({2, 40, 8}), out({2, 40, 8});
  tensor<double, 2> lw({2, 40}), la({2, 40}), lb({2, 40}), l({2, 40});
  attention(q, k, v, whole, causal{}, lse{lw});
  auto const part = [](tensor<float, 3> const& x, index first, index n) {
    return view<float const, 3>(&x(0, first, 0), {2, n, x.extent(2)}, x.strides());
  };
  // Keys 0…69 and 70…99; the first queries see nothing of the second part.
  attention(q, part(k, 0, 70), part(v, 0, 70), a, causal{}, offset{60}, lse{la});
  attention(q, part(k, 70, 30), part(v, 70, 30), b, causal{}, offset{-10}, lse{lb});
  merge(a, la, b, lb, out, l);
  CHECK(difference_of(out, whole, 1).absolute < 2e-6);
  CHECK(difference_of(l, lw, 1).absolute < 4e-6);
  for (index c = 0; c < 8; ++c)
    CHECK(out(1, 3, c) == a(1, 3, c));
  tensor<float, 3> turned({2, 40, 8});
  merge(b, lb, a, la, turned, l);
  CHECK(same_bits(turned, out));
  merge(a, la, b, lb, a, la);  // in place
  CHECK(same_bits(a, out));
  tensor<double, 2> short_rows({2, 39});
  CHECK_THROWS_AS(merge(a, short_rows, b, lb, out, l), argument_error);
  CHECK_THROWS_AS(merge(a, la, k, lb, out, l), argument_error);
}

TEST_CASE("Merging rows that saw nothing on either side", "[edges]") {
  tensor<float, 2> a({3, 2}), b({3, 2}), out({3, 2});
  tensor<float, 1> la({3}), lb({3}), l({3});
  float const none = static_cast<float>(-infinity);
  la(0) = none, la(1) = none, la(2) = 1;
  lb(0) = none, lb(1) = 2, lb(2) = none;
  b(1, 0) = 5, a(2, 1) = 7;
  a(1, 0) = b(2, 1) = std::numeric_limits<float>::quiet_NaN();  // what a side without keys holds does not matter
  merge(a, la, b, lb, out, l);
  CHECK(out(0, 0) == 0);
  CHECK(l(0) == none);
  CHECK(out(1, 0) == 5);
  CHECK(l(1) == 2);
  CHECK(out(2, 1) == 7);
  CHECK(l(2) == 1);
}

}  // namespace heed::test
