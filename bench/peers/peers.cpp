#include "serve.hpp"

#include "../support/floors.hpp"

#include <heed/attention/attention.hpp>

#include <memory>

/// heed, and attention composed of Eigen's and of OpenBLAS' products: blocked over queries so that hidden keys cost
/// little (floors.hpp), and of whole matrices, as one would write it down.

namespace {

template <class T>
struct tensors {
  heed::tensor<T, 3> q, k, v;

  explicit tensors(peers::call const& c)
      : q({c.heads_q, c.q_len, c.dim}), k({c.heads_kv, c.kv_len, c.dim}), v({c.heads_kv, c.kv_len, c.dim}) {
    make(q, 1);
    make(k, 2);
    make(v, 3);
  }

  static void make(heed::tensor<T, 3>& x, std::uint32_t seed) {
    std::vector<float> numbers(static_cast<std::size_t>(x.size()));
    peers::fill(numbers.data(), numbers.size(), seed);
    for (heed::index i = 0; i < x.size(); ++i)
      x.data()[i] = static_cast<T>(numbers[static_cast<std::size_t>(i)]);
  }
};

template <class T>
peers::contender contender_of(std::string name, std::shared_ptr<heed::tensor<T, 3>> const& out,
                              std::function<void()> once) {
  return {std::move(name), std::move(once), [out](std::size_t i) { return static_cast<float>(out->data()[i]); }};
}

template <class T>
peers::contender of_heed(peers::call const& c, std::shared_ptr<tensors<T>> const& in) {
  auto const out = std::make_shared<heed::tensor<T, 3>>(in->q.extents());
  auto const permit = heed::enable_amx();
  return contender_of(std::string("heed"), out, [in, out, causal = c.causal, permit] {
    if (causal)
      heed::attention(in->q, in->k, in->v, *out, heed::causal{}, heed::with_amx{permit});
    else
      heed::attention(in->q, in->k, in->v, *out, heed::with_amx{permit});
  });
}

template <class Products>
peers::contender of_products(char const* name, peers::call const& c, std::shared_ptr<tensors<float>> const& in,
                             heed::index block) {
  auto const out = std::make_shared<heed::tensor<float, 3>>(in->q.extents());
  auto const scratch = std::make_shared<std::vector<float>>();
  bench::shape const s{name, c.heads_q, c.heads_kv, c.q_len, c.kv_len, c.dim};
  auto const sees = c.causal ? bench::visible::causal : bench::visible::full;
  return contender_of(std::string(name), out, [=] {
    bench::composed_attention<Products>(s, sees, in->q.view(), in->k.view(), in->v.view(), out->view(), *scratch,
                                        block);
  });
}

template <class T>
std::vector<peers::contender> prepare(peers::call const& c) {
  auto const in = std::make_shared<tensors<T>>(c);
  std::vector<peers::contender> all{of_heed(c, in)};
  if constexpr (std::same_as<T, float>) {
    all.push_back(of_products<bench::eigen_products>("eigen_blocked", c, in, 0));
    all.push_back(of_products<bench::eigen_products>("eigen", c, in, c.q_len));
#if defined(HEED_BENCH_OPENBLAS)
    all.push_back(of_products<bench::openblas_products>("openblas_blocked", c, in, 0));
    all.push_back(of_products<bench::openblas_products>("openblas", c, in, c.q_len));
#endif
  }
  return all;
}

}  // namespace

int main() {
#if defined(HEED_BENCH_OPENBLAS)
  openblas_set_num_threads(1);
#endif
  return peers::serve([](peers::call const& c) {
    return c.storage == "half"       ? prepare<Eigen::half>(c)
           : c.storage == "bfloat16" ? prepare<Eigen::bfloat16>(c)
                                     : prepare<float>(c);
  });
}
