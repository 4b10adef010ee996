#pragma once

#include <heed/attention/attention.hpp>
#include <heed/gated/layers.hpp>
#include <heed/gated/operands.hpp>

#include <memory>

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// c = a · b, all row-major: an Eigen product, with Eigen's own scratch.
template <real T>
HEED_NOINLINE void multiply(T const* a, index lda, T const* b, index ldb, index rows, index inner, index columns, T* c,
                            index ldc) {
  using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using stride = Eigen::OuterStride<>;
  Eigen::Map<matrix const, Eigen::Unaligned, stride> const left(a, rows, inner, stride(lda));
  Eigen::Map<matrix const, Eigen::Unaligned, stride> const right(b, inner, columns, stride(ldb));
  Eigen::Map<matrix, Eigen::Unaligned, stride>(c, rows, columns, stride(ldc)).noalias() = left * right;
}

/// A matrix that products can read: where it lies, if it is row-major and of the arithmetic type, else a copy.
template <real T>
class product_matrix {
 public:
  product_matrix() = default;

  template <class S>
  explicit product_matrix(view<S const, 2> const& from) : rows_(from.extent(0)), columns_(from.extent(1)) {
    operand const all = make_operand(from);
    if (heed::in_place<T>(all) && from.stride(0) >= columns_) {
      data_ = reinterpret_cast<T const*>(all.data);
      ld_ = from.stride(0);
    } else {
      auto copy = std::make_shared<tensor<T, 2>>(from.extents());
      load_rows(all.data, all.kind, from.stride(0), from.stride(1), rows_, columns_, copy->data(), columns_);
      data_ = copy->data();
      ld_ = columns_;
      copy_ = std::move(copy);
    }
  }

  index rows() const { return rows_; }
  index columns() const { return columns_; }
  index ld() const { return ld_; }
  T const* data() const { return data_; }
  T const* row(index i) const { return data_ + i * ld_; }

 private:
  T const* data_ = nullptr;
  index rows_ = 0, columns_ = 0, ld_ = 0;
  std::shared_ptr<tensor<T, 2> const> copy_;
};

/// What forward() keeps between its three steps, in one allocation.
template <real T>
struct gau_scratch {
  T *u = nullptr, *v = nullptr, *q = nullptr, *k = nullptr;
  T* staged = nullptr;  // [worker][row_block][dim], where x or out cannot be read or written by a product
  index staged_per_worker = 0;

  T* staging(int worker) const { return staged + worker * staged_per_worker; }
};

}  // namespace impl

/// Gated attention unit: one head whose attention and feed-forward are a single gated product.
///
///     U, V, Z = SiLU(x · w_in) split in this order;   q = gamma_0 ⊙ Z + beta_0;   k = gamma_1 ⊙ Z + beta_1
///     out = (U ⊙ attention(q, k, V, modifiers…)) · w_out
///
/// | argument | shape | strides |
/// |---|---|---|
/// | w_in | [dim, 2 e + s]: columns u, v, z | any; unit last stride and storage float or double are read in place |
/// | gamma, beta | [2, s]: row 0 makes q, row 1 makes k; beta may be left out or empty | any |
/// | w_out | [e, dim] | as w_in |
/// | x, out | [len, dim] or [batch, len, dim] | any; out may be x itself |
///
/// The normaliser is the modifiers' business: `squared_relu{visible{}}` is bert4keras' relu², `squared_relu{fixed{n}}`
/// 1/(n s) of kexue.fm/archives/8934, the default plain softmax, and `log_n_clamped{512, 16}` with it the softmax_plus
/// of GAU-α. `rotary` turns q and k; causal, lengths, masks and the rest mean what they mean to `attention`, with
/// `heads_q = 1`.
///
/// - q and k come from the same rows, so the offset is 0 whatever `lengths` says; an explicit `offset` wins.
/// - The gate is applied as rows leave the attention: an empty row is 0 even where U is not finite.
/// - Memory: one allocation of batch · len · 2 (e + s) scalars a call, the attention's own (at most 1 MiB a worker,
///   e = 1536 included; `with{workspace}` serves this part), and what Eigen's products take for themselves.
/// - Weights are views; those not row-major, or of half or bfloat16, are widened once, when the layer is made.
/// - forward() is const and re-entrant. Projections and attention are cut by shape and run on `on{executor}`.
/// @throws argument_error for extents that do not fit, and all that `attention` refuses
/// @see Hua et al. 2022, arXiv 2202.10447; kexue.fm/archives/8934 and 9052; formulas C1, C2
template <storage_scalar T>
class gau {
 public:
  using arithmetic = arithmetic_t<T>;

