#pragma once

#include <heed/core/simd.hpp>
#include <heed/core/view.hpp>

#include <cmath>
#include <limits>
#include <utility>

/// The rotary stage: turns pairs of channels of one row by position · theta.

namespace heed {
HEED_ISA_BEGIN

/// What to turn by: the angle of pair t at position p is p / slowness · theta[t].
struct rotation {
  double const* theta;
  index pairs;
  double attention_factor;  // multiplies cos and sin
  bool interleaved;         // pairs (2t, 2t + 1), or else (t, t + pairs)
  double slowness = 1;
};

namespace impl {

/// Lanes (0, 1), (2, 3), … exchanged.
template <real T>
HEED_ALWAYS_INLINE inline batch<T> swap_pairs(batch<T> const& x) {
#if defined(__AVX512F__)
  if constexpr (std::same_as<T, float>)
    return _mm512_permute_ps(x.data, 0xb1);
  else
    return _mm512_permute_pd(x.data, 0x55);
#elif defined(__AVX__)
  if constexpr (std::same_as<T, float>)
    return _mm256_permute_ps(x.data, 0xb1);
  else
    return _mm256_permute_pd(x.data, 0x5);
#elif defined(__SSE2__)
  if constexpr (std::same_as<T, float>)
    return _mm_shuffle_ps(x.data, x.data, 0xb1);
  else
    return _mm_shuffle_pd(x.data, x.data, 1);
#else
  alignas(64) T v[static_cast<std::size_t>(lanes<T>)];
  store(v, x);
  for (int i = 0; i + 1 < lanes<T>; i += 2)
    std::swap(v[i], v[i + 1]);
  return load(v);
#endif
}

/// c − a · b, rounded once wherever the machine can. Spelt out, so that a compiler that may contract a product and a
/// difference has nothing to choose: equal positions must give equal bits.
template <real T>
HEED_ALWAYS_INLINE inline batch<T> fnma(batch<T> const& a, batch<T> const& b, batch<T> const& c) {
#if defined(__AVX512F__)
  if constexpr (std::same_as<T, float>)
    return _mm512_fnmadd_ps(a.data, b.data, c.data);
  else
    return _mm512_fnmadd_pd(a.data, b.data, c.data);
#elif defined(__AVX__) && defined(__FMA__)
  if constexpr (std::same_as<T, float>)
    return _mm256_fnmadd_ps(a.data, b.data, c.data);
  else
    return _mm256_fnmadd_pd(a.data, b.data, c.data);
#else
  return fma(batch<T>(T(0)) - a, b, c);
#endif
}

/// lanes<T> numbers in batches of double, rounded to T, at p: in one store, because they are loaded again at once, and
/// a load that spans two stores waits for both to reach the cache.
HEED_ALWAYS_INLINE inline void store_rounded(double* p, batch<double> const (&x)[1]) { store(p, x[0]); }
HEED_ALWAYS_INLINE inline void store_rounded(float* p, batch<double> const (&x)[2]) {
#if defined(__AVX512F__)
  __m512d const low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm512_cvtpd_ps(x[0].data)));
  __m512d const both = _mm512_insertf64x4(low, _mm256_castps_pd(_mm512_cvtpd_ps(x[1].data)), 1);
  _mm512_storeu_ps(p, _mm512_castpd_ps(both));
#elif defined(__AVX__)
  __m256 const low = _mm256_castps128_ps256(_mm256_cvtpd_ps(x[0].data));
  _mm256_storeu_ps(p, _mm256_insertf128_ps(low, _mm256_cvtpd_ps(x[1].data), 1));
#elif defined(__SSE2__)
  _mm_storeu_ps(p, _mm_movelh_ps(_mm_cvtpd_ps(x[0].data), _mm_cvtpd_ps(x[1].data)));
#else
  alignas(64) double v[static_cast<std::size_t>(lanes<float>)];
  store(v, x[0]);
  store(v + lanes<double>, x[1]);
  for (int i = 0; i < lanes<float>; ++i)
    p[i] = static_cast<float>(v[i]);
#endif
}

