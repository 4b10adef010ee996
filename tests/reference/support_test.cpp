#include "support/catch.hpp"

#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/counting_allocator.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <new>

// The tools that judge heed, judged.

namespace heed::test {

TEST_CASE("Guard bytes notice what is written between and around rows", "[reference]") {
  guarded<float, 2> rows({3, 4}, {6, 1}), backwards({3, 4}, {-6, 1}), packed({3, 4});
  for (auto const* g : {&rows, &backwards, &packed}) {
    fill(g->view(), [] { return 1; });
    CHECK(g->damage().empty());
  }
  rows.view().data()[4] = 0;
  CHECK_FALSE(rows.damage().empty());
  backwards.view().data()[-1] = 0;
  CHECK_FALSE(backwards.damage().empty());
  packed.view().data()[12] = 0;
  CHECK_FALSE(packed.damage().empty());
}

TEST_CASE("The counting allocator counts every way to the heap", "[reference]") {
  allocation_count const all;
  CHECK(all.count() == 0);
  {
    allocation_count const scope;
    ::operator delete(::operator new(24));  // a function call: a new-expression may be optimised away
    ::operator delete(::operator new(24, std::nothrow));
    CHECK(scope.count() == 2);
    CHECK(scope.bytes() == 48);
  }
  {
    allocation_count const scope;
    tensor<float, 1> const aligned({100});
    CHECK(scope.count() == 1);
    CHECK(scope.bytes() == 400);
  }
  if (counts_malloc()) {
    allocation_count const scope;
    Eigen::MatrixXf const from_malloc(10, 10);
    CHECK(scope.count() == 1);
  }
}

TEST_CASE("Differences see NaN, infinities and the worst place", "[reference]") {
  tensor<float, 3> a({2, 3, 4}), b({2, 3, 4});
  CHECK(difference_of(a, b).absolute == 0);
  b(1, 2, 3) = 0.5F;
  b(0, 1, 0) = 0.25F;
  auto const error = difference_of(a, b, 2);
  CHECK(error.absolute == 0.5);
  CHECK(error.relative == 0.25);
  CHECK(error.where == index_array<4>{0, 1, 2, 3});
  float const infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  a(0, 0, 0) = b(0, 0, 0) = nan;
  a(0, 0, 1) = b(0, 0, 1) = -infinity;
  CHECK(difference_of(a, b, 2).absolute == 0.5);
  a(0, 0, 1) = infinity;
  CHECK(std::isinf(difference_of(a, b).absolute));
  a(0, 0, 1) = -infinity;
  a(0, 0, 0) = 0;
  CHECK(std::isinf(difference_of(a, b).relative));
}

TEST_CASE("Generators repeat, and the naive composition keeps the contract's bound", "[reference]") {
  CHECK(generator(3).normal() == generator(3).normal());
  CHECK(generator(3).normal() != generator(4).normal());
  generator random(11);
  INFO(random);
  auto const check_naive = [&](auto stored) {
    using T = decltype(stored);
    auto const q = normal_tensor<T, 4>({2, 4, 9, 16}, random), k = normal_tensor<T, 4>({2, 2, 33, 16}, random),
               v = normal_tensor<T, 4>({2, 2, 33, 8}, random);
    auto const scores = reference::scores<long double>(q, k);
    tensor<double, 4> expected({2, 4, 9, 8});
    reference::attention<long double>(q, k, v, expected);
    auto const naive = naive_composition<T>(q.view(), k.view(), v.view(), scores);
    auto const result = accuracy_of(naive, expected, v, scores, naive);
    INFO(result.message());
    CHECK(result.within_naive());
    CHECK(result.error.absolute > 0);
    if (sizeof(T) > 2)
      CHECK(result.within_bound());
    auto off = naive;
    off(1, 2, 3, 4) = static_cast<T>(static_cast<double>(off(1, 2, 3, 4)) + 0.5);
    CHECK_FALSE(accuracy_of(off, expected, v, scores, naive).within_bound());
    CHECK_FALSE(accuracy_of(off, expected, v, scores, naive).within_naive());
  };
  check_naive(float{});
  check_naive(double{});
  check_naive(Eigen::half{});
  check_naive(Eigen::bfloat16{});
}

}  // namespace heed::test
