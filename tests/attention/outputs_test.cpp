#include "support/catch.hpp"

#include <heed/attention/attention.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"

#include <vector>

// sink_logits, gate, lse, entropy; what is written, and nothing else.

namespace heed::test {

TEST_CASE("lse, entropy and sink_logits agree with the reference", "[reference][contract]") {
  std::vector<double> const sinks{0.5, -3, 4, -std::numeric_limits<double>::infinity()};
  for (index q_len : {70, 2}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 51);
    example<double> wide({2, 4, 2, q_len, 131, 16, 24}, 51);
    tensor<double, 1> unused({1});
    auto const check_all = [&](request r, std::string const& what) {
      check_call(in, r, what);
      check_call(wide, r, what + ", double");
      r.entropy = true;
      check_call(in, r, what + ", entropy");
      check_call(wide, r, what + ", entropy, double");
    };
    check_all(request(), "plain");
    check_all(request(causal{}, window{20, 0}), "causal, window");
    check_all(request(sink_logits{sinks}), "sinks");
    check_all(request(sink_logits{sinks}, causal{}, offset{-20}), "sinks, empty rows");
    check_all(request(sink_logits{sinks}, softcap{2}, alibi::standard(4), score{bend{}}, causal{}), "all maps");
  }
}

TEST_CASE("The gate multiplies the finished row", "[reference][contract]") {
  generator random(52);
  std::vector<double> const sinks{0.5, -3, 4, 1};
  for (index q_len : {70, 2}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 53);
    for (index_array<4> const& e : {index_array<4>{2, 4, q_len, 24}, {1, 4, 1, 24}, {2, 1, q_len, 1}, {1, 1, 1, 1}}) {
      auto const u = normal_tensor<float, 4>(e, random);
      check_call(in, request(gate{u}), "gate");
      check_call(in, request(gate{u}, causal{}, sink_logits{sinks}), "gate, causal, sinks");
    }
    auto const half = normal_tensor<Eigen::half, 2>({q_len, 24}, random);
    check_call(in, request(gate{half}, squared_relu{visible{}}), "gate, squared_relu");
    // lse and entropy are taken before the gate.
    tensor<float, 3> l({2, 4, q_len}), gated({2, 4, q_len});
    in.attend(lse{l});
    in.attend(lse{gated}, gate{half});
    CHECK(same_bits(l, gated));
  }
}

TEST_CASE("The gate may be out itself", "[contract]") {
  generator random(54);
  for (index q_len : {70, 2}) {
    example<float> in({1, 2, 1, q_len, 40, 8, 24}, 55);
    auto const u = normal_tensor<float, 4>({1, 2, q_len, 24}, random);
    auto const expected = in.attend(gate{u});
    in.out = u;
    in.attend(gate{in.out});
    CHECK(same_bits(in.out, expected));
  }
}

TEST_CASE("Merging split key ranges by lse gives the whole", "[identities][contract]") {
  for (index q_len : {70, 2})
    for (index cut : {1, 64, 100}) {
      example<double> in({1, 2, 1, q_len, 131, 8, 8}, 56);
      std::vector<double> const sinks{0.25, 1};
      tensor<double, 3> l({1, 2, q_len});
      auto const whole = in.attend(sink_logits{sinks}, offset{0}, lse{l});
      auto const part = [&](index first, index end) {
        auto const of = [&](tensor<double, 4> const& x) {
          return view<double const, 4>(x.data() + first * x.stride(2), {1, 1, end - first, 8}, x.strides());
        };
        return tensors<double>{in.q.view(), of(in.k), of(in.v), in.out.view()};
      };
      tensor<double, 3> la({1, 2, q_len}), lb({1, 2, q_len});
      attend(part(0, cut), request(lse{la}, sink_logits{sinks}));  // the sink in exactly one of the calls
      auto const a = in.out;
      attend(part(cut, 131), request(lse{lb}));
      double worst = 0;
      for_each_place(whole.extents(), [&](index b, index h, index i, index c) {
        double const top = std::max(la(b, h, i), lb(b, h, i));
        double const wa = std::exp(la(b, h, i) - top), wb = std::exp(lb(b, h, i) - top);
        worst =
            std::max(worst, std::fabs((a(b, h, i, c) * wa + in.out(b, h, i, c) * wb) / (wa + wb) - whole(b, h, i, c)));
        worst = std::max(worst, std::fabs(top + std::log(wa + wb) - l(b, h, i)));
      });
      CHECK(worst < 1e-13);
    }
}

