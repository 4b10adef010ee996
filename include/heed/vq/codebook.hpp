#pragma once

#include <heed/vq/codes.hpp>

#include <cmath>
#include <random>

/// Vector-quantised keys: every key is replaced by the nearest of a few vectors of its head.

namespace heed {
HEED_ISA_BEGIN

/// A codebook `[heads, codes, dim]`, one set of vectors per key head; T is float or double, keys may be in any storage
/// of the same arithmetic.
///
///     code(k) = argmin_c |k − C_c|²     found as argmin_c |C_c|²/2 − k·C_c: one product, then a minimum
///
/// - Ties go to the lowest index. The product only narrows the choice: codes that its rounding cannot tell apart are
///   compared by their distances in double, so that a key's code does not depend on the keys beside it.
/// - The product is Eigen's, and so are its scratch and its threads.
/// @see Lingle 2023, arXiv 2309.16354; Su, kexue.fm/archives/9844; formulas C6
template <real T>
class codebook {
 public:
  using value_type = T;

  /// All vectors zero: to be initialised.
  codebook(index heads, index codes, index dim) : centres_(shape(heads, codes, dim)), half_norms_({heads, codes}) {
    settle();
  }

  /// A copy of `[heads, codes, dim]`, or `[codes, dim]` for a single head.
  /// @throws argument_error for a vector that is not finite
  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, codebook> && requires(Tensor const& t) { as_view(t); })
  explicit codebook(Tensor const& vectors) {
    operand const from = impl::key_rows(vectors);
    static_assert(std::same_as<arithmetic_t<impl::stored_in<Tensor const&>>, T>,
                  "heed: double goes with double only: a codebook<double> is made from double");
    detail::expect(from.extents[0] == 1, "codebook: vectors must be [heads, codes, dim], got ", from.extents[0],
                   " batches");
    centres_ = tensor<T, 3>(shape(from.extents[1], from.extents[2], from.extents[3]));
    half_norms_ = tensor<T, 2>({heads(), codes()});
    for (index h = 0; h < heads(); ++h)
      load_rows(from.at(0, h, 0, 0), from.kind, from.strides[2], from.strides[3], codes(), dim(), &centres_(h, 0, 0),
                dim());
    settle();
  }

  index heads() const { return centres_.extent(0); }
  index codes() const { return centres_.extent(1); }
  index dim() const { return centres_.extent(2); }
  /// `[heads, codes, dim]`
  view<T const, 3> vectors() const { return std::as_const(centres_).view(); }

  /// All the memory that it holds.
  std::size_t bytes() const {
    auto const of = [](auto const& x) { return static_cast<std::size_t>(x.size()) * sizeof(*x.data()); };
    return of(centres_) + of(half_norms_) + of(greatest_) + of(sums_);
  }

  /// The codes of keys `[batch, heads, len, dim]` as int32 `[batch, heads, len]`; ranks 3 and 2 likewise.
  /// @throws argument_error for other extents, or a key that is not finite
  template <class K>
  auto encode(K const& k) const {
    constexpr int rank = impl::rank_of<K const&>;
    auto const keys = as_view(k);
    index_array<rank - 1> extents{};
    std::copy_n(keys.extents().begin(), rank - 1, extents.begin());
    tensor<std::int32_t, rank - 1> result(extents);
    encode(k, result);
    return result;
  }

  /// The same into a tensor that is there.
  template <class K, class Codes>
  void encode(K const& k, Codes&& result) const {
    operand const keys = impl::key_rows(k);
    impl::expect_keys("codebook::encode", keys, heads(), dim());
    auto const z = impl::codes_view(as_view(std::forward<Codes>(result)), impl::rank_of<K const&> == 2);
    impl::expect_codes("codebook::encode", z, {keys.extents[0], keys.extents[1], keys.extents[2]});
    for_each_chunk(keys, [&](index b, index h, index first, index n, T const*, std::int32_t const* found) {
      for (index i = 0; i < n; ++i)
        z(b, h, first + i) = found[i];
    });
  }