/// a0, b0, a1, b1, …, rounded to T, at p.
HEED_ALWAYS_INLINE inline void store_interleaved(double* p, batch<double> const& a, batch<double> const& b) {
#if defined(__AVX512F__)
  __m512i const low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  _mm512_storeu_pd(p, _mm512_permutex2var_pd(a.data, low, b.data));
  _mm512_storeu_pd(p + 8, _mm512_permutex2var_pd(a.data, high, b.data));
#elif defined(__AVX__)
  __m256d const low = _mm256_unpacklo_pd(a.data, b.data), high = _mm256_unpackhi_pd(a.data, b.data);
  _mm256_storeu_pd(p, _mm256_permute2f128_pd(low, high, 0x20));
  _mm256_storeu_pd(p + 4, _mm256_permute2f128_pd(low, high, 0x31));
#elif defined(__SSE2__)
  _mm_storeu_pd(p, _mm_unpacklo_pd(a.data, b.data));
  _mm_storeu_pd(p + 2, _mm_unpackhi_pd(a.data, b.data));
#else
  alignas(64) double v[static_cast<std::size_t>(lanes<double>)], w[static_cast<std::size_t>(lanes<double>)];
  store(v, a);
  store(w, b);
  for (int i = 0; i < lanes<double>; ++i) {
    p[2 * i] = v[i];
    p[2 * i + 1] = w[i];
  }
#endif
}
HEED_ALWAYS_INLINE inline void store_interleaved(float* p, batch<double> const& a, batch<double> const& b) {
#if defined(__AVX512F__)
  __m256 const x = _mm512_cvtpd_ps(a.data), y = _mm512_cvtpd_ps(b.data);
  __m256 const low = _mm256_unpacklo_ps(x, y), high = _mm256_unpackhi_ps(x, y);
  __m512 const both =
      _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_castps_pd(low)), _mm256_castps_pd(high), 1));
  _mm512_storeu_ps(p, _mm512_shuffle_f32x4(both, both, 0xd8));
#elif defined(__AVX__)
  __m128 const x = _mm256_cvtpd_ps(a.data), y = _mm256_cvtpd_ps(b.data);
  _mm_storeu_ps(p, _mm_unpacklo_ps(x, y));
  _mm_storeu_ps(p + 4, _mm_unpackhi_ps(x, y));
#elif defined(__SSE2__)
  _mm_storeu_ps(p, _mm_unpacklo_ps(_mm_cvtpd_ps(a.data), _mm_cvtpd_ps(b.data)));
#else
  alignas(64) double v[2 * static_cast<std::size_t>(lanes<double>)];
  store_interleaved(v, a, b);
  for (int i = 0; i < 2 * lanes<double>; ++i)
    p[i] = static_cast<float>(v[i]);
#endif
}

/// cos and sin of position · theta, right to an ulp or two whatever the position: the product's rounding error, which
/// is 6e-11 rad at position 10^6, is caught by an fma and turned in afterwards.
inline void exact_cos_sin(double position, double theta, double& c, double& s) {
  double const angle = position * theta;
  double const rest = std::fma(position, theta, -angle);
  double const cos_angle = std::cos(angle), sin_angle = std::sin(angle);
  double cos_rest = 1, sin_rest = rest;
  if (std::fabs(rest) > 0x1p-27) {  // from here on 1 − cos rest exceeds half an ulp
    cos_rest = std::cos(rest);
    sin_rest = std::sin(rest);
  }
  c = std::fma(-sin_angle, sin_rest, cos_angle * cos_rest);
  s = std::fma(cos_angle, sin_rest, sin_angle * cos_rest);
}

