#pragma once

#include <heed/core/description.hpp>
#include <heed/core/eigen.hpp>
#include <heed/core/modifier.hpp>
#include <heed/core/simd.hpp>
#include <heed/core/site.hpp>
#include <heed/core/tensor.hpp>

#include <tuple>

/// What a modifier is, and how several become one set.
///
/// A modifier of your own is a struct with a stage and an `apply`, or with a `visible`:
///
///     struct kerple {                                        // s − r1 · log(1 + r2 · |distance|)
///       static constexpr auto stage = heed::score_stage::bias;
///       float r1, r2;
///       template <class S, class Site>
///       S apply(S s, Site const& at) const {
///         return s - r1 * heed::log(S(1.0f) + r2 * heed::abs(at.distance()));
///       }
///     };
///     heed::attention(q, k, v, out, heed::causal{}, kerple{0.5f, 1.0f});
///
/// - Each type of modifier at most once in a call. Different ones of one stage act in the alphabetical order of their
///   types' full names, with `score{f}` among those of `score_stage::function`, whatever the order of the arguments;
///   where two names are equal (templates over lambdas of one function) the call does not compile.
/// - `apply` must work for numbers and SIMD batches, and `visible` returns a comparison;
///   const, noexcept, no side effects.

namespace heed {

HEED_ISA_BEGIN

namespace impl {

template <class T>
inline constexpr bool owns_memory = std::ranges::range<T> && !std::ranges::borrowed_range<T>;
template <class T, int Rank>
inline constexpr bool owns_memory<tensor<T, Rank>> = true;
template <class T>
  requires std::derived_from<T, Eigen::EigenBase<T>>
inline constexpr bool owns_memory<T> = std::derived_from<T, Eigen::PlainObjectBase<T>>;

/// For a forwarding reference `Argument&&`: temporary if it binds to a container that is about to die.
template <class Argument>
using lifetime_of =
    std::conditional_t<!std::is_lvalue_reference_v<Argument> && owns_memory<std::remove_cvref_t<Argument>>, temporary,
                       borrowed>;

template <class M>
concept describes = requires(M const& m, description& d) { m.describe(d); };
template <class M>
concept has_family = requires { requires std::same_as<std::remove_cvref_t<decltype(M::kind)>, family>; };
template <class M>
concept maps_scores = requires { requires std::same_as<std::remove_cvref_t<decltype(M::stage)>, score_stage>; };
template <class M>
concept hides_keys = requires(M const& m, site<double> const& at) { m.visible(at); };

template <class M>
inline constexpr bool is_set = false;

template <class M>
constexpr family family_of() {
  if constexpr (has_family<M>)
    return M::kind;
  else
    return family::user;
}

template <class M>
inline constexpr bool views_temporary = false;
template <template <class...> class M, class... Rest>
inline constexpr bool views_temporary<M<temporary, Rest...>> = true;

}  // namespace impl

/// Anything that may follow the tensors of a call.
template <class M>
concept modifier =
    impl::describes<M> || impl::maps_scores<M> || impl::hides_keys<M> || impl::has_family<M> || impl::is_set<M>;

/// Several modifiers as one, made by `modifiers(…)`.
template <class... Ms>
struct modifier_set {
  std::tuple<Ms...> members;
};

namespace impl {

template <class... Ms>
inline constexpr bool is_set<modifier_set<Ms...>> = true;

/// One modifier, or the members of a set and of the sets in it, as a flat tuple.
template <class M>
auto flatten(M const& m) {
  static_assert(modifier<M>, "heed: this argument is neither a tensor nor a modifier");
  return std::tuple<M>(m);
}
template <class... Ms>
auto flatten(modifier_set<Ms...> const& set) {
  return std::apply([](auto const&... ms) { return std::tuple_cat(flatten(ms)...); }, set.members);
}

template <class... Ms>
constexpr int count_family([[maybe_unused]] family wanted, std::tuple<Ms...> const*) {
  return (0 + ... + static_cast<int>(family_of<std::remove_cvref_t<Ms>>() == wanted));
}

/// Whether a modifier of the user's own type is the only one of that type in a call.
template <class M, class... Ms>
constexpr bool alone(std::tuple<Ms...> const*) {
  return family_of<M>() != family::user || (0 + ... + static_cast<int>(std::same_as<M, std::remove_cvref_t<Ms>>)) == 1;
}
template <class... Ms>
constexpr bool each_alone([[maybe_unused]] std::tuple<Ms...> const* set) {
  return (true && ... && alone<std::remove_cvref_t<Ms>>(set));
}

/// `flatten` by reference, for the length of a call.
template <class M>
auto flat_references(M const& m) {
  static_assert(modifier<M>, "heed: this argument is neither a tensor nor a modifier");
  return std::tuple<M const&>(m);
}
template <class... Ms>
auto flat_references(modifier_set<Ms...> const& set) {
  return std::apply([](auto const&... ms) { return std::tuple_cat(flat_references(ms)...); }, set.members);
}

template <class Flat>
constexpr void check_families() {
  constexpr Flat const* set = nullptr;
  static_assert(count_family(family::scale, set) <= 1, "heed: two scales in one call");
  static_assert(count_family(family::row_scale, set) <= 1,
                "heed: two row scales in one call (log_n, log_n_clamped, log_n_beyond, scalable: choose one)");
  static_assert(count_family(family::position, set) <= 1,
                "heed: two position encodings in one call (rotary, rerope, leaky_rerope, self_extend: choose one)");
  static_assert(count_family(family::normalizer, set) <= 1,
                "heed: two normalisers in one call (softmax, squared_relu, l2_softmax: choose one)");
  static_assert(count_family(family::score, set) <= 1, "heed: two score functors in one call: compose them into one");
  static_assert(count_family(family::offset, set) <= 1, "heed: two offsets in one call");
  static_assert(count_family(family::causal, set) <= 1, "heed: causal named twice in one call");
  static_assert(count_family(family::window, set) <= 1, "heed: two windows in one call");
  static_assert(count_family(family::sink_tokens, set) <= 1, "heed: sink_tokens named twice in one call");
  static_assert(count_family(family::lengths, set) <= 1, "heed: lengths named twice in one call");
  static_assert(count_family(family::segments, set) <= 1, "heed: segments named twice in one call");
  static_assert(count_family(family::softcap, set) <= 1, "heed: two softcaps in one call");
  static_assert(count_family(family::alibi, set) <= 1, "heed: alibi named twice in one call");
  static_assert(count_family(family::relative_bias, set) <= 1, "heed: two relative_bias tables in one call");
  static_assert(count_family(family::sink_logits, set) <= 1, "heed: sink_logits named twice in one call");
  static_assert(count_family(family::gate, set) <= 1, "heed: two gates in one call");
  static_assert(count_family(family::lse, set) <= 1, "heed: lse named twice in one call");
  static_assert(count_family(family::entropy, set) <= 1, "heed: entropy named twice in one call");
  static_assert(count_family(family::executor, set) <= 1, "heed: two executors in one call");
  static_assert(count_family(family::workspace, set) <= 1, "heed: two workspaces in one call");
  static_assert(count_family(family::amx, set) <= 1, "heed: with_amx named twice in one call");
  static_assert(each_alone(set), "heed: two modifiers of one type of your own in one call: compose them into one");
}

}  // namespace impl

/// Bundles modifiers, and sets of them, into one that can be stored and reused; order never matters.
///
/// Views stay views: a set refers to the memory its members refer to. A member made from a temporary container is
/// refused at compile time.
template <class... Ms>
auto modifiers(Ms&&... ms) {
  static_assert((!impl::views_temporary<std::remove_cvref_t<Ms>> && ...),
                "heed: a stored set of modifiers must not refer to a temporary container: name the container first");
  auto flat = std::tuple_cat(impl::flatten(ms)...);
  impl::check_families<decltype(flat)>();
  return std::apply(
      [](auto const&... members) { return modifier_set<std::remove_cvref_t<decltype(members)>...>{{members...}}; },
      flat);
}

HEED_ISA_END
}  // namespace heed