  /// The vectors of codes `[batch, heads, len]`, as a tensor with one dimension more.
  /// @throws argument_error for a code that is not in [0, codes)
  template <class Codes>
  auto decode(Codes const& z) const {
    auto const given = as_view(z);
    constexpr int rank = decltype(as_view(z))::rank;
    auto const all = impl::codes_view(given, false);
    impl::expect_codes("codebook::decode", all, {all.extent(0), heads(), all.extent(2)});
    index_array<rank + 1> extents{};
    std::copy_n(given.extents().begin(), rank, extents.begin());
    extents.back() = dim();
    tensor<T, rank + 1> result(extents);
    T* to = result.data();
    for (index b = 0; b < all.extent(0); ++b)
      for (index h = 0; h < heads(); ++h)
        for (index j = 0; j < all.extent(2); ++j, to += dim()) {
          expect_code("codebook::decode", all(b, h, j));
          std::copy_n(&centres_(h, all(b, h, j), 0), dim(), to);
        }
    return result;
  }

  /// Mean of |k − C_code(k)|² over all keys.
  template <class K>
  double error(K const& k) const {
    operand const keys = impl::key_rows(k);
    impl::expect_keys("codebook::error", keys, heads(), dim());
    double sum = 0;
    for_each_chunk(keys, [&](index, index h, index, index n, T const* rows, std::int32_t const* found) {
      for (index i = 0; i < n; ++i)
        sum += distance(rows + i * dim(), &centres_(h, found[i], 0));
    });
    index const all = keys.extents[0] * keys.extents[1] * keys.extents[2];
    return all == 0 ? 0 : sum / static_cast<double>(all);
  }

  /// k-means++: the first vector is a key drawn at random, each further one a key drawn with a probability that grows
  /// with its squared distance from the nearest vector so far. Once every key is a vector, the rest repeat keys, and
  /// stay unused. The same seed gives the same vectors.
  /// @throws argument_error for no keys, or a key that is not finite
  /// @see Arthur and Vassilvitskii 2007
  template <class K>
  void initialise(K const& k, std::uint64_t seed) {
    operand const keys = impl::key_rows(k);
    impl::expect_keys("codebook::initialise", keys, heads(), dim());
    index const len = keys.extents[2], all = keys.extents[0] * len;
    detail::expect(all > 0, "codebook::initialise: k must hold at least one key, got 0");
    tensor<T, 2> rows({all, dim()});
    tensor<double, 1> nearest({all});
    tensor<T, 3> chosen(centres_.extents());
    std::mt19937_64 random(seed);
    for (index h = 0; h < heads(); ++h) {
      for (index b = 0; b < keys.extents[0]; ++b)
        load_rows(keys.at(b, h, 0, 0), keys.kind, keys.strides[2], keys.strides[3], len, dim(), &rows(b * len, 0),
                  dim());
      detail::expect(all_finite(rows.data(), dim(), all, dim()),
                     "codebook::initialise: k must be finite, got a key of head ", h, " that is not");
      std::fill_n(nearest.data(), all, 1.0);
      for (index c = 0; c < codes(); ++c) {
        T const* const drawn = &rows(draw(nearest, random), 0);
        std::copy_n(drawn, dim(), &chosen(h, c, 0));
        for (index j = 0; j < all; ++j) {
          double const d = distance(&rows(j, 0), drawn);
          nearest(j) = c == 0 ? d : std::min(nearest(j), d);
        }
      }
    }
    centres_ = std::move(chosen);
    sums_ = tensor<double, 3>();
    settle();
  }