#if defined(__FMA__) || defined(__AVX512F__)
/// The same for a batch, |angle| ≤ 2^30: the angle less the nearest n · π/2 (π/2 as 33 bits and the rest, so that the
/// first difference is exact), the product's rounding error added, then fdlibm's polynomials on [−π/4, π/4]. Some ten
/// times faster than libm, which matters where a rotator lives for one block of rows.
HEED_ALWAYS_INLINE inline void cos_sin_reduced(batch<double> angle, batch<double> rest, double* c, double* s) {
  using b = batch<double>;
  b const magic(0x1.8p52), one(1.0), zero(0.0);
  b const n = (angle * b(6.36619772367581382433e-01) + magic) - magic;
  b const x =
      fnma<double>(n, b(6.07710050650619224932e-11), fnma<double>(n, b(1.57079632673412561417e+00), angle)) + rest;
  b const z = x * x;
  b p = fma(b(1.58969099521155010221e-10), z, b(-2.50507602534068634195e-08));
  p = fma(p, z, b(2.75573137070700676789e-06));
  p = fma(p, z, b(-1.98412698298579493134e-04));
  p = fma(p, z, b(8.33333333332248946124e-03));
  p = fma(p, z, b(-1.66666666666666324348e-01));
  b const sine = fma(x * z, p, x);
  b q = fma(b(-1.13596475577881948265e-11), z, b(2.08757232129817482790e-09));
  q = fma(q, z, b(-2.75573143513906633035e-07));
  q = fma(q, z, b(2.48015872894767294178e-05));
  q = fma(q, z, b(-1.38888888888741095749e-03));
  q = fma(q, z, b(4.16666666666666019037e-02));
  b const half = z * b(0.5), near = one - half;
  b const cosine = near + fma(z * z, q, (one - near) - half);
  // Which quarter turn: −2 and 2 are the same one.
  b const quarter = fnma<double>((n * b(0.25) + magic) - magic, b(4.0), n);
  auto const odd = heed::abs(quarter) == one, opposite = heed::abs(quarter) == b(2.0);
  b const cos_part = heed::select<double>(odd, sine, cosine), sin_part = heed::select<double>(odd, cosine, sine);
  b const flipped_cos = heed::select<double>(quarter == one, zero - cos_part, cos_part);
  b const flipped_sin = heed::select<double>(quarter == b(-1.0), zero - sin_part, sin_part);
  store(c, heed::select<double>(opposite, zero - cos_part, flipped_cos));
  store(s, heed::select<double>(opposite, zero - sin_part, flipped_sin));
}
#endif

/// cos and sin of position · theta[t] for n pairs; c and s have room for whole batches.
inline void cos_sin(double position, double const* theta, index n, double* c, double* s) {
  for (index t = 0; t < n; t += lanes<double>) {
    index const count = n - t < lanes<double> ? n - t : lanes<double>;
#if defined(__FMA__) || defined(__AVX512F__)
    batch<double> const p(position);
    batch<double> const turn = count == lanes<double> ? load(theta + t) : load_first(theta + t, count);
    batch<double> const angle = p * turn;
    if (mask_bits<double>(heed::abs(angle) <= batch<double>(0x1p30)) == (1U << lanes<double>)-1) {
      cos_sin_reduced(angle, fma(p, turn, batch<double>(0.0) - angle), c + t, s + t);
      continue;
    }
#endif
    for (index i = t; i < t + count; ++i)
      exact_cos_sin(position, theta[i], c[i], s[i]);
  }
}

}  // namespace impl

/// Turns rows by the angle of a position (formulas B1):
///
///     y_a = f (x_a cos φ_t − x_b sin φ_t),   y_b = f (x_b cos φ_t + x_a sin φ_t),   φ_t = position / slowness · theta_t
///
/// with (a, b) = (2t, 2t + 1) interleaved or (t, t + pairs), and f the attention factor.
///
/// - `seek` to the next whole position is a handful of instructions a pair; to another one it costs sin and cos.
/// - What `seek(p)` yields depends on p alone, never on where the rotator was before: cutting rows differently among
///   tasks leaves every bit as it is.
/// - Accuracy: angles in double, within 1e-14 of the true cos and sin at any position; then rounded to T.
/// - Memory: `scratch_bytes` of the caller, 64-byte aligned; nothing else. `theta` must outlive the rotator.
/// - The positions below `kept` keep their cos and sin once they are made, with the same bits, for heads that come to them
///   again.
/// - Positions may be negative or fractional; a NaN or infinite one yields NaN.
///
/// @see Su et al. 2021, arXiv 2104.09864, eq. 34; kexue.fm/archives/8265
template <real T>
class rotator {
 public:
  static constexpr std::size_t scratch_bytes(index pairs) {
    return angle_arrays * piece_bytes<double>(padded(pairs)) + 2 * piece_bytes<T>(2 * padded(pairs));
  }
  /// @param kept how many positions from 0 on are kept, a multiple of 16
  static std::size_t scratch_bytes(rotation const& what, index kept) {
    return scratch_bytes(what.pairs) + kept_bytes(what, kept) + piece_bytes<bool>(kept / kept_at_once);
  }
  /// The part of it that grows with `kept`: cos and sin.
  static std::size_t kept_bytes(rotation const& what, index kept) {
    return piece_bytes<T>(kept * 2 * row_numbers(what));
  }

