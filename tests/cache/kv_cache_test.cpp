#include "support/catch.hpp"

#include <heed/cache/kv_cache.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/counting_allocator.hpp"
#include "support/random.hpp"

// kv_cache: what it keeps, and that a call on it is a call on the whole sequence.

namespace heed::test {
namespace {

template <class T>
struct sequence {
  tensor<T, 3> q, k, v;

  explicit sequence(index n, index heads_q = 4, index heads_kv = 2, std::uint64_t seed = 61) {
    generator random(seed);
    q = normal_tensor<T, 3>({heads_q, n, 16}, random);
    k = normal_tensor<T, 3>({heads_kv, n, 16}, random);
    v = normal_tensor<T, 3>({heads_kv, n, 8}, random);
  }
};

template <class T>
view<T const, 3> rows(tensor<T, 3> const& x, index first, index count) {
  return {x.data() + first * x.stride(1), {x.extent(0), count, x.extent(2)}, x.strides()};
}

rotary const turn{frequencies::standard(16), layout::half};

/// Appends and attends in chunks of `chunk` rows; every row against the whole sequence at once.
template <class T, class... Code>
void check_decode(index n, index chunk, double tolerance, Code const&... code) {
  sequence<T> const s(n);
  kv_cache<T> cache(2, 16, 8, n, code...);
  tensor<T, 3> whole({4, n, 8});
  attention(s.q, s.k, s.v, whole, code..., causal{}, log_n_beyond{32});
  for (index first = 0; first < n; first += chunk) {
    index const count = std::min(chunk, n - first);
    cache.append(rows(s.k, first, count), rows(s.v, first, count));
    tensor<T, 3> out({4, count, 8});
    attention(rows(s.q, first, count), cache, out, causal{}, log_n_beyond{32});
    difference const d = difference_of(out, rows(whole, first, count), 1);
    INFO("rows from " << first << ", chunks of " << chunk << ": " << d.message());
    REQUIRE(d.absolute <= tolerance);
  }
  CHECK(cache.size() == n);
}

}  // namespace

TEST_CASE("Decoding from a cache gives the rows of prefill, for every code", "[identities][contract]") {
  for (index chunk : {1, 3, 17, 100}) {
    check_decode<double>(150, chunk, 1e-13);
    check_decode<double>(150, chunk, 1e-13, turn);
    for (double w : {1.0, 20.0, 64.0, 149.0, 400.0}) {
      check_decode<double>(150, chunk, 1e-13, rerope{turn, w});
      check_decode<double>(150, chunk, 1e-13, leaky_rerope{turn, w, 4});
      check_decode<double>(150, chunk, 1e-13, self_extend{turn, w, 3});
    }
    rotary const stretched{frequencies(std::vector<double>{1, 0.2}, 1.4), layout::interleaved};
    check_decode<double>(90, chunk, 1e-13, stretched);
    check_decode<double>(90, chunk, 1e-13, rerope{stretched, 12});
    check_decode<double>(90, chunk, 1e-13, leaky_rerope{stretched, 12, 3});
    check_decode<float>(150, chunk, 1e-5, rerope{turn, 20});
    check_decode<Eigen::half>(150, chunk, 8e-3, rerope{turn, 20});
    check_decode<Eigen::bfloat16>(150, chunk, 8e-2, turn);
  }
}

TEST_CASE("What the cache keeps: rows as they came, or turned once", "[contract]") {
  sequence<float> const s(10);
  kv_cache<float> raw(2, 16, 8, 32), turned(2, 16, 8, 32, turn), rectified(2, 16, 8, 32, rerope{turn, 4});
  CHECK(raw.size() == 0);
  CHECK(raw.capacity() == 32);
  CHECK(raw.heads_kv() == 2);
  for (auto* cache : {&raw, &turned, &rectified}) {
    cache->append(rows(s.k, 0, 7), rows(s.v, 0, 7));
    cache->append(rows(s.k, 7, 3), rows(s.v, 7, 3));
    CHECK(cache->size() == 10);
    CHECK(cache->keys().extents() == index_array<3>{2, 10, 16});
    CHECK(cache->values().extents() == index_array<3>{2, 10, 8});
  }
  tensor<float, 3> expected = s.k;
  CHECK(difference_of(raw.keys(), s.k).absolute == 0);
  CHECK(difference_of(rectified.keys(), s.k).absolute == 0);  // ReRoPE's far keys are raw
  turn.apply(expected, 0);
  CHECK(difference_of(turned.keys(), expected).absolute == 0);
  CHECK(difference_of(turned.values(), s.v).absolute == 0);
}

TEST_CASE("A call may name the code of raw keys, and no second one", "[identities][contract][errors]") {
  sequence<float> const s(90);
  kv_cache<float> raw(2, 16, 8, 90), turned(2, 16, 8, 90, turn);
  tensor<float, 3> out({4, 20, 8}), expected({4, 20, 8});
  for (auto* cache : {&raw, &turned})
    cache->append(s.k, s.v);
  CHECK(!raw.has_position_code());
  CHECK(turned.has_position_code());
  auto const check = [&](auto const&... ms) {
    attention(rows(s.q, 70, 20), s.k, s.v, expected, ms...);
    attention(rows(s.q, 70, 20), raw, out, ms...);
    CHECK(difference_of(out, expected).absolute == 0);
  };
  check(causal{}, turn);
  check(modifiers(turn, causal{}));
  check(causal{});
  CHECK_THROWS_WITH(attention(rows(s.q, 70, 20), turned, out, causal{}, turn),
                    "attention: the cache keeps keys turned by its own position code: a second one among the modifiers "
                    "must not be given");
}

TEST_CASE("A truncated cache goes on as if nothing had been", "[identities][contract]") {
  sequence<double> const s(120);
  auto const check = [&](auto const&... code) {
    for (index kept : {0, 5, 29, 30, 31, 70, 99, 100}) {
      kv_cache<double> cache(2, 16, 8, 120, code...);
      cache.append(rows(s.k, 0, 100), rows(s.v, 0, 100));
      cache.truncate(kept);
      CHECK(cache.size() == kept);
      tensor<double, 3> whole({4, 120, 8});
      attention(s.q, s.k, s.v, whole, code..., causal{});
      for (index i = kept; i < 120; ++i) {
        cache.append(rows(s.k, i, 1), rows(s.v, i, 1));
        tensor<double, 3> out({4, 1, 8});
        attention(rows(s.q, i, 1), cache, out);
        difference const d = difference_of(out, rows(whole, i, 1), 1);
        INFO("kept " << kept << ", row " << i << ": " << d.message());
        REQUIRE(d.absolute <= 1e-13);
      }
    }
  };
  check();
  check(turn);
  check(rerope{turn, 30});
  check(leaky_rerope{turn, 30, 4});
  check(self_extend{turn, 30, 4});
}

TEST_CASE("A cache takes keys of other storage and strides, and one head as rank 2", "[contract]") {
  sequence<float> const s(12, 1, 1);
  Eigen::MatrixXf const k = s.k.matrix(0), v = s.v.matrix(0), q = s.q.matrix(0);  // column-major
  kv_cache<Eigen::half> narrow(1, 16, 8, 12, rerope{turn, 5});
  kv_cache<float> wide(1, 16, 8, 12, rerope{turn, 5});
  narrow.append(k, v);
  wide.append(k, v);
  Eigen::MatrixXf out(12, 8), other(12, 8), expected(12, 8);
  attention(q, k, v, expected, rerope{turn, 5}, causal{});
  attention(q, wide, out, causal{});
  attention(q, narrow, other, causal{});
  CHECK((out - expected).cwiseAbs().maxCoeff() < 2e-6);
  CHECK((other - expected).cwiseAbs().maxCoeff() < 8e-3);
  CHECK((other - expected).cwiseAbs().maxCoeff() > 0);
}

/// x in 8 bits and back.
tensor<float, 3> narrowed(tensor<float, 3> const& x) {
  tensor<int8, 3> codes(x.extents());
  tensor<float, 2> scales({x.extent(0), x.extent(1)});
  quantize(x, codes, scales);
  operand const rows = make_operand(quantized_view(codes, scales));
  tensor<float, 3> back(x.extents());
  for (index h = 0; h < x.extent(0); ++h)
    for (index j = 0; j < x.extent(1); ++j)
      for (index c = 0; c < x.extent(2); ++c)
        back(h, j, c) = static_cast<float>(rows(0, h, j, c));
  return back;
}

TEST_CASE("A cache of int8 keeps quantised rows: keys as they came, or turned once", "[identities][contract]") {
  sequence<float> const s(90);
  tensor<int8, 3> k({2, 90, 16}), v({2, 90, 8});
  tensor<float, 2> k_scales({2, 90}), v_scales({2, 90});
  quantize(s.v, v, v_scales);
  auto const check = [&](kv_cache<int8>&& cache, tensor<float, 3> const& keys) {
    quantize(keys, k, k_scales);
    cache.append(rows(s.k, 0, 60), rows(s.v, 0, 60));
    cache.append(rows(s.k, 60, 30), rows(s.v, 60, 30));
    for (index q_len : {1, 2, 30}) {
      tensor<float, 3> out({4, q_len, 8}), expected({4, q_len, 8}), q = s.q;
      if (cache.has_position_code())
        turn.apply(q, 0);
      attention(rows(s.q, 90 - q_len, q_len), cache, out, causal{});
      attention(rows(q, 90 - q_len, q_len), quantized_view(k, k_scales), quantized_view(v, v_scales), expected,
                causal{});
      CHECK(difference_of(out, expected).absolute <= (cache.has_position_code() ? 2e-6 : 0.0));
    }
    operand const kept = make_operand(cache.keys());
    bool same = kept.extents == index_array<4>{1, 2, 90, 16};
    for (index h = 0; h < 2; ++h)
      for (index j = 0; j < 90; ++j)
        for (index c = 0; c < 16; ++c)
          same = same && kept(0, h, j, c) == make_operand(quantized_view(k, k_scales))(0, h, j, c);
    CHECK(same);
  };
  tensor<float, 3> turned = s.k;
  turn.apply(turned, 0);
  check(kv_cache<int8>(2, 16, 8, 90), s.k);
  check(kv_cache<int8>(2, 16, 8, 90, turn), turned);
}

TEST_CASE("A cache of int8 keeps near keys as floats, and far ones in 8 bits", "[identities][contract]") {
  sequence<float> const s(120);
  tensor<float, 3> const k = narrowed(s.k), v = narrowed(s.v);
  for (index q_len : {1, 40})
    for (double w : {1.0, 30.0, 120.0}) {
      rerope const code(turn, w);
      kv_cache<int8> cache(2, 16, 8, 120, code);
      kv_cache<float> all_near(2, 16, 8, 120, code), all_far(2, 16, 8, 120, code);
      cache.append(s.k, s.v);
      all_near.append(s.k, v);
      all_far.append(k, v);
      tensor<float, 3> out({4, q_len, 8}), near(out.extents()), far(out.extents());
      attention(rows(s.q, 120 - q_len, q_len), cache, out, causal{});
      attention(rows(s.q, 120 - q_len, q_len), all_near, near, causal{});
      attention(rows(s.q, 120 - q_len, q_len), all_far, far, causal{});
      INFO("q_len " << q_len << ", window " << w);
      bool const whole_ring = w == 120;
      CHECK((difference_of(out, near).absolute <= 1e-5) == whole_ring);
      CHECK(difference_of(out, near).absolute <= 0.05);
      CHECK(difference_of(out, far).absolute <= 0.05);
      CHECK(difference_of(near, far).absolute > 1e-4);
    }
}

TEST_CASE("A cache of int8 refuses what is not finite, turned, too, and takes nothing in then", "[errors][contract]") {
  sequence<float> s(12);
  kv_cache<int8> cache(2, 16, 8, 12, rerope{turn, 4}), twin(2, 16, 8, 12, rerope{turn, 4}), turned(2, 16, 8, 12, turn);
  for (auto* each : {&cache, &twin})
    each->append(rows(s.k, 0, 9), rows(s.v, 0, 9));
  tensor<float, 3> k = s.k, v = s.v;
  k(1, 10, 5) = std::numeric_limits<float>::quiet_NaN();
  v(0, 11, 2) = -std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(cache.append(rows(k, 9, 3), rows(s.v, 9, 3)),
                    "kv_cache: append's k must be finite, turned, too, to be kept as int8, got nan in head 1, row 1, "
                    "channel 5");
  CHECK_THROWS_WITH(cache.append(rows(s.k, 9, 3), rows(v, 9, 3)), ContainsSubstring("append's v must be finite"));
  k = s.k;
  k(1, 10, 0) = k(1, 10, 8) = 3e38f;  // turned by 10 radians, they no longer fit a float
  CHECK_THROWS_WITH(turned.append(k, s.v), ContainsSubstring("got -inf in head 1, row 10, channel 8"));
  CHECK(cache.size() == 9);
  CHECK(turned.size() == 0);
  for (index size : {9, 12}) {
    tensor<float, 3> out({4, 1, 8}), expected({4, 1, 8});  // a single row reads all of the ring
    attention(rows(s.q, size - 1, 1), cache, out, causal{});
    attention(rows(s.q, size - 1, 1), twin, expected, causal{});
    CHECK(difference_of(out, expected).absolute == 0);
    if (size == 9)
      for (auto* each : {&cache, &twin})
        each->append(rows(s.k, 9, 3), rows(s.v, 9, 3));
  }
}

TEST_CASE("Decoding from a cache asks nothing of the heap", "[resources][contract]") {
  sequence<float> const s(300);
  kv_cache<float> cache(2, 16, 8, 300, rerope{turn, 64});
  tensor<float, 3> out({4, 1, 8});
  workspace scratch(1 << 20);
  cache.append(rows(s.k, 0, 200), rows(s.v, 0, 200));
  allocation_count const asked;
  for (index i = 200; i < 300; ++i) {
    cache.append(rows(s.k, i, 1), rows(s.v, i, 1));
    attention(rows(s.q, i, 1), cache, out, causal{}, with{scratch});
  }
  CHECK(asked.count() == 0);
}

TEST_CASE("A cache refuses what does not fit, and changes nothing then", "[errors][contract]") {
  sequence<float> const s(10);
  kv_cache<float> cache(2, 16, 8, 8, rerope{turn, 4});
  tensor<float, 3> out({4, 1, 8});
  CHECK_THROWS_WITH(cache.append(rows(s.k, 0, 9), rows(s.v, 0, 9)),
                    "kv_cache: capacity must be at least 9 for this append, got 8");
  CHECK_THROWS_AS(cache.append(rows(s.k, 0, 2), rows(s.v, 0, 3)), argument_error);
  CHECK_THROWS_AS(cache.append(rows(s.v, 0, 2), rows(s.v, 0, 2)), argument_error);
  CHECK_THROWS_AS(cache.append(rows(s.q, 0, 2), rows(s.v, 0, 2)), argument_error);
  CHECK(cache.size() == 0);
  cache.append(rows(s.k, 0, 8), rows(s.v, 0, 8));
  CHECK_THROWS_AS(cache.append(rows(s.k, 8, 1), rows(s.v, 8, 1)), argument_error);
  CHECK(cache.size() == 8);
  CHECK_THROWS_AS(cache.truncate(9), argument_error);
  CHECK_THROWS_AS(cache.truncate(-1), argument_error);
  CHECK_THROWS_AS(kv_cache<float>(0, 16, 8, 8), argument_error);
  CHECK_THROWS_AS(kv_cache<float>(2, 16, 8, -1), argument_error);
  CHECK_THROWS_AS(kv_cache<float>(2, 8, 8, 8, turn), argument_error);
  CHECK_THROWS_AS(kv_cache<float>(2, 16, 8, 8, rerope{turn, 0}), argument_error);
  Eigen::MatrixXf q(1, 16), row(1, 8);
  CHECK_THROWS_AS(attention(q, cache, row), argument_error);  // two heads, rank 2
  kv_cache<float> none(2, 16, 8, 0);
  attention(rows(s.q, 0, 1), none, out);
  for (index c = 0; c < 8; ++c)
    CHECK(out(0, 0, c) == 0);
}

}  // namespace heed::test