  template <class WIn, class Gamma, class Beta, class WOut>
  gau(WIn&& w_in, Gamma&& gamma, Beta&& beta, WOut&& w_out) {
    static_assert(
        ((!std::same_as<impl::lifetime_of<WIn>, temporary> && !std::same_as<impl::lifetime_of<WOut>, temporary>)),
        "heed: gau views its weights: a temporary container would be gone before forward()");
    static_assert(is_weight<WIn> && is_weight<Gamma> && is_weight<Beta> && is_weight<WOut>,
                  "heed: gau<T> takes weights of rank 2 whose scalar is T");
    check(as_view(w_in), as_view(gamma), as_view(beta), as_view(w_out));
    w_in_ = weights(view<T const, 2>(as_view(w_in)));
    w_out_ = weights(view<T const, 2>(as_view(w_out)));
    scales_ = tensor<arithmetic, 2>({4, key_size()});
    operand const factors = make_operand(as_view(gamma)), offsets = make_operand(as_view(beta));
    for (index r = 0; r < 2; ++r)
      for (index c = 0; c < key_size(); ++c) {
        scales_(r, c) = static_cast<arithmetic>(factors(0, 0, r, c));
        if (offsets.extents[3] > 0)
          scales_(2 + r, c) = static_cast<arithmetic>(offsets(0, 0, r, c));
      }
  }

  template <class WIn, class Gamma, class WOut>
  gau(WIn&& w_in, Gamma&& gamma, WOut&& w_out)
      : gau(std::forward<WIn>(w_in), std::forward<Gamma>(gamma), view<T const, 2>(), std::forward<WOut>(w_out)) {}

  index dim() const { return w_in_.rows(); }
  index expanded() const { return w_out_.rows(); }                        // e
  index key_size() const { return w_in_.columns() - 2 * w_out_.rows(); }  // s

  template <class X, class Out, class... Ms>
  void forward(X const& x, Out&& out, Ms const&... ms) const {
    check_modifiers<Ms...>();
    impl::read_modifiers<Ms...> const read(ms...);
    operand const from = rows_of("x", as_view(x));
    auto const results = as_view(std::forward<Out>(out));
    static_assert(!std::is_const_v<std::remove_reference_t<decltype(*results.data())>>, "heed: out must not be const");
    operand const to = rows_of("out", results);
    for (std::size_t r = 0; r < 3; ++r)
      detail::expect(to.extents[r] == from.extents[r], "gau: out.extent(", r == 0 ? "batch" : "len",
                     ") must equal x's ", from.extents[r], ", got ", to.extents[r]);
    impl::expect_input("gau", "x", from);
    impl::expect_result("gau", "out", to);
    if (from.extents[0] * from.extents[2] == 0)
      return;
    inline_executor here;
    auto& place = impl::executor_of(read, here);
    workspace memory;
    auto const scratch = make_scratch(from, to, place.concurrency(), memory);
    each_block(place, from, [&](index batch, index first, index rows, int worker) {
      project(from, batch, first, rows, scratch, worker);
    });
    attend(from, scratch, ms...);
    each_block(place, from, [&](index batch, index first, index rows, int worker) {
      leave(to, batch, first, rows, scratch, worker);
    });
  }

  /// How the attention inside forward(x, …) will be done.
  template <class X, class... Ms>
  plan explain(X const& x, Ms const&... ms) const {
    check_modifiers<Ms...>();
    operand const from = rows_of("x", as_view(x));
    // Nothing is read: any address will do.
    auto* const any = const_cast<arithmetic*>(w_in_.data());
    impl::gau_scratch<arithmetic> const shape{any, any, any, any};
    return with_inside(
        from, shape,
        [](auto const& q, auto const& k, auto const& v, auto const&, auto const&... more) {
          return heed::explain(q, k, v, more...);
        },
        ms...);
  }