  rotator(rotation const& what, void* scratch, index kept = 0) : what_(what), kept_(kept) {
    index const n = padded(what.pairs);
    auto* at = static_cast<std::byte*>(scratch);
    auto const take = [&at](auto*& pointer, index count) {
      using value = std::remove_pointer_t<std::remove_reference_t<decltype(pointer)>>;
      pointer = reinterpret_cast<value*>(at);
      at += piece_bytes<value>(count);
      for (index i = 0; i < count; ++i)
        pointer[i] = value(0);
    };
    for (complex* angles : {&now_, &stride_start_, &one_, &stride_}) {
      take(angles->cos, n);
      take(angles->sin, n);
    }
    take(own_cos_, 2 * n);
    take(own_sin_, 2 * n);
    take(made_, kept / kept_at_once);
    kept_rows_ = reinterpret_cast<T*>(at);
    use(own_cos_, own_sin_);
    inverse_scale_ = static_cast<T>(1 / (what.attention_factor * what.attention_factor));
    fill(one_, 1);
    fill(stride_, stride);
  }

  index pairs() const { return what_.pairs; }

  /// Makes `position` the one that rows are turned by.
  void seek(double position) {
    if (position == position_)
      return;
    position_ = position;
    if (keeps(position))
      return recall(static_cast<index>(position));
    use(own_cos_, own_sin_);
    reach(position);
  }

  /// Turns the first 2 · pairs channels at `row`, in place; the others stay.
  void rotate(T* row) const { rotate(row, row); }

  /// The same from one row into another, whose other channels stay.
  void rotate(T const* row, T* to) const { turn_all<false>(row, to, batch<T>(T(1))); }

  /// `seek(position(i))` and `rotate` for rows 0 … n − 1, with the same bits: those whose positions follow one by one keep
  /// their angles in registers. `from` and `to` may be the same rows.
  template <class Positions>
  void rotate_rows(index n, Positions const& position, T const* from, index from_ld, T* to, index to_ld) {
    for (index i = 0; i < n;) {
      double const p = position(i), end = (std::floor(p / stride) + 1) * stride;
      seek(p);
      rotate(from + i * from_ld, to + i * to_ld);
      index const next = ++i;
      bool const whole = whole_ == p && p < 0x1p53 && !keeps(p);
      double expected = p + 1;
      for (; whole && i < n && expected < end && position(i) == expected; ++i)
        expected += 1;
      if (i > next)
        rotate_next(i - next, from + next * from_ld, from_ld, to + next * to_ld, to_ld);
    }
  }

  /// Undoes `rotate` at the same position: turns back and divides by the attention factor.
  void rotate_inverse(T* row) const { turn_all<true>(row, row, batch<T>(inverse_scale_)); }

 private:
  // A whole position is reached from the multiple of 256 below it: at most 15 turns by 16 theta, then at most 15 by
  // theta, each of which may lose about an ulp. sin and cos, shared by 256 rows, vanish beside the turn itself, and a
  // seek to anywhere is at most 30 turns.
  static constexpr double stride = 16;
  static constexpr double sync = 256;
  static constexpr std::size_t angle_arrays = 8;
  static constexpr index kept_at_once = 16;  // no more than the stride

  struct complex {
    double* cos;
    double* sin;
  };

  static constexpr index padded(index pairs) {
    constexpr index step = lanes<T>;  // whole batches of T in the half layout; of double everywhere
    return (pairs + step - 1) / step * step;
  }
  template <class V>
  static constexpr std::size_t piece_bytes(index count) {
    return (static_cast<std::size_t>(count) * sizeof(V) + 63) / 64 * 64;
  }

  /// Numbers of cos, or of sin, that `rotate` reads.
  static index row_numbers(rotation const& what) { return (what.interleaved ? 2 : 1) * padded(what.pairs); }

  void use(T* cos, T* sin) {
    cos_ = cos;
    sin_ = sin;
  }

  bool keeps(double position) const {
    return position >= 0 && position < static_cast<double>(kept_) && position == std::floor(position);
  }
  T* kept_cos(index position) const { return kept_rows_ + position * 2 * row_numbers(what_); }
  T* kept_sin(index position) const { return kept_cos(position) + row_numbers(what_); }

  /// Uses what is kept of a position, which is made with the positions beside it.
  void recall(index position) {
    index const first = position / kept_at_once * kept_at_once;
    if (!std::exchange(made_[position / kept_at_once], true)) {
      use(kept_cos(first), kept_sin(first));
      reach(static_cast<double>(first));
      walk(kept_at_once - 1, [&](turn const(&from)[turns], index i, index t) HEED_LAMBDA_INLINE {
        write(from, t, kept_cos(first + 1 + i), kept_sin(first + 1 + i));
      });
    }
    use(kept_cos(position), kept_sin(position));
  }

