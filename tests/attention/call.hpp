#pragma once

#include <heed/attention/bias.hpp>
#include <heed/attention/mask.hpp>
#include <heed/attention/normalizer.hpp>
#include <heed/attention/outputs.hpp>
#include <heed/attention/row_scale.hpp>
#include <heed/attention/score.hpp>
#include <heed/core/tensor.hpp>

#include "support/random.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

/// One call of the front door, its modifiers chosen at run time: what keeps the number of instantiations of the pass
/// small although hundreds of calls are compared. The modifiers are heed's own and are only carried here; the calls are
/// compiled once each, in calls_*.cpp, and so is the reference, in reference_calls.cpp.

namespace heed::test {

/// A functor that uses all of `site`.
struct bend {
  template <class S, class Site>
  S operator()(S s, Site const& at) const noexcept {
    S const wave = at.query() * 0.001f - at.key() * 0.002f + static_cast<float>(at.head() + 3 * at.batch()) * 0.03125f;
    return heed::select(at.distance() > S(2), s - heed::abs(at.distance()) * 0.0625f, s + wave);
  }
};

class request {
 public:
  template <class... Ms>
  explicit request(Ms const&... ms) {
    (add(ms), ...);
  }

  template <class M>
  request& add(M const& m) {
    if constexpr (std::same_as<M, softcap>)
      cap = m;
    else if constexpr (std::same_as<M, alibi>)
      slopes = m;
    else if constexpr (std::same_as<M, score<bend>>)
      functor = true;
    else {
      if constexpr (requires { M::rule; })
        rule = M::rule;
      if constexpr (M::kind == family::entropy)
        entropy = true;
      said.push_back([m](description& d) { m.describe(d); });
    }
    return *this;
  }

  void describe(description& d) const {
    for (auto const& each : said)
      each(d);
  }

  std::vector<std::function<void(description&)>> said;
  std::optional<softcap> cap;
  std::optional<alibi> slopes;
  bool functor = false;
  normalizer_rule rule = normalizer_rule::softmax;
  bool entropy = false;
};

/// An executor whose type says nothing of where it runs.
struct any_executor {
  using body = std::function<void(index, int)>;
  int workers = 1;
  std::function<void(index, body const&)> place = [](index n, body const& f) { inline_executor{}.run(n, f); };

  any_executor() = default;
  template <executor E>
  explicit any_executor(E e)
      : workers(e.concurrency()),
        place([e](index n, body const& f) mutable { e.run(n, [&f](index task, int worker) { f(task, worker); }); }) {}

  int concurrency() const { return workers; }
  template <class F>
  void run(index n, F f) const {
    place(n, body(std::ref(f)));
  }
};

/// Inputs of a call, and where its results go.
template <class T>
struct tensors {
  view<T const, 4> q, k, v;
  view<T, 4> out;
};

// heed::attention, compiled once for every set of score maps, normaliser and entropy.
void attend(tensors<float> const&, request const&, any_executor const& = {});
void attend(tensors<double> const&, request const&, any_executor const& = {});

/// What the reference makes of it in the next wider type, and its scores.
struct judgement {
  tensor<double, 4> out, scores;
};
judgement judge(tensors<float> const&, request const&);
judgement judge(tensors<double> const&, request const&);

/// Owned inputs, random unless changed.
template <class T>
struct example {
  tensor<T, 4> q, k, v, out;

  /// extents: batch, heads_q, heads_kv, q_len, kv_len, dim, dim_v
  example(std::array<index, 7> const& e, std::uint64_t seed, double deviation = 1) : out({e[0], e[1], e[3], e[6]}) {
    generator random(seed);
    q = normal_tensor<T, 4>({e[0], e[1], e[3], e[5]}, random, 0, deviation);
    k = normal_tensor<T, 4>({e[0], e[2], e[4], e[5]}, random);
    v = normal_tensor<T, 4>({e[0], e[2], e[4], e[6]}, random);
    // A row that is left out would pass for an empty one.
    std::fill_n(out.data(), out.size(), static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
  }

  tensors<T> views() { return {q.view(), k.view(), v.view(), out.view()}; }

  template <class... Ms>
  tensor<T, 4> const& attend(Ms const&... ms) {
    test::attend(views(), request(ms...));
    return out;
  }
};

/// Compares a call with the reference: out by the contract's bound, lse and entropy likewise. Failures are reported by
/// Catch2; `what` goes into the message.
void check_call(example<float>&, request const&, std::string const& what);
void check_call(example<double>&, request const&, std::string const& what);

}  // namespace heed::test