  /// One step of the moving average, with g = decay:
  ///
  ///     sum_c ← g sum_c + (1 − g) Σ_{code(k) = c} k,   count_c ← g count_c + (1 − g) #{code(k) = c}
  ///     C_c = sum_c / max(count_c, 0.01)
  ///
  /// Before the first step sum_c is C_c and count_c is 1. What was encoded before is stale afterwards.
  /// @throws argument_error unless 0 ≤ decay ≤ 1, or for a key that is not finite; nothing is changed then
  template <class K>
  void update(K const& k, double decay = 0.99) {
    detail::expect(decay >= 0 && decay <= 1, "codebook::update: decay must lie in [0, 1], got ", decay);
    operand const keys = impl::key_rows(k);
    impl::expect_keys("codebook::update", keys, heads(), dim());
    tensor<double, 3> sums({heads(), codes(), dim() + 1});  // the last number of a row counts
    for_each_chunk(keys, [&](index, index h, index, index n, T const* rows, std::int32_t const* found) {
      for (index i = 0; i < n; ++i) {
        double* const sum = &sums(h, found[i], 0);
        for (index t = 0; t < dim(); ++t)
          sum[t] += static_cast<double>(rows[i * dim() + t]);
        sum[dim()] += 1;
      }
    });
    if (sums_.size() == 0)
      start_average();
    for (index i = 0; i < sums.size(); ++i)
      sums_.data()[i] = decay * sums_.data()[i] + (1 - decay) * sums.data()[i];
    for (index h = 0; h < heads(); ++h)
      for (index c = 0; c < codes(); ++c) {
        double const count = std::max(sums_(h, c, dim()), least_count);
        for (index t = 0; t < dim(); ++t)
          centres_(h, c, t) = static_cast<T>(sums_(h, c, t) / count);
      }
    settle();
  }

  /// Keys that are encoded at once, and the scratch that this takes: products of a chunk with all codes.
  static constexpr index chunk = 64;
  index scratch_size() const { return chunk * codes(); }

  /// found[i] = the code of rows[i · dim …], n ≤ chunk finite keys of one head.
  void nearest(index head, T const* rows, index n, T* scratch, std::int32_t* found) const {
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<matrix const> const keys(rows, n, dim()), vectors(&centres_(head, 0, 0), codes(), dim());
    Eigen::Map<matrix> products(scratch, n, codes());
    products.noalias() = keys * vectors.transpose();
    for (index i = 0; i < n; ++i)
      found[i] = static_cast<std::int32_t>(nearest_by(head, rows + i * dim(), scratch + i * codes()));
  }

  void expect_code(char const* function, std::int32_t code) const {
    detail::expect(code >= 0 && code < codes(), function, ": codes must lie in [0, ", codes(), "), got ", code);
  }

 private:
  // Of transformer_vq: keeps a code that is hardly used from being divided by next to nothing.
  static constexpr double least_count = 0.01;

  static index_array<3> shape(index heads, index codes, index dim) {
    detail::expect(heads >= 1 && codes >= 1 && dim >= 1, "codebook: heads, codes and dim must be at least 1, got ",
                   heads, ", ", codes, ", ", dim);
    detail::expect(codes <= std::numeric_limits<std::int32_t>::max(), "codebook: codes must fit int32, got ", codes);
    return {heads, codes, dim};
  }

  /// |C|²/2 of every vector, and the greatest norm of a head.
  void settle() {
    detail::expect(all_finite(centres_.data(), dim(), heads() * codes(), dim()), "codebook: vectors must be finite");
    greatest_ = tensor<double, 1>({heads()});
    for (index h = 0; h < heads(); ++h)
      for (index c = 0; c < codes(); ++c) {
        double const square = squared_norm(&centres_(h, c, 0));
        half_norms_(h, c) = static_cast<T>(square / 2);
        greatest_(h) = std::max(greatest_(h), std::sqrt(square));
      }
  }

  void start_average() {
    sums_ = tensor<double, 3>({heads(), codes(), dim() + 1});
    for (index h = 0; h < heads(); ++h)
      for (index c = 0; c < codes(); ++c) {
        std::copy_n(&centres_(h, c, 0), dim(), &sums_(h, c, 0));
        sums_(h, c, dim()) = 1;
      }
  }

  double squared_norm(T const* x) const {
    double sum = 0;
    for (index t = 0; t < dim(); ++t)
      sum += static_cast<double>(x[t]) * static_cast<double>(x[t]);
    return sum;
  }