  /// Makes cos and sin of a position.
  void reach(double position) {
    if (position != std::floor(position) || std::fabs(position) > 0x1p53) {
      fill_scaled(now_, position);
      whole_ = std::numeric_limits<double>::quiet_NaN();
      write_tables();
      return;
    }
    double const synced = std::floor(position / sync) * sync;
    double const start = std::floor(position / stride) * stride;
    if (synced != synced_ || start < stride_start_position_) {
      fill_scaled(stride_start_, synced);
      synced_ = stride_start_position_ = synced;
      whole_ = std::numeric_limits<double>::quiet_NaN();
    }
    int const strides = static_cast<int>((start - stride_start_position_) / stride);
    bool const restart = strides > 0 || !(whole_ >= start && whole_ <= position);
    int const steps = static_cast<int>(position - (restart ? start : whole_));
    advance(strides, restart, steps);
    stride_start_position_ = start;
    whole_ = position;
  }

  void fill(complex const& to, double position) const {
    impl::cos_sin(position / what_.slowness, what_.theta, what_.pairs, to.cos, to.sin);
  }
  /// Times the attention factor, which further turns keep.
  void fill_scaled(complex const& to, double position) const {
    fill(to, position);
    for (index t = 0; t < what_.pairs; ++t) {
      to.cos[t] *= what_.attention_factor;
      to.sin[t] *= what_.attention_factor;
    }
  }

  struct turn {
    batch<double> cos, sin;
    HEED_ALWAYS_INLINE static turn at(complex const& from, index t) { return {load(from.cos + t), load(from.sin + t)}; }
    HEED_ALWAYS_INLINE void put(complex const& to, index t) const {
      store(to.cos + t, cos);
      store(to.sin + t, sin);
    }
    HEED_ALWAYS_INLINE void by(turn const& o) {
      batch<double> const c = impl::fnma<double>(sin, o.sin, cos * o.cos);
      sin = fma(sin, o.cos, cos * o.sin);
      cos = c;
    }
  };

  /// As many as make a batch of T.
  static constexpr int turns = lanes<T> / lanes<double>;

  /// `strides` turns of the stride's start, then `steps` single turns from there (restart) or from where we are.
  void advance(int strides, bool restart, int steps) {
    for (index t = 0; t < what_.pairs; t += lanes<T>) {
      turn current[turns];
      unroll<turns>([&](int i) HEED_LAMBDA_INLINE {
        index const at = t + i * lanes<double>;
        turn const one = turn::at(one_, at);
        current[i] = turn::at(restart ? stride_start_ : now_, at);
        if (strides > 0) {
          turn const far = turn::at(stride_, at);
          for (int n = 0; n < strides; ++n)
            current[i].by(far);
          current[i].put(stride_start_, at);
        }
        for (int n = 0; n < steps; ++n)
          current[i].by(one);
        current[i].put(now_, at);
      });
      write(current, t, cos_, sin_);
    }
  }

  void write_tables() {
    for (index t = 0; t < what_.pairs; t += lanes<T>) {
      turn current[turns];
      unroll<turns>([&](int i) HEED_LAMBDA_INLINE { current[i] = turn::at(now_, t + i * lanes<double>); });
      write(current, t, cos_, sin_);
    }
  }

  /// The tables as `rotate` wants them: (c, s) a pair in the half layout, (c, c) and (−s, s) interleaved.
  HEED_ALWAYS_INLINE void write(turn const (&from)[turns], index t, T* cos, T* sin) const {
    batch<double> c[turns], s[turns];
    unroll<turns>([&](int i) HEED_LAMBDA_INLINE {
      c[i] = from[i].cos;
      s[i] = from[i].sin;
    });
    if (!what_.interleaved) {
      impl::store_rounded(cos + t, c);
      impl::store_rounded(sin + t, s);
      return;
    }
    unroll<turns>([&](int i) HEED_LAMBDA_INLINE {
      index const at = 2 * (t + i * lanes<double>);
      impl::store_interleaved(cos + at, c[i], c[i]);
      impl::store_interleaved(sin + at, batch<double>(0.0) - s[i], s[i]);
    });
  }

