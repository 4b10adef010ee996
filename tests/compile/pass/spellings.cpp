#include <heed/attention/attention.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/position/rotary.hpp>

#include <Eigen/Core>
#include <vector>

// What the contract spells: const, lvalue and rvalue modifiers, temporary outs, sets.

void tensors(float const* p, heed::view<float const, 4> const& q) {
  std::array<std::ptrdiff_t, 4> e{1, 8, 16, 64}, s{8192, 64, 512, 1};
  heed::view<float const, 4> a(p, e), b(p, {1, 8, 16, 64}), c(p, {1, 8, 16, 64}, {8192, 64, 512, 1}), d(p, e, s);
  std::ptrdiff_t n = a.extent(2), t = a.stride(2);
  float x = a(0, 1, 2, 3);
  static_cast<void>(n + t + static_cast<std::ptrdiff_t>(x)), static_cast<void>(b), static_cast<void>(c);
  heed::tensor<float, 4> out(e);
  heed::attention(q, d, a, out);
  heed::attention(q, d, a, out.view(), heed::causal{});
}

void modifiers(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
               std::ptrdiff_t left, std::vector<std::ptrdiff_t> const& vector_of_ptrdiff,
               std::vector<int> const& per_batch_vector, heed::view<bool const, 4> bool_view4,
               heed::view<float, 4> float_view4, Eigen::ThreadPoolInterface& threads) {
  static_assert(std::is_same_v<decltype(heed::unbounded), std::ptrdiff_t const>);
  auto const w = heed::window{left < 0 ? heed::unbounded : left, heed::unbounded};
  auto const m = heed::modifiers(heed::causal{}, w);
  heed::attention(q, k, v, out.topRows(3), m, heed::scale{0.1f}, heed::softcap{30.f});
  heed::attention(q, k, v, out, heed::lengths{vector_of_ptrdiff}, heed::offset{3});
  heed::attention(q, k, v, out, heed::lengths{vector_of_ptrdiff}, heed::offset{per_batch_vector});
  heed::attention(q, k, v, out, heed::mask{bool_view4}, heed::bias{float_view4});
  heed::attention(q, k, v, out, heed::lengths{std::vector<std::ptrdiff_t>{3}});  // not stored: lives long enough
  heed::rotary rope{heed::frequencies::standard(64), heed::layout::half};
  heed::causal const constant;
  heed::attention(q, k, v, out, constant, rope, heed::log_n{512});
  heed::attention(q, k, v, Eigen::Map<Eigen::MatrixXf>(out.data(), 3, 4), std::move(rope));
  heed::thread_pool pool{threads};
  heed::attention(q, k, v, out, heed::on{pool});
  heed::attention(q, k, v, out, heed::on{heed::thread_pool{threads}});
  heed::workspace scratch;
  heed::attention(q, k, v, out, heed::with{scratch});
  auto o = heed::attention(q, k, v, heed::causal{});
  auto const stored =
      heed::modifiers(m, heed::score{[](auto s, auto site) { return s - 0.1f * heed::abs(site.distance()); }});
  heed::attention(q, k, o, out, stored);
  heed::relative_bias const table{float_view4};
  auto const copied = heed::modifiers(table, heed::alibi::standard(4));
  heed::attention(q, k, v, out, copied);
}