  /// How many bytes `with{workspace}` must have for forward(x, …).
  template <class X, class... Ms>
  std::size_t workspace_bytes(X const& x, Ms const&... ms) const {
    return explain(x, ms...).workspace_bytes;
  }

 private:
  using weights = impl::product_matrix<arithmetic>;
  template <class W>
  static constexpr bool is_weight = decltype(as_view(std::declval<W>()))::rank == 2 &&
                                    std::same_as<typename decltype(as_view(std::declval<W>()))::value_type, T>;

  // Rows of a projection's task: enough for Eigen's product to run at full speed, few enough to share out short inputs.
  static constexpr index row_block = 128;

  template <class WIn, class Gamma, class Beta, class WOut>
  static void check(WIn const& w_in, Gamma const& gamma, Beta const& beta, WOut const& w_out) {
    index const e = w_out.extent(0), s = w_in.extent(1) - 2 * e;
    detail::expect(w_in.extent(0) >= 1 && e >= 1 && s >= 1, "gau: w_in must be [dim, 2 e + s] with w_out's e = ", e,
                   " and s ≥ 1, got [", w_in.extent(0), ", ", w_in.extent(1), "]");
    detail::expect(w_out.extent(1) == w_in.extent(0), "gau: w_out.extent(dim) must equal w_in's ", w_in.extent(0),
                   ", got ", w_out.extent(1));
    detail::expect(gamma.extent(0) == 2 && gamma.extent(1) == s, "gau: gamma must be [2, ", s, "], got [",
                   gamma.extent(0), ", ", gamma.extent(1), "]");
    detail::expect(beta.size() == 0 || (beta.extent(0) == 2 && beta.extent(1) == s), "gau: beta must be [2, ", s,
                   "] or empty, got [", beta.extent(0), ", ", beta.extent(1), "]");
  }

  template <class... Ms>
  static constexpr bool names(family wanted) {
    return impl::count_family(wanted, static_cast<typename impl::read_modifiers<Ms...>::flat_type const*>(nullptr)) > 0;
  }
  template <class... Ms>
  static constexpr void check_modifiers() {
    static_assert(!names<Ms...>(family::amx), "heed: gau takes no with_amx: its queries and keys are made in float");
    static_assert(!names<Ms...>(family::gate), "heed: gau gates with its own U: no gate{} in forward()");
  }

  /// [len, dim] or [batch, len, dim] as [batch, 1, len, dim].
  template <class V>
  operand rows_of(char const* what, V const& v) const {
    static_assert(V::rank == 2 || V::rank == 3, "heed: gau reads [len, dim] or [batch, len, dim]");
    static_assert(storage_scalar<typename V::value_type> &&
                      std::same_as<arithmetic_t<typename V::value_type>, arithmetic>,
                  "heed: double goes with double only: x, out and the weights must be all double or none");
    operand o = make_operand(v);
    std::swap(o.extents[0], o.extents[1]);
    std::swap(o.strides[0], o.strides[1]);
    detail::expect(o.extents[3] == dim(), "gau: ", what, ".extent(dim) must equal w_in's ", dim(), ", got ",
                   o.extents[3]);
    return o;
  }

  impl::gau_scratch<arithmetic> make_scratch(operand const& x, operand const& out, int workers,
                                             workspace& memory) const {
    index const rows = x.extents[0] * x.extents[2];
    auto const lay = [&](arena a) {
      impl::gau_scratch<arithmetic> s;
      s.u = a.take<arithmetic>(rows * expanded());
      s.v = a.take<arithmetic>(rows * expanded());
      s.q = a.take<arithmetic>(rows * key_size());
      s.k = a.take<arithmetic>(rows * key_size());
      s.staged_per_worker = direct(x) && direct(out) ? 0 : row_block * dim();
      s.staged = a.take<arithmetic>(workers * s.staged_per_worker);
      return std::pair{s, a.used()};
    };
    memory.reserve(lay(arena()).second);
    return lay(arena(memory.data())).first;
  }

  /// Whether a product can read or write these rows where they lie.
  static bool direct(operand const& x) {
    return heed::in_place<arithmetic>(x) && (x.strides[2] >= x.extents[3] || x.extents[2] == 1);
  }