TEST_CASE("Nothing is written outside out, lse and entropy", "[resources][contract]") {
  struct layout_of_out {
    char const* name;
    index_array<4> (*strides)(index q_len, index dim_v);
  };
  layout_of_out const layouts[] = {
      {"row-major", [](index n, index d) { return index_array<4>{2 * n * d, n * d, d, 1}; }},
      {"padded rows", [](index n, index d) { return index_array<4>{2 * n * (d + 3), n * (d + 3), d + 3, 1}; }},
      {"heads inside", [](index n, index d) { return index_array<4>{n * 2 * d, d, 2 * d, 1}; }},
      {"column-major", [](index n, index d) { return index_array<4>{2 * n * d, n * d, 1, n}; }},
      {"every second", [](index n, index d) { return index_array<4>{4 * n * d, 2 * n * d, 2 * d, 2}; }},
      {"backwards", [](index n, index d) { return index_array<4>{-2 * n * d, n * d, -d, 1}; }},
      {"backwards channels", [](index n, index d) { return index_array<4>{2 * n * d, n * d, d, -1}; }},
  };
  for (auto const& layout : layouts)
    for (index q_len : {1, 3, 15, 16, 17, 65, 130})
      for (index dim_v : {1, 7, 16, 33}) {
        INFO(layout.name << ", q_len " << q_len << ", dim_v " << dim_v);
        example<float> in({2, 2, 1, q_len, 50, 8, dim_v}, 57);
        tensor<float, 3> l({2, 2, q_len}), h({2, 2, q_len});
        auto const expected = in.attend(causal{}, lse{l}, entropy{h});
        guarded<float, 4> out({2, 2, q_len, dim_v}, layout.strides(q_len, dim_v));
        guarded<float, 3> ls({2, 2, q_len}, {3 * q_len, 1, 3}), hs({2, 2, q_len}, {2 * q_len, q_len, 1});
        attend({in.q.view(), in.k.view(), in.v.view(), out.view()}, request(causal{}, lse{ls}, entropy{hs}));
        CHECK(out.damage() == "");
        CHECK(ls.damage() == "");
        CHECK(hs.damage() == "");
        bool same = true;
        for_each_place(expected.extents(), [&](index b, index head, index i, index c) {
          same = same && out.view()(b, head, i, c) == expected(b, head, i, c) &&
                 ls.view()(b, head, i) == l(b, head, i) && hs.view()(b, head, i) == h(b, head, i);
        });
        CHECK(same);
      }
}

TEST_CASE("Nothing is written outside a half-precision out", "[resources][contract]") {
  for (index q_len : {3, 20})
    for (index dim_v : {1, 7, 16, 33}) {
      example<float> in({1, 2, 1, q_len, 50, 8, dim_v}, 58);
      in.attend(causal{});
      auto const check_as = [&]<class Stored>(Stored) {
        guarded<Stored, 4> out({1, 2, q_len, dim_v}, {2 * q_len * (dim_v + 1), q_len * (dim_v + 1), dim_v + 1, 1});
        attention(in.q, in.k, in.v, out.view(), causal{});
        CHECK(out.damage() == "");
        bool rounded = true;
        for_each_place(in.out.extents(), [&](index b, index h, index i, index c) {
          rounded = rounded && out.view()(b, h, i, c) == round_to<Stored>(in.out(b, h, i, c));
        });
        CHECK(rounded);
      };
      check_as(Eigen::half());
      check_as(Eigen::bfloat16());
    }
}

}  // namespace heed::test
