#include "support/catch.hpp"

#include <heed/vq/codebook.hpp>

#include "support/compare.hpp"
#include "support/random.hpp"

#include <set>
#include <vector>

namespace heed::test {
namespace {

/// By the definition, in the widest arithmetic there is.
template <class T>
index nearest_of(tensor<T, 3> const& vectors, index head, T const* key) {
  index best = 0;
  long double shortest = std::numeric_limits<long double>::infinity();
  for (index c = 0; c < vectors.extent(1); ++c) {
    long double d = 0;
    for (index t = 0; t < vectors.extent(2); ++t) {
      long double const x = static_cast<long double>(key[t]) - static_cast<long double>(vectors(head, c, t));
      d += x * x;
    }
    if (d < shortest)
      shortest = d, best = c;
  }
  return best;
}

/// Keys in tight clusters, one after the other.
tensor<double, 3> clustered(index clusters, index len, index dim, generator& random) {
  auto const middles = normal_tensor<double, 2>({clusters, dim}, random, 0, 10);
  tensor<double, 3> k({1, len, dim});
  for (index j = 0; j < len; ++j)
    for (index t = 0; t < dim; ++t)
      k(0, j, t) = middles(j % clusters, t) + random.normal(0, 0.1);
  return k;
}

}  // namespace

TEMPLATE_TEST_CASE("encode finds the nearest vector", "[identities][vq]", float, double) {
  using T = TestType;
  generator random(301);
  INFO(random);
  for (index dim : {1, 3, 8, 70})
    for (index codes : {1, 2, 9, 130}) {
      auto const vectors = normal_tensor<T, 3>({2, codes, dim}, random);
      auto const k = normal_tensor<T, 4>({2, 2, 75, dim}, random);
      codebook<T> const book(vectors);
      auto const z = book.encode(k);
      auto const decoded = book.decode(z);
      REQUIRE(z.extents() == index_array<3>{2, 2, 75});
      for (index b = 0; b < 2; ++b)
        for (index h = 0; h < 2; ++h)
          for (index j = 0; j < 75; ++j) {
            REQUIRE(z(b, h, j) == nearest_of(vectors, h, &k(b, h, j, 0)));
            for (index t = 0; t < dim; ++t)
              REQUIRE(decoded(b, h, j, t) == vectors(h, z(b, h, j), t));
          }
    }
}

TEMPLATE_TEST_CASE("encode: ties, keys far away, and keys that nobody stands beside", "[edges][vq]", float, double) {
  using T = TestType;
  generator random(302);
  INFO(random);
  // Every vector three times: the first wins, wherever the product's panels end.
  index const codes = 61, dim = 37;
  auto vectors = normal_tensor<T, 3>({1, 3 * codes, dim}, random);
  for (index c = codes; c < 3 * codes; ++c)
    for (index t = 0; t < dim; ++t)
      vectors(0, c, t) = vectors(0, c % codes, t);
  codebook<T> const book(vectors);
  auto k = normal_tensor<T, 3>({1, 130, dim}, random, 0, 100);
  auto const z = book.encode(k);
  for (index j = 0; j < 130; ++j) {
    CHECK(z(0, j) < codes);
    CHECK(z(0, j) == nearest_of(vectors, 0, &k(0, j, 0)));
    view<T const, 3> const alone(&k(0, j, 0), {1, 1, dim});
    CHECK(book.encode(alone)(0, 0) == z(0, j));
  }
  if constexpr (std::is_same_v<T, float>) {
    // Vectors that differ in less than the product of a long key can tell.
    tensor<T, 2> close({3, 2}), far({1, 2});
    close(0, 0) = 1, close(1, 0) = 1 + std::numeric_limits<T>::epsilon(), close(2, 0) = 1;
    far(0, 0) = 1e4f, far(0, 1) = 3e3f;
    CHECK(codebook<T>(close).encode(far)(0) == 1);
    // Norms beyond the type.
    T const huge = std::sqrt(std::numeric_limits<T>::max()) * T(4);
    tensor<T, 2> large({2, 1}), key({1, 1});
    large(0, 0) = huge, large(1, 0) = -huge, key(0, 0) = -huge;
    CHECK(codebook<T>(large).encode(key)(0) == 1);
  }
}

TEST_CASE("encode reads any storage and strides, and writes where it is told", "[contract][vq]") {
  generator random(303);
  INFO(random);
  auto const vectors = normal_tensor<float, 3>({1, 8, 6}, random);
  codebook<float> const book(vectors);
  auto const k = normal_tensor<Eigen::bfloat16, 2>({6, 20}, random);  // channels first
  view<Eigen::bfloat16 const, 2> const rows(k.data(), {20, 6}, {1, 20});
  tensor<float, 2> wide({20, 6});
  for (index j = 0; j < 20; ++j)
    for (index t = 0; t < 6; ++t)
      wide(j, t) = static_cast<float>(k(t, j));
  auto const expected = book.encode(wide);
  CHECK(same_bits(book.encode(rows), expected));
  Eigen::VectorXi column(20);
  book.encode(rows, column);
  for (index j = 0; j < 20; ++j)
    CHECK(column(j) == expected(j));
  CHECK(codebook(k).vectors().extent(1) == 6);  // the type from the tensor
}

TEST_CASE("k-means++ spreads its vectors over the clusters", "[identities][vq]") {
  generator random(304);
  INFO(random);
  auto const k = clustered(12, 600, 5, random);
  codebook<double> book(1, 12, 5), again(1, 12, 5), even(1, 12, 5);
  book.initialise(k, 1);
  again.initialise(k, 1);
  CHECK(difference_of(book.vectors(), again.vectors()).absolute == 0);
  // The first twelve keys of one cluster, and clusters left out: what luck may do.
  tensor<double, 2> poor({12, 5});
  for (index c = 0; c < 12; ++c)
    for (index t = 0; t < 5; ++t)
      poor(c, t) = k(0, 12 * c, t);
  INFO(book.error(k) << " against " << codebook<double>(poor).error(k));
  CHECK(book.error(k) < 0.01 * codebook<double>(poor).error(k));
  CHECK(book.error(k) < 0.2);  // 5 channels, twice the variance 0.01 of a cluster
  std::set<int> used;
  auto const z = book.encode(k);
  for (index j = 0; j < 600; ++j)
    used.insert(z(0, j));
  CHECK(used.size() == 12);

  // fewer keys than codes
  view<double const, 3> const three(k.data(), {1, 3, 5});
  book.initialise(three, 9);
  CHECK(book.error(three) == 0);
}

TEST_CASE("The moving average goes where it should", "[reference][vq]") {
  // one head, three codes, the third of them unused
  tensor<double, 2> vectors({3, 2}), k({3, 2});
  vectors(0, 0) = 1, vectors(1, 0) = -1, vectors(2, 1) = 50;
  k(0, 0) = 2, k(0, 1) = 1, k(1, 0) = 4, k(1, 1) = -1, k(2, 0) = -3, k(2, 1) = 2;
  codebook<double> book(vectors);
  book.update(k, 0.75);
  // sum ← 0.75 C + 0.25 Σ k, count ← 0.75 + 0.25 #
  auto const close = [](double got, double expected) { CHECK(got == Approx(expected).epsilon(1e-14)); };
  close(book.vectors()(0, 0, 0), (0.75 * 1 + 0.25 * 6) / (0.75 + 0.25 * 2));
  close(book.vectors()(0, 0, 1), 0);
  close(book.vectors()(0, 1, 0), (-0.75 - 0.25 * 3) / 1.0);
  close(book.vectors()(0, 1, 1), 0.25 * 2 / 1.0);
  close(book.vectors()(0, 2, 1), 50);  // sum and count shrink together
  for (int i = 0; i < 20; ++i)
    book.update(k, 0.75);
  // 0.75^21 = 0.00238 is below the least count, 0.01
  close(book.vectors()(0, 2, 1), 50 * std::pow(0.75, 21) / 0.01);
  double const before = book.error(k);
  for (int i = 0; i < 100; ++i)
    book.update(k, 0.75);
  CHECK(book.error(k) <= before);
  close(book.vectors()(0, 0, 0), 3);

  // A batch counts as so many keys more; 1 changes nothing.
  codebook<double> one(vectors), two(vectors);
  tensor<double, 4> batches({2, 1, 3, 2});
  for (index b = 0; b < 2; ++b)
    std::copy_n(k.data(), 6, &batches(b, 0, 0, 0));
  one.update(batches, 0.5);
  close(one.vectors()(0, 0, 0), (0.5 + 0.5 * 12) / (0.5 + 0.5 * 4));
  two.update(k, 1);
  CHECK(difference_of(two.vectors(), codebook<double>(vectors).vectors()).absolute == 0);
}

TEST_CASE("codebook refuses what does not fit", "[errors][vq]") {
  auto const says = [](std::string const& text) { return ContainsSubstring(text); };
  codebook<double> book(2, 4, 3);
  tensor<double, 3> k({2, 5, 3});
  tensor<double, 3> const heads({1, 5, 3}), dims({2, 5, 2}), none({2, 0, 3});
  CHECK_THROWS_WITH(book.encode(heads), says("codebook::encode: k.extent(heads) must equal the codebook's 2, got 1"));
  CHECK_THROWS_WITH(book.encode(dims), says("codebook::encode: k.extent(dim) must equal the codebook's 3, got 2"));
  CHECK_THROWS_WITH(book.initialise(none, 1), says("at least one key"));
  CHECK_THROWS_WITH(book.update(k, 1.5), says("decay must lie in [0, 1], got 1.5"));
  tensor<std::int32_t, 2> z({2, 4});
  CHECK_THROWS_WITH(book.encode(k, z), says("codes.extent(len) must be 5, got 4"));
  z(1, 3) = 4;
  CHECK_THROWS_WITH(book.decode(z), says("codebook::decode: codes must lie in [0, 4), got 4"));
  CHECK(book.encode(none).size() == 0);
  k(1, 4, 2) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(book.encode(k), says("k must be finite"));
  CHECK_THROWS_WITH(book.update(k), says("k must be finite"));
  CHECK_THROWS_WITH(book.initialise(k, 1), says("k must be finite"));
  CHECK_THROWS_WITH(codebook<double>(k), says("vectors must be finite"));
  CHECK_THROWS_WITH(codebook<double>(1, 0, 3), says("at least 1, got 1, 0, 3"));
}

}  // namespace heed::test