  /// Walks over the n whole positions after the one reached, all below the next multiple of the stride, for some pairs after
  /// the others: f(turns, i, first pair).
  template <class F>
  HEED_ALWAYS_INLINE void walk(index n, F const& f) {
    for (index t = 0; t < what_.pairs; t += lanes<T>) {
      turn current[turns], one[turns];
      unroll<turns>([&](int i) HEED_LAMBDA_INLINE {
        current[i] = turn::at(now_, t + i * lanes<double>);
        one[i] = turn::at(one_, t + i * lanes<double>);
      });
      for (index i = 0; i < n; ++i) {
        unroll<turns>([&](int j) HEED_LAMBDA_INLINE { current[j].by(one[j]); });
        f(current, i, t);
      }
      unroll<turns>([&](int i) HEED_LAMBDA_INLINE { current[i].put(now_, t + i * lanes<double>); });
    }
    whole_ += static_cast<double>(n);
  }

  /// n rows at those positions.
  void rotate_next(index n, T const* from, index from_ld, T* to, index to_ld) {
    walk(n, [&](turn const(&current)[turns], index i, index t) HEED_LAMBDA_INLINE {
      write(current, t, cos_, sin_);
      turn_piece<false>(from + i * from_ld, to + i * to_ld, t, batch<T>(T(1)));
    });
    position_ = whole_;
  }

  template <bool Back>
  void turn_all(T const* row, T* to, batch<T> const& scale) const {
    for (index t = 0; t < what_.pairs; t += lanes<T>)
      turn_piece<Back>(row, to, t, scale);
  }

  /// Pairs [t, t + lanes) of a row, or as many as there are.
  template <bool Back>
  HEED_ALWAYS_INLINE void turn_piece(T const* row, T* to, index t, batch<T> const& scale) const {
    if (!what_.interleaved)
      return turn_halves<Back>(row, to, t, scale);
    index const n = 2 * what_.pairs;
    for (index c = 2 * t; c < std::min(n, 2 * (t + lanes<T>)); c += lanes<T>)
      turn_interleaved<Back>(row + c, to + c, c, n - c, scale);
  }

  template <bool Back>
  HEED_ALWAYS_INLINE void turn_interleaved(T const* from, T* to, index c, index left, batch<T> const& scale) const {
    batch<T> const x = left < lanes<T> ? load_first(from, left) : load(from);
    batch<T> const s = load(sin_ + c), other = impl::swap_pairs<T>(x);
    batch<T> turned = x * load(cos_ + c);
    if constexpr (Back)
      turned = impl::fnma<T>(other, s, turned) * scale;
    else
      turned = fma(other, s, turned);
    left < lanes<T> ? store_first(to, turned, left) : store(to, turned);
  }

  template <bool Back>
  HEED_ALWAYS_INLINE void turn_halves(T const* row, T* to, index t, batch<T> const& scale) const {
    index const n = what_.pairs, left = n - t;
    bool const whole = left >= lanes<T>;
    batch<T> const a = whole ? load(row + t) : load_first(row + t, left);
    batch<T> const b = whole ? load(row + n + t) : load_first(row + n + t, left);
    batch<T> const c = load(cos_ + t), s = load(sin_ + t);
    batch<T> x, y;
    if constexpr (Back) {
      x = fma(b, s, a * c) * scale;
      y = impl::fnma<T>(a, s, b * c) * scale;
    } else {
      x = impl::fnma<T>(b, s, a * c);
      y = fma(a, s, b * c);
    }
    if (whole) {
      store(to + t, x);
      store(to + n + t, y);
    } else {
      store_first(to + t, x, left);
      store_first(to + n + t, y, left);
    }
  }

  rotation what_;
  complex now_{}, stride_start_{}, one_{}, stride_{};
  T* cos_ = nullptr;  // of the position sought
  T* sin_ = nullptr;
  T* own_cos_ = nullptr;
  T* own_sin_ = nullptr;
  T* kept_rows_ = nullptr;  // [position] cos, sin
  bool* made_ = nullptr;    // of 16 positions each
  index kept_ = 0;
  T inverse_scale_ = 1;
  double position_ = std::numeric_limits<double>::quiet_NaN();
  double whole_ = std::numeric_limits<double>::quiet_NaN();  // the whole position `now_` stands at
  double synced_ = std::numeric_limits<double>::quiet_NaN();
  double stride_start_position_ = std::numeric_limits<double>::quiet_NaN();
};

HEED_ISA_END
}  // namespace heed
