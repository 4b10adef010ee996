// One idea: attention's scores are worth something without softmax and values. GlobalPointer (arXiv 2208.03054) finds
// spans: head a says by s_a(i, j) > 0 that tokens i…j are an entity of type a.
// Only the few positive pairs are ever handed out.

#include <heed/attention/scores.hpp>
#include <heed/position/rotary.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  char const* const words[] = {"yesterday", "Ada", "Lovelace", "met", "Charles", "Babbage", "in", "London"};
  char const* const types[] = {"person", "place"};
  constexpr heed::index len = 8, dim = 64;
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  // What a trained encoder would give: "starts a person" is one direction of the queries and the ends' keys, and so on.
  // RoPE is what tells (Ada, Lovelace) from (Ada, Babbage): the same directions, but a longer way from start to end.
  matrix q = matrix::Zero(2 * len, dim), k = matrix::Zero(2 * len, dim);
  auto const mark = [&](int type, heed::index first, heed::index last) {
    q.row(type * len + first).setConstant(1);
    k.row(type * len + last).setConstant(1);
  };
  mark(0, 1, 2);
  mark(0, 4, 5);
  mark(1, 7, 7);

  heed::view<float const, 3> const queries(q.data(), {2, len, dim}), keys(k.data(), {2, len, dim});
  heed::rotary const rope{heed::frequencies::standard(dim), heed::layout::half};
  auto const spans = heed::modifiers(rope, heed::window{0, heed::unbounded}, heed::offset{0});  // i <= j

  int found = 0;
  float const threshold = 6.5f;
  std::printf("spans whose score is above %.1f, of %td pairs\n", static_cast<double>(threshold), 2 * len * len);
  heed::scores_above(
      queries, keys, static_cast<double>(threshold),
      [&](heed::index, heed::index type, heed::index i, heed::index j, float s) {
        std::printf("  %-7s %5.2f ", types[type], static_cast<double>(s));
        for (heed::index t = i; t <= j; ++t)
          std::printf(" %s", words[t]);
        std::printf("\n");
        ++found;
      },
      spans);

  matrix dense(2 * len, len);
  heed::scores(queries, keys, heed::view<float, 3>(dense.data(), {2, len, len}), spans);
  std::printf("\nthe same pair of directions farther apart: (Ada … Babbage) %.2f; without RoPE it would be %.2f, too\n",
              static_cast<double>(dense(1, 5)), static_cast<double>(q.row(1).dot(k.row(5))) / 8);
  return found == 3 ? 0 : 1;
}