  template <class Executor, class F>
  static void each_block(Executor& place, operand const& x, F const& f) {
    index const len = x.extents[2], blocks = (len + row_block - 1) / row_block;
    place.run(x.extents[0] * blocks, [&](index task, int worker) {
      index const first = task % blocks * row_block;
      f(task / blocks, first, std::min(row_block, len - first), worker);
    });
  }

  /// Rows of x into rows of u, v, q and k.
  void project(operand const& x, index batch, index first, index rows, impl::gau_scratch<arithmetic> const& to,
               int worker) const {
    arithmetic const* from = reinterpret_cast<arithmetic const*>(x.at(batch, 0, first, 0));
    index ld = x.strides[2];
    if (!direct(x)) {
      arithmetic* const staged = to.staging(worker);
      load_rows(x.at(batch, 0, first, 0), x.kind, x.strides[2], x.strides[3], rows, dim(), staged, dim());
      from = staged;
      ld = dim();
    }
    index const at = batch * x.extents[2] + first, e = expanded(), s = key_size();
    struct part {
      arithmetic* to;
      index ld, columns, first;
    };
    for (part const& p :
         {part{to.u + at * e, e, e, 0}, part{to.v + at * e, e, e, e}, part{to.q + at * s, s, s, 2 * e}}) {
      impl::multiply(from, ld, w_in_.data() + p.first, w_in_.ld(), rows, dim(), p.columns, p.to, p.ld);
      for (index i = 0; i < rows; ++i)
        impl::silu_row(p.to + i * p.ld, p.columns);
    }
    for (index i = at; i < at + rows; ++i)
      for (index c = 0; c < s; ++c) {
        arithmetic const z = to.q[i * s + c];
        to.q[i * s + c] = scales_(0, c) * z + scales_(2, c);
        to.k[i * s + c] = scales_(1, c) * z + scales_(3, c);
      }
  }

  /// Calls f(q, k, v, u, modifiers…) with the tensors of the attention inside.
  template <class F, class... Ms>
  decltype(auto) with_inside(operand const& x, impl::gau_scratch<arithmetic> const& s, F const& f,
                             Ms const&... ms) const {
    index const b = x.extents[0], n = x.extents[2], size = key_size(), e = expanded();
    view<arithmetic, 4> const q(s.q, {b, 1, n, size}), k(s.k, {b, 1, n, size});
    view<arithmetic, 4> const v(s.v, {b, 1, n, e}), u(s.u, {b, 1, n, e});
    if constexpr (names<Ms...>(family::offset))
      return f(q, k, v, u, heed::gate{u}, ms...);
    else
      return f(q, k, v, u, heed::gate{u}, heed::offset{0}, ms...);
  }

  /// u ← u ⊙ attention, in place.
  template <class... Ms>
  void attend(operand const& x, impl::gau_scratch<arithmetic> const& s, Ms const&... ms) const {
    with_inside(
        x, s,
        [](auto const& q, auto const& k, auto const& v, auto const& u, auto const&... more) {
          heed::attention(q, k, v, u, more...);
        },
        ms...);
  }

  /// Rows of u into rows of out.
  void leave(operand const& out, index batch, index first, index rows, impl::gau_scratch<arithmetic> const& from,
             int worker) const {
    arithmetic const* const gated = from.u + (batch * out.extents[2] + first) * expanded();
    bool const straight = direct(out);
    auto* const to = const_cast<std::byte*>(out.at(batch, 0, first, 0));
    arithmetic* const rows_to = straight ? reinterpret_cast<arithmetic*>(to) : from.staging(worker);
    index const ld = straight ? out.strides[2] : dim();
    impl::multiply(gated, expanded(), w_out_.data(), w_out_.ld(), rows, expanded(), dim(), rows_to, ld);
    if (!straight)
      for (index i = 0; i < rows; ++i)
        store_row(rows_to + i * ld, dim(), to + i * out.strides[2] * size_of(out.kind), out.kind, out.strides[3]);
  }

  weights w_in_, w_out_;
  tensor<arithmetic, 2> scales_;  // gamma_q, gamma_k, beta_q, beta_k
};

HEED_ISA_END
}  // namespace heed