  double distance(T const* x, T const* y) const {
    double sum = 0;
    for (index t = 0; t < dim(); ++t) {
      double const d = static_cast<double>(x[t]) - static_cast<double>(y[t]);
      sum += d * d;
    }
    return sum;
  }

  /// The nearest code, given the key's products with all of them, which are overwritten.
  index nearest_by(index head, T const* key, T* products) const {
    Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>> values(products, codes());
    Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1> const> const half_norms(&half_norms_(head, 0), codes());
    values = half_norms - values;
    T const least = values.minCoeff();
    // A product of dim terms and the norm are off by at most (dim + 2) ε |k| |C| and ε |C|²/2 each. Not-a-number, from
    // norms that overflow, is no reason to leave a code out.
    double const epsilon = static_cast<double>(std::numeric_limits<T>::epsilon());
    double const top = greatest_(head),
                 off = epsilon * (static_cast<double>(dim() + 2) * std::sqrt(squared_norm(key)) * top + top * top);
    bool const overflows = !std::isfinite(static_cast<T>(top * top));
    T const limit = overflows ? std::numeric_limits<T>::infinity() : least + static_cast<T>(2 * off);
    index best = 0, candidates = 0;
    for (index c = 0; c < codes(); ++c) {
      if (products[c] > limit)
        continue;
      if (candidates++ == 0)
        best = c;
    }
    if (candidates == 1)
      return best;
    double shortest = std::numeric_limits<double>::infinity();
    for (index c = codes(); c-- > 0;) {
      if (products[c] > limit)
        continue;
      double const d = distance(key, &centres_(head, c, 0));
      if (d <= shortest)
        shortest = d, best = c;
    }
    return best;
  }

  /// Calls f(batch, head, first, count, rows, codes) for chunk after chunk of the keys.
  template <class F>
  void for_each_chunk(operand const& keys, F const& f) const {
    tensor<T, 1> products({scratch_size()}), rows({chunk * dim()});
    std::int32_t found[static_cast<std::size_t>(chunk)];
    auto const each = [&](auto const& visit) {
      for (index b = 0; b < keys.extents[0]; ++b)
        for (index h = 0; h < heads(); ++h)
          for (index first = 0; first < keys.extents[2]; first += chunk) {
            index const n = std::min(chunk, keys.extents[2] - first);
            load_rows(keys.at(b, h, first, 0), keys.kind, keys.strides[2], keys.strides[3], n, dim(), rows.data(),
                      dim());
            visit(b, h, first, n);
          }
    };
    each([&](index b, index h, index first, index n) {
      detail::expect(all_finite(rows.data(), dim(), n, dim()), "codebook: k must be finite, got a key in batch ", b,
                     ", head ", h, ", rows ", first, " to ", first + n - 1, " that is not");
    });
    each([&](index b, index h, index first, index n) {
      nearest(h, rows.data(), n, products.data(), found);
      f(b, h, first, n, rows.data(), found);
    });
  }

  /// An index drawn with these weights; evenly where all are zero.
  static index draw(tensor<double, 1> const& weights, std::mt19937_64& random) {
    double const at = static_cast<double>(random() >> 11) * 0x1p-53;
    double sum = 0;
    for (index j = 0; j < weights.size(); ++j)
      sum += weights(j);
    if (!(sum > 0) || !std::isfinite(sum))
      return std::min(weights.size() - 1, static_cast<index>(at * static_cast<double>(weights.size())));
    double left = at * sum;
    index last = 0;
    for (index j = 0; j < weights.size(); ++j) {
      if (weights(j) == 0)
        continue;
      last = j;
      left -= weights(j);
      if (left < 0)
        break;
    }
    return last;
  }

  tensor<T, 3> centres_;
  tensor<T, 2> half_norms_;     // |C|²/2
  tensor<double, 1> greatest_;  // greatest |C| of a head
  tensor<double, 3> sums_;      // of the moving average, once it runs
};

template <class Tensor>
codebook(Tensor const&) -> codebook<arithmetic_t<impl::stored_in<Tensor const&>>>;

HEED_ISA_END
}  // namespace heed
