#include "support/catch.hpp"

#include <heed/position/rerope.hpp>
#include <heed/recurrent/constant_space.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/counting_allocator.hpp"
#include "support/random.hpp"

#include <numeric>

// constant_space_stack: a stack without a cache gives what a stack with one gives, and costs what C7 says.

namespace heed::test {
namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr index width = 6, heads_q = 2, heads_kv = 1, dim = 4, dim_v = 3;

/// Random projections; combine is a residual step with a bend, so that layers are not linear.
struct weights {
  matrix q, k, v, o;

  explicit weights(generator& random) {
    auto const draw = [&](index rows, index columns) {
      return matrix(matrix::NullaryExpr(rows, columns, [&] { return random.normal(0, 0.6); }));
    };
    q = draw(width, heads_q * dim);
    k = draw(width, heads_kv * dim);
    v = draw(width, heads_kv * dim_v);
    o = draw(heads_q * dim_v, width);
  }

  template <class T = double>
  constant_space_layer<T> layer() const {
    using row = Eigen::Matrix<T, 1, Eigen::Dynamic>;
    using row_map = Eigen::Map<row>;
    using row_view = Eigen::Map<row const>;
    struct {
      Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> q, k, v, o;
    } const own{q.cast<T>(), k.cast<T>(), v.cast<T>(), o.cast<T>()};
    constant_space_layer<T> l{dim, dim_v, heads_q, heads_kv, {}, {}, {}};
    l.query = [own](T const* x, T* to) { row_map(to, heads_q * dim).noalias() = row_view(x, width) * own.q; };
    l.key_value = [own](T const* x, T* key, T* value) {
      row_map(key, heads_kv * dim).noalias() = row_view(x, width) * own.k;
      row_map(value, heads_kv * dim_v).noalias() = row_view(x, width) * own.v;
    };
    l.combine = [own](T const* x, T const* attended, T* y) {
      row_map to(y, width);
      to.noalias() = row_view(attended, heads_q * dim_v) * own.o;
      to = row_view(x, width).array() + to.array().tanh();
    };
    return l;
  }

  /// The whole sequence at once, keys and values kept.
  template <class... Ms>
  matrix apply(matrix const& x, Ms const&... ms) const {
    index const n = x.rows();
    matrix const queries = x * q, keys = x * k, values = x * v;
    matrix attended(n, heads_q * dim_v);
    auto const heads = [n](matrix const& m, index count) {
      return view<double const, 3>(m.data(), {count, n, m.cols() / count}, {m.cols() / count, m.cols(), 1});
    };
    view<double, 3> const out(attended.data(), {heads_q, n, dim_v}, {dim_v, attended.cols(), 1});
    reference::attention<long double>(heads(queries, heads_q), heads(keys, heads_kv), heads(values, heads_kv), out,
                                      causal{}, ms...);
    return x + matrix((attended * o).array().tanh());
  }
};

template <class T = double>
std::vector<constant_space_layer<T>> layers_of(std::vector<weights> const& all, std::size_t count) {
  std::vector<constant_space_layer<T>> result;
  for (std::size_t n = 0; n < count; ++n)
    result.push_back(all[n].template layer<T>());
  return result;
}

struct model {
  std::vector<weights> layers;
  matrix embedding;

  model(std::size_t count, index n) {
    generator random(21);
    for (std::size_t l = 0; l < count; ++l)
      layers.emplace_back(random);
    embedding = matrix::NullaryExpr(n, width, [&] { return random.normal(); });
  }
  template <class T = double>
  auto embed() const {
    if constexpr (std::is_same_v<T, double>)
      return [this](index j) { return embedding.row(j).data(); };
    else
      return [this](index j) { return Eigen::Matrix<T, 1, Eigen::Dynamic>(embedding.row(j).cast<T>()); };
  }
};

index steps_of(index token, int layers) {
  if (layers == 0)
    return 0;
  index sum = token + steps_of(token, layers - 1);
  for (index j = 1; j <= token; ++j)
    sum += steps_of(j, layers - 1);
  return sum;
}

}  // namespace

TEMPLATE_TEST_CASE("A constant-space stack equals a cached one, 1 to 3 layers", "[identities][contract]", double,
                   float) {
  using T = TestType;
  model const m(3, 12);
  rotary const turn{frequencies::standard(dim), layout::half};
  auto const check = [&](auto const&... ms) {
    matrix x = m.embedding;
    for (std::size_t depth = 1; depth <= 3; ++depth) {
      x = m.layers[depth - 1].apply(x, ms...);
      constant_space_stack<T> stack(width, layers_of<T>(m.layers, depth));
      for (index i = 0; i < 12; ++i) {
        Eigen::Matrix<T, Eigen::Dynamic, 1> row(width);
        stack.evaluate(i, m.embed<T>(), row, ms...);
        INFO(depth << " layers, row " << i);
        REQUIRE((row.transpose().template cast<double>() - x.row(i)).cwiseAbs().maxCoeff() <
                (sizeof(T) == 8 ? 1e-12 : 1e-5));
      }
    }
  };
  check();
  check(turn, log_n{4});
  check(rerope{turn, 3}, softcap{3});
  check(window{2, 0}, turn);
}

TEST_CASE("Inner steps are 10, 75 and 415 for the tenth token of 1, 2 and 3 layers", "[contract]") {
  model const m(4, 12);
  index const known[] = {10, 75, 415};
  for (int depth = 1; depth <= 4; ++depth)
    for (index token = 1; token <= 10; ++token) {
      constant_space_stack<double> stack(width, layers_of(m.layers, static_cast<std::size_t>(depth)));
      std::vector<double> row(width);
      stack.evaluate(token - 1, m.embed(), row);
      CHECK(stack.steps() == steps_of(token, depth));
      if (token == 10 && depth <= 3)
        CHECK(stack.steps() == known[depth - 1]);
    }
}

TEST_CASE("A constant-space stack needs the memory of its layers, not of its length", "[resources][contract]") {
  model const m(2, 130);
  constant_space_stack<double> stack(width, layers_of(m.layers, 2));
  std::vector<double> row(width);
  stack.evaluate(1, m.embed(), row);
  std::size_t const held = stack.memory_bytes();
  for (index i : {10, 40, 129}) {
    stack.evaluate(i, m.embed(), row);
    CHECK(stack.memory_bytes() == held);
  }
  allocation_count const asked;
  stack.evaluate(129, m.embed(), row.data());
  CHECK(asked.count() == 0);
}

TEST_CASE("A stack without layers is the embedding, and wrong ones are refused", "[edges][errors]") {
  model const m(1, 3);
  constant_space_stack<double> none(width, {});
  std::vector<double> row(width);
  none.evaluate(2, m.embed(), row);
  for (index c = 0; c < width; ++c)
    CHECK(row[static_cast<std::size_t>(c)] == m.embedding(2, c));
  CHECK(none.steps() == 0);
  CHECK_THROWS_AS(constant_space_stack<double>(0, {}), argument_error);
  CHECK_THROWS_AS(constant_space_stack<double>(width, {constant_space_layer<double>{4, 4, 1, 1, {}, {}, {}}}),
                  argument_error);
  CHECK_THROWS_AS(none.evaluate(-1, m.embed(), row), argument_error);
}

}  // namespace heed::test
